//! `/websocket/echo`: sends each message back, text as text and binary as binary, over HTTP/1.1 upgrade or HTTP/2 extended CONNECT.
//!
//! Query, as go-httpbin's: `max_message_size` and `max_fragment_size`, bytes, each at most the server's body limit.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use futures_util::StreamExt;
use http::StatusCode;

use crate::httpbin::answer;
use crate::query;
use crate::server::Echo;

/// "Going away": the server ends.
const GOING_AWAY: u16 = 1001;

pub async fn echo(
    State(echo): State<Arc<Echo>>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let limit = echo.settings.max_body_bytes;
    let pairs = query::pairs(query.as_deref().unwrap_or_default());
    let mut sizes = [limit; 2];
    for (size, name) in sizes
        .iter_mut()
        .zip(["max_message_size", "max_fragment_size"])
    {
        let Some(asked) = query::first(&pairs, name) else {
            continue;
        };
        match asked.parse() {
            Ok(asked) if (1..=limit).contains(&asked) => *size = asked,
            _ => {
                return answer::error(
                    StatusCode::BAD_REQUEST,
                    &format!("invalid {name}: not in range [1, {limit}]"),
                );
            }
        }
    }
    let [message, fragment] = sizes;
    upgrade
        .max_message_size(message)
        .max_frame_size(fragment)
        .on_upgrade(move |socket| converse(socket, echo))
}

async fn converse(mut socket: WebSocket, echo: Arc<Echo>) {
    let _open = echo.upgraded.token();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = echo.stop.cancelled() => {
                let close = CloseFrame { code: GOING_AWAY, reason: "server stops".into() };
                // The peer may be gone already; then there is nobody to tell.
                let _ = socket.send(Message::Close(Some(close))).await;
                return;
            }
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // Pings are answered below us; a close is answered by reading on.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
            Some(Err(_)) | None => return,
        }
    }
}
