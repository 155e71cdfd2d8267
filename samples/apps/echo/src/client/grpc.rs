//! gRPC clients of the echo: unary calls that count codes, and streams that are held open.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::websocket_hold::{Fate, hold_all};
use super::{Tally, authority, header, print};
use crate::grpc::pb::EchoRequest;
use crate::grpc::pb::echo_client::EchoClient;
use crate::query::duration_flag;

#[derive(Args, Clone)]
pub struct Target {
    /// `http://HOST:PORT`
    url: Uri,
    /// Longest time to connect, and for one reply.
    #[arg(long, default_value = "10s", value_parser = duration_flag)]
    timeout: Duration,
    /// Metadata `name: value`; may be repeated.
    #[arg(long, short = 'H', value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Args, Clone)]
pub struct GrpcHold {
    #[command(flatten)]
    target: Target,
    /// Streams, each on a connection of its own.
    #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Until SIGTERM if not given.
    #[arg(long, short = 'z', value_parser = duration_flag)]
    duration: Option<Duration>,
    /// Between two messages on one stream.
    #[arg(long, default_value = "500ms", value_parser = duration_flag)]
    interval: Duration,
}

#[derive(Args, Clone)]
pub struct GrpcCall {
    #[command(flatten)]
    target: Target,
    /// Calls, one after the other.
    #[arg(long, short = 'n', default_value_t = 1)]
    count: u32,
    #[arg(long, default_value = "hello")]
    message: String,
    /// Wait that the server is asked for.
    #[arg(long, value_parser = duration_flag)]
    delay: Option<Duration>,
    /// gRPC status number that the server is asked for.
    #[arg(long, default_value_t = 0)]
    status: u32,
    /// Exit with 1 if any call ends otherwise than with this code (`OK`, `UNAVAILABLE`, …).
    #[arg(long)]
    expect: Option<String>,
}

/// Prints `{"calls", "codes": {"OK": n}, "messages": {status message: n}, "hosts": {hostname: n}, "reply": the last one}`.
pub async fn call(call: GrpcCall) -> anyhow::Result<ExitCode> {
    authority(&call.target.url, &["http"])?;
    let (mut codes, mut messages, mut hosts) =
        (Tally::default(), Tally::default(), Tally::default());
    let mut last = None;
    let client = call.target.client().connect_lazy();
    let mut client = EchoClient::new(client);
    for _ in 0..call.count {
        let delay_ms = call.delay.map_or(0, |delay| {
            u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)
        });
        let request = EchoRequest {
            message: call.message.clone(),
            delay_ms,
            status: call.status,
            ..EchoRequest::default()
        };
        let mut request = call.target.request(request);
        request.set_timeout(call.target.timeout);
        match client.unary(request).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                codes.add("OK");
                hosts.add(&reply.hostname);
                last = Some(
                    json!({"message": reply.message, "hostname": reply.hostname, "version": reply.version, "headers": reply.headers}),
                );
            }
            Err(status) => {
                codes.add(&name(status.code()));
                messages.add(status.message());
            }
        }
    }
    let as_expected = call.expect.as_deref().is_none_or(|code| codes.only(code));
    print(
        &json!({"calls": call.count, "codes": codes, "messages": messages, "hosts": hosts, "reply": last}),
    );
    Ok(if as_expected {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

pub async fn hold(hold: GrpcHold) -> anyhow::Result<ExitCode> {
    authority(&hold.target.url, &["http"])?;
    let duration = hold.duration;
    hold_all(hold.count, duration, move |number, tried, stop| {
        let hold = hold.clone();
        async move {
            let mut fate = Fate {
                number,
                opened: false,
                messages: 0,
                broke: None,
            };
            let start = Instant::now();
            fate.broke = one(&hold, &mut fate, tried, stop)
                .await
                .err()
                .map(|error| (start.elapsed(), error));
            fate
        }
    })
    .await
}

/// Until the stop; an error says how it broke. A stream is open when its first message came back.
async fn one(
    hold: &GrpcHold,
    fate: &mut Fate,
    tried: mpsc::Sender<bool>,
    stop: CancellationToken,
) -> Result<(), String> {
    let timeout = hold.target.timeout;
    let (sender, receiver) = mpsc::channel(1);
    let opening = async {
        let channel = hold
            .target
            .client()
            .connect()
            .await
            .map_err(|error| format!("connect: {error}"))?;
        let first = EchoRequest {
            message: format!("{} 0", fate.number),
            ..EchoRequest::default()
        };
        sender.send(first).await.map_err(|_| "closed".to_owned())?;
        let request = hold.target.request(ReceiverStream::new(receiver));
        let replies = EchoClient::new(channel).bidirectional(request).await;
        replies
            .map(tonic::Response::into_inner)
            .map_err(|status| format!("open: {}", describe(&status)))
    };
    let opening = tokio::time::timeout(timeout, opening)
        .await
        .unwrap_or_else(|_| Err("opening took too long".to_owned()));
    fate.opened = opening.is_ok();
    // The receiver waits for every sender: this cannot fail, and would not matter.
    let _ = tried.send(fate.opened).await;
    drop(tried);
    let mut replies = opening?;
    loop {
        let reply = tokio::time::timeout(timeout, replies.message())
            .await
            .map_err(|_| "no echo in time".to_owned())?;
        let reply = reply.map_err(|status| describe(&status))?.ok_or("closed")?;
        let wanted = format!("{} {}", fate.number, fate.messages);
        if reply.message != wanted {
            return Err(format!("got {:?} in place of {wanted:?}", reply.message));
        }
        fate.messages += 1;
        tokio::select! {
            () = tokio::time::sleep(hold.interval) => {}
            () = stop.cancelled() => return Ok(()),
            early = replies.message() => return Err(early.map_or_else(|status| describe(&status), |_| "closed".to_owned())),
        }
        let next = EchoRequest {
            message: format!("{} {}", fate.number, fate.messages),
            ..EchoRequest::default()
        };
        sender.send(next).await.map_err(|_| "closed".to_owned())?;
    }
}

impl Target {
    fn client(&self) -> Endpoint {
        Channel::builder(self.url.clone())
            .connect_timeout(self.timeout)
            .tcp_nodelay(true)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.header {
            let name = name.as_str().parse::<AsciiMetadataKey>();
            let value = AsciiMetadataValue::try_from(value.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value) {
                request.metadata_mut().append(name, value);
            }
        }
        request
    }
}

fn describe(status: &tonic::Status) -> String {
    format!("{}: {}", name(status.code()), status.message())
}

/// gRPC's name of a code: `Unavailable` → `UNAVAILABLE`, `DeadlineExceeded` → `DEADLINE_EXCEEDED`.
fn name(code: Code) -> String {
    if code == Code::Ok {
        return "OK".to_owned();
    }
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}
