//! `exec` and `proxy`: requests that reach into a pod.
//!
//! `exec` speaks `v5.channel.k8s.io` (and v4) over a WebSocket as kubectl does: channel 0 is standard input, 1 output, 2 errors,
//! 3 the result as a `Status`, 4 the terminal's size, 255 the end of a channel. `proxy` passes one
//! HTTP request to a pod's port from inside its network, so that the proxy's admin port on
//! 127.0.0.1 is reached as well.

use std::fs::File as StdFile;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::answer::{Answer, whole};
use super::route::{self, Target};
use crate::context::Context;
use crate::network::PodNetwork;
use crate::object;
use crate::pod::exec::{Entered, Standard, enter};
use crate::pod::live::Pod;
use crate::processes::{Exit, signal};
use crate::store::Refusal;
use crate::store::kinds::{PODS, SERVICES};

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

fn unavailable(error: impl ToString) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

/// Starts a command in a container and answers with the switch to a WebSocket.
pub async fn exec(
    context: Arc<Context>,
    target: &Target,
    mut request: Request<Incoming>,
) -> Answer {
    let query = request.uri().query().map(String::from);
    let namespace = target.namespace.clone().unwrap_or_else(|| "default".into());
    let name = target.name.clone().unwrap_or_default();
    let object = context.store.read(&PODS, &namespace, &name)?;
    let pod = context
        .pod(&namespace, &name)
        .ok_or_else(|| Refusal::BadRequest(format!("pod {name} does not run")))?;
    let parameters = route::query(query.as_deref());
    let container =
        super::logs::container_of(&object, parameters.get("container").map(String::as_str))?;
    let command = route::all(query.as_deref(), "command");
    if command.is_empty() {
        return Err(Refusal::BadRequest(
            "you must specify at least one command for the container".into(),
        ));
    }
    let header = |name: header::HeaderName| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_string()
    };
    let offered = header(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = PROTOCOLS
        .iter()
        .find(|protocol| offered.split(',').any(|offer| offer.trim() == **protocol));
    let key = header(header::SEC_WEBSOCKET_KEY);
    let (Some(protocol), false) = (protocol, key.is_empty()) else {
        return Err(Refusal::BadRequest(
            "exec needs a WebSocket with the protocol v5.channel.k8s.io".into(),
        ));
    };
    let on = |key: &str| {
        parameters
            .get(key)
            .is_some_and(|value| value == "true" || value == "1")
    };
    let session = start(&context, &pod, &container, command, on("tty"), on("stdin")).await;
    let upgrade = hyper::upgrade::on(&mut request);
    // task: one exec session; ends with its process or its client
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None)
                        .await;
                relay(socket, session).await;
            }
            Err(error) => {
                if let Ok(session) = session {
                    signal(session.entered.pid, Signal::SIGKILL);
                }
                tracing::debug!(%error, "exec was not upgraded");
            }
        }
    });
    switching(protocol, &key)
}

/// The answer that makes a connection a WebSocket.
fn switching(protocol: &'static str, key: &str) -> Answer {
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(protocol),
    );
    headers.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(unavailable)?,
    );
    Ok(response)
}

