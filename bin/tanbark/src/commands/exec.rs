//! `tanbark exec POD|KIND/NAME -- CMD`: a command in a running container; its exit code becomes ours.
//!
//! The protocol is Kubernetes' `v5.channel.k8s.io` over a WebSocket: the first byte of each message names its channel.

mod terminal;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::api::{Api, ApiError, escape};
use crate::session::Session;
use crate::target::{choose_container, find_pod};
use crate::{cli, object, output};
use terminal::Raw;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const RESULT: u8 = 3;
const SIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Messages of standard input that wait to be sent.
const QUEUE: usize = 16;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD, or KIND/NAME for one of its pods
    pub pod: String,
    #[command(flatten)]
    scope: cli::Scope,
    /// Container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let pod = find_pod(&api, &args.scope.namespace, &args.pod).await?;
    let container = choose_container(&pod, args.container.as_deref())?;
    let tty = args.tty && terminal::is_terminal();
    if args.tty && !tty {
        output::note("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let stdin = args.stdin || tty;
    let commands: String = args.command.iter().map(|word| format!("&command={}", escape(word))).collect();
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/exec?container={}&stdin={stdin}&stdout=true&stderr={}&tty={tty}{commands}",
        object::namespace(&pod),
        object::name(&pod),
        escape(&container),
        !tty,
    );
    let status = talk(&api, &path, stdin, tty).await?;
    code_of(&status)
}

/// The exit code that the result channel told.
fn code_of(status: &Value) -> Result<ExitCode> {
    if object::text(status, "/status") == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = object::list(status, "/details/causes");
    let code = causes.iter().find(|cause| object::text(cause, "/reason") == "ExitCode").and_then(|cause| object::text(cause, "/message").parse::<i32>().ok());
    match code {
        Some(code) => {
            output::note(&format!("command terminated with exit code {code}"));
            Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
        }
        None => bail!("{}", object::text(status, "/message")),
    }
}

async fn talk(api: &Api, path: &str, stdin: bool, tty: bool) -> Result<Value> {
    let mut request = format!("ws://localhost{path}").into_client_request().context("the request for exec")?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io"));
    let (socket, _) = tokio_tungstenite::client_async(request, api.connect().await?).await.map_err(refused)?;
    let (mut sink, mut stream) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Vec<u8>>(QUEUE);
    let raw = if tty { Some(Raw::enter()?) } else { None };
    if tty {
        tokio::spawn(terminal::send_sizes(sender.clone(), SIZE));
    }
    if stdin {
        tokio::spawn(read_input(sender.clone()));
    }
    drop(sender);
    let mut result = None;
    let mut sending = true;
    loop {
        tokio::select! {
            message = outgoing.recv(), if sending => match message {
                Some(message) => sink.send(Message::Binary(message.into())).await.context("the connection to the container")?,
                None => sending = false,
            },
            message = stream.next() => match message {
                Some(Ok(Message::Binary(message))) => {
                    if let Some(status) = take(&message)? {
                        result = Some(status);
                    }
                }
                Some(Ok(Message::Close(_))) | None => break,
                Some(Ok(_)) => {}
                // Everything was said already.
                Some(Err(_)) if result.is_some() => break,
                Some(Err(error)) => return Err(anyhow!(error).context("the connection to the container")),
            },
        }
    }
    drop(raw);
    result.context("the connection ended before the command did")
}

/// Writes output where it belongs; the result channel's status is returned.
fn take(message: &[u8]) -> Result<Option<Value>> {
    let Some((channel, data)) = message.split_first() else { return Ok(None) };
    match *channel {
        STDOUT => output::emit_bytes(data),
        STDERR => {
            let mut errors = std::io::stderr().lock();
            let _ = errors.write_all(data).and_then(|()| errors.flush());
        }
        RESULT => return Ok(Some(serde_json::from_slice(data).context("the result of the command")?)),
        _ => {}
    }
    Ok(None)
}

async fn read_input(sender: mpsc::Sender<Vec<u8>>) {
    let mut input = tokio::io::stdin();
    let mut bytes = vec![0_u8; 16 << 10];
    bytes[0] = STDIN;
    while let Ok(length @ 1..) = input.read(&mut bytes[1..]).await {
        if sender.send(bytes[..=length].to_vec()).await.is_err() {
            return;
        }
    }
    let _ = sender.send(vec![CLOSE, STDIN]).await;
}

/// A refused switch to a WebSocket holds the API's reason.
fn refused(error: SocketError) -> anyhow::Error {
    let SocketError::Http(response) = error else { return anyhow!(error).context("the local API") };
    let body: Value = response.body().as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let status = response.status();
    let message = match object::text(&body, "/message") {
        "" => status.to_string(),
        message => message.to_owned(),
    };
    ApiError { status: status.as_u16(), reason: object::text(&body, "/reason").to_owned(), message }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_code_is_ours() {
        let status = |code: &str| json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "m", "details": {"causes": [{"reason": "ExitCode", "message": code}]}});
        assert_eq!(format!("{:?}", code_of(&json!({"status": "Success"})).expect("a code")), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(format!("{:?}", code_of(&status("7")).expect("a code")), format!("{:?}", ExitCode::from(7)));
        assert_eq!(format!("{:?}", code_of(&status("137")).expect("a code")), format!("{:?}", ExitCode::from(137)));
        assert_eq!(code_of(&json!({"status": "Failure", "message": "no such program"})).expect_err("no code").to_string(), "no such program");
    }
}
