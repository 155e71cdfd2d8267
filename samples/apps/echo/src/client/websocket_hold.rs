//! Holds WebSockets open and talks on each now and then; reports which broke, when and why.
//!
//! Prints `{"event":"open","opened":N,"failed":M}` when every connection was tried, so that a test knows when to start disturbing them, and
//! `{"event":"report",…}` at the end (`--duration`, SIGTERM or SIGINT).

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

use super::{authority, header, print, until};
use crate::query::duration_flag;

#[derive(Args, Clone)]
pub struct WebSocketHold {
    /// `ws://HOST[:PORT]/websocket/echo`
    url: Uri,
    /// WebSockets.
    #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Until SIGTERM if not given.
    #[arg(long, short = 'z', value_parser = duration_flag)]
    duration: Option<Duration>,
    /// Between two messages on one connection.
    #[arg(long, default_value = "500ms", value_parser = duration_flag)]
    interval: Duration,
    /// Longest time to open, and for a message to come back.
    #[arg(long, default_value = "10s", value_parser = duration_flag)]
    timeout: Duration,
    /// `name: value`; may be repeated.
    #[arg(long, short = 'H', value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
}

/// How one connection fared.
pub struct Fate {
    pub number: u32,
    pub opened: bool,
    pub messages: u64,
    /// When it broke, since it was opened, and why.
    pub broke: Option<(Duration, String)>,
}

pub async fn run(hold: WebSocketHold) -> anyhow::Result<ExitCode> {
    authority(&hold.url, &["ws"])?;
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

/// Runs `count` connections and prints events and report; each drops `tried` when it is open or has failed to open.
pub async fn hold_all<F, Fut>(
    count: u32,
    duration: Option<Duration>,
    one: F,
) -> anyhow::Result<ExitCode>
where
    F: Fn(u32, mpsc::Sender<bool>, CancellationToken) -> Fut,
    Fut: Future<Output = Fate> + Send + 'static,
{
    let stop = CancellationToken::new();
    let (tried, mut trying) = mpsc::channel(count as usize);
    let mut connections = JoinSet::new();
    for number in 0..count {
        connections.spawn(one(number, tried.clone(), stop.clone()));
    }
    drop(tried);
    let mut opened = 0u32;
    while let Some(open) = trying.recv().await {
        opened += u32::from(open);
    }
    print(&json!({"event": "open", "opened": opened, "failed": count - opened}));
    until(duration).await?;
    stop.cancel();
    let mut fates: Vec<Fate> = Vec::new();
    while let Some(fate) = connections.join_next().await {
        fates.push(fate?);
    }
    fates.sort_by_key(|fate| fate.number);
    let breaks: Vec<Value> = fates
        .iter()
        .filter_map(|fate| {
            let (after, reason) = fate.broke.as_ref()?;
            Some(json!({"connection": fate.number, "opened": fate.opened, "after_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX), "reason": reason}))
        })
        .collect();
    let messages: u64 = fates.iter().map(|fate| fate.messages).sum();
    let whole = breaks.is_empty();
    print(
        &json!({"event": "report", "opened": opened, "held": fates.iter().filter(|fate| fate.broke.is_none()).count(), "messages": messages, "breaks": breaks}),
    );
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Until the stop; an error says how it broke.
async fn one(
    hold: &WebSocketHold,
    fate: &mut Fate,
    tried: mpsc::Sender<bool>,
    stop: CancellationToken,
) -> Result<(), String> {
    let opening = tokio::time::timeout(hold.timeout, open(hold))
        .await
        .unwrap_or_else(|_| Err("opening took too long".to_owned()));
    fate.opened = opening.is_ok();
    // The receiver waits for every sender: this cannot fail, and would not matter.
    let _ = tried.send(fate.opened).await;
    drop(tried);
    let mut socket = opening?;
    loop {
        let text = format!("{} {}", fate.number, fate.messages);
        socket
            .send(Message::text(text.clone()))
            .await
            .map_err(|error| format!("send: {error}"))?;
        loop {
            let message = tokio::time::timeout(hold.timeout, socket.next())
                .await
                .map_err(|_| "no echo in time".to_owned())?;
            match message {
                Some(Ok(Message::Text(echo))) if echo.as_str() == text => break,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => return Err(format!("unexpected message: {other:?}")),
                Some(Err(error)) => return Err(format!("receive: {error}")),
                None => return Err("closed".to_owned()),
            }
        }
        fate.messages += 1;
        let next = tokio::time::sleep(hold.interval);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                () = stop.cancelled() => {
                    // The end was ours; the server may learn it from the closed connection as well.
                    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
                    return Ok(());
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(other)) => return Err(format!("unexpected message: {other:?}")),
                    Some(Err(error)) => return Err(format!("receive: {error}")),
                    None => return Err("closed".to_owned()),
                },
            }
        }
    }
}

async fn open(
    hold: &WebSocketHold,
) -> Result<tokio_tungstenite::WebSocketStream<TcpStream>, String> {
    let (host, port) = authority(&hold.url, &["ws"]).map_err(|error| error.to_string())?;
    let mut request = hold
        .url
        .clone()
        .into_client_request()
        .map_err(|error| error.to_string())?;
    for (name, value) in &hold.header {
        request.headers_mut().insert(name, value.clone());
    }
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|error| format!("upgrade: {error}"))?;
    Ok(socket)
}