struct Session {
    entered: Entered,
    input: Input,
    outputs: Vec<(u8, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

enum Input {
    None,
    Pipe(OwnedFd),
    Terminal(OwnedFd),
}

async fn start(
    context: &Arc<Context>,
    pod: &Pod,
    container: &str,
    command: Vec<String>,
    terminal: bool,
    stdin: bool,
) -> Result<Session, String> {
    let text = |error: std::io::Error| error.to_string();
    if terminal {
        let pty = nix::pty::openpty(None, None).map_err(|error| error.to_string())?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(text);
        let standard = Standard {
            input: copy(&pty.slave)?,
            output: copy(&pty.slave)?,
            errors: pty.slave,
            terminal: true,
        };
        let entered = enter(context, pod, container, command, standard)
            .await
            .map_err(|error| error.to_string())?;
        let session = Session {
            entered,
            input: Input::Terminal(copy(&pty.master)?),
            outputs: vec![(1, copy(&pty.master)?)],
            terminal: Some(pty.master),
        };
        return Ok(session);
    }
    let (input_read, input_write) = crate::launch::pipe().map_err(text)?;
    let (output_read, output_write) = crate::launch::pipe().map_err(text)?;
    let (errors_read, errors_write) = crate::launch::pipe().map_err(text)?;
    let standard = match stdin {
        true => Standard {
            input: input_read,
            output: output_write,
            errors: errors_write,
            terminal: false,
        },
        false => {
            let null = StdFile::open("/dev/null").map_err(text)?;
            Standard {
                input: null.into(),
                output: output_write,
                errors: errors_write,
                terminal: false,
            }
        }
    };
    let entered = enter(context, pod, container, command, standard)
        .await
        .map_err(|error| error.to_string())?;
    let input = if stdin {
        Input::Pipe(input_write)
    } else {
        Input::None
    };
    Ok(Session {
        entered,
        input,
        outputs: vec![(1, output_read), (2, errors_read)],
        terminal: None,
    })
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn relay(mut socket: Socket, session: Result<Session, String>) {
    let session = match session {
        Ok(session) => session,
        Err(message) => {
            let _ = socket
                .send(channel(3, failure(&message, None).to_string().as_bytes()))
                .await;
            let _ = socket.close(Some(normal_end())).await;
            return;
        }
    };
    let (mut sink, mut stream) = socket.split();
    let (sender, mut output) = mpsc::channel::<Message>(64);
    for (number, fd) in session.outputs {
        // task: one output of an exec session; ends with the output or the session
        tokio::spawn(copy_output(
            number,
            fd,
            session.terminal.is_some(),
            sender.clone(),
        ));
    }
    drop(sender);
    let pid = session.entered.pid;
    let mut writer = Writer::new(session.input);
    let terminal = session.terminal;
    let input = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(bytes) = message else {
                continue;
            };
            match bytes.split_first() {
                Some((0, data)) => writer.write(data).await,
                Some((4, size)) => resize(terminal.as_ref(), size),
                Some((255, closed)) if closed.first() == Some(&0) => writer.close(),
                _ => {}
            }
        }
    };
    let produce = async {
        while let Some(message) = output.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
        let exit = session.entered.ended.await.unwrap_or(Exit::Code(255));
        let status = match exit.code() {
            0 => json!({"metadata": {}, "status": "Success"}),
            code => failure(
                &format!("command terminated with non-zero exit code: {code}"),
                Some(code),
            ),
        };
        let _ = sink.send(channel(3, status.to_string().as_bytes())).await;
        // kubectl takes an end without a code for a failure.
        let _ = sink.send(Message::Close(Some(normal_end()))).await;
        let _ = sink.close().await;
    };
    let mut produce = std::pin::pin!(produce);
    tokio::select! {
        () = &mut produce => {}
        () = input => {
            signal(pid, Signal::SIGKILL);
            produce.await;
        }
    }
}

fn normal_end() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }
}

fn channel(number: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(number);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

fn failure(message: &str, code: Option<i32>) -> Value {
    match code {
        Some(code) => {
            json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": message,
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
        }
        None => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": message})
        }
    }
}

async fn copy_output(number: u8, fd: OwnedFd, terminal: bool, sender: mpsc::Sender<Message>) {
    let mut bytes = vec![0_u8; 16_384];
    if terminal {
        // A terminal is no pipe: it is read on a thread, and ends with an error when the last
        // process has left it.
        let _ = tokio::task::spawn_blocking(move || {
            use std::io::Read;
            let mut file = StdFile::from(fd);
            while let Ok(length) = file.read(&mut bytes) {
                if length == 0
                    || sender
                        .blocking_send(channel(number, bytes.get(..length).unwrap_or_default()))
                        .is_err()
                {
                    break;
                }
            }
        })
        .await;
        return;
    }
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(fd) else {
        return;
    };
    while let Ok(length) = pipe.read(&mut bytes).await {
        if length == 0
            || sender
                .send(channel(number, bytes.get(..length).unwrap_or_default()))
                .await
                .is_err()
        {
            break;
        }
    }
}

enum Writer {
    Closed,
    Pipe(pipe::Sender),
    Terminal(StdFile),
}

impl Writer {
    fn new(input: Input) -> Self {
        match input {
            Input::None => Writer::Closed,
            Input::Pipe(fd) => pipe::Sender::from_owned_fd(fd).map_or(Writer::Closed, Writer::Pipe),
            Input::Terminal(fd) => Writer::Terminal(StdFile::from(fd)),
        }
    }

    async fn write(&mut self, data: &[u8]) {
        let written = match self {
            Writer::Closed => return,
            Writer::Pipe(pipe) => pipe.write_all(data).await,
            Writer::Terminal(file) => {
                use std::io::Write;
                // A terminal's input is small and read at once; what does not fit waits for its
                // reader.
                tokio::task::block_in_place(|| file.write_all(data))
            }
        };
        if written.is_err() {
            *self = Writer::Closed;
        }
    }

    fn close(&mut self) {
        *self = Writer::Closed;
    }
}

fn resize(terminal: Option<&OwnedFd>, size: &[u8]) {
    let (Some(terminal), Ok(size)) = (terminal, serde_json::from_slice::<Value>(size)) else {
        return;
    };
    let cells = |key: &str| {
        object::number(&size, key)
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or(0)
    };
    let window = libc::winsize {
        ws_row: cells("/Height"),
        ws_col: cells("/Width"),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and the structure is the one that the request takes.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const window) };
}

/// Passes a request to `NAME:PORT` of a pod, or of a ready pod of a Service.
pub async fn proxy(context: Arc<Context>, target: &Target, request: Request<Incoming>) -> Answer {
    let (network, port) = proxied(&context, target)?;
    let local = [15_000, 15_004].contains(&port);
    let address = if local {
        std::net::Ipv4Addr::LOCALHOST
    } else {
        network.address
    };
    let stream = crate::probe::connect(&network, address, port)
        .await
        .map_err(unavailable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(unavailable)?;
    // task: the connection of one proxied request; ends with the answer's body
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let query = parts
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let path = if target.rest.is_empty() {
        "/"
    } else {
        &target.rest
    };
    parts.uri = format!("{path}{query}")
        .parse()
        .map_err(|_| Refusal::BadRequest("the path is not one".into()))?;
    parts.headers.insert(
        header::HOST,
        HeaderValue::from_str(&format!("{address}:{port}")).map_err(unavailable)?,
    );
    let response = sender
        .send_request(Request::from_parts(parts, body))
        .await
        .map_err(unavailable)?;
    let (parts, body) = response.into_parts();
    let body = body
        .map_frame(|frame| frame)
        .into_data_stream()
        .filter_map(|data| async move { data.ok() });
    let frames = body.map(|data| Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(data)));
    Ok(Response::from_parts(
        parts,
        http_body_util::StreamBody::new(frames).boxed_unsync(),
    ))
}

fn proxied(context: &Context, target: &Target) -> Result<(Arc<PodNetwork>, u16), Refusal> {
    let namespace = target.namespace.clone().unwrap_or_else(|| "default".into());
    let name = target.name.clone().unwrap_or_default();
    let (name, port) = name
        .split_once(':')
        .map_or((name.as_str(), ""), |(name, port)| (name, port));
    let missing = || Refusal::BadRequest("which port? NAME:PORT".into());
    let network_of = |pod: Arc<Pod>| {
        pod.network
            .lock()
            .clone()
            .ok_or_else(|| unavailable("the pod has no network yet"))
    };
    if target.kind.plural == "pods" {
        context.store.read(&PODS, &namespace, name)?;
        let pod = context
            .pod(&namespace, name)
            .ok_or_else(|| unavailable("the pod does not run"))?;
        return Ok((network_of(pod)?, port.parse().map_err(|_| missing())?));
    }
    let service = context.store.read(&SERVICES, &namespace, name)?;
    let mut ports = object::list(&service, "/spec/ports").iter();
    let chosen = ports.find(|entry| {
        port.is_empty()
            || object::text(entry, "/name") == port
            || object::number(entry, "/port").is_some_and(|number| number.to_string() == port)
    });
    let chosen = chosen.ok_or_else(missing)?;
    let endpoints =
        crate::services::endpoints_of(&context.store, &service, object::text(chosen, "/name"));
    let endpoint = endpoints
        .first()
        .ok_or_else(|| unavailable(format!("no endpoints available for service \"{name}\"")))?;
    let pods: Vec<Arc<Pod>> = context.pods.lock().values().cloned().collect();
    let pod = pods.into_iter().find(|pod| {
        pod.network
            .lock()
            .as_ref()
            .is_some_and(|network| network.address == *endpoint.ip())
    });
    Ok((
        network_of(pod.ok_or_else(|| unavailable("the endpoint is no pod of this machine"))?)?,
        endpoint.port(),
    ))
}
