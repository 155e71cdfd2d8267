//! Endpoints that take time or send much: `/delay`, `/drip`, `/bytes`, `/stream-bytes`, `/stream`, `/sse`.
//!
//! Waits add up to at most the server's longest wait, bodies to its largest body; more is a 400.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::answer;
use super::reflect::{self, Seen};
use super::status;
use crate::query;
use crate::server::Echo;

/// Lines of `/stream`, and events of `/sse`.
const MAX_LINES: u64 = 100;
const MAX_EVENTS: u64 = 1_000;

type Pairs = Vec<(String, String)>;

/// `/anything` after a while: `/delay/2`, `/delay/250ms`.
pub async fn delay(
    State(echo): State<Arc<Echo>>,
    Path(delay): Path<String>,
    seen: Seen,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let delay = match bounded(&echo, &delay) {
        Ok(delay) => delay,
        Err(error) => return answer::bad_request(&error),
    };
    tokio::time::sleep(delay).await;
    let mut response = reflect::anything(State(echo), seen, headers, body).await;
    let timing = format!(
        "initial_delay;dur={:.2};desc=\"initial delay\"",
        delay.as_secs_f64() * 1000.0
    );
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("server-timing"), timing);
    }
    response
}

/// `numbytes` bytes over `duration` after `delay`, with status `code`; not chunked.
pub async fn drip(State(echo): State<Arc<Echo>>, RawQuery(query): RawQuery) -> Response {
    drip_or(&echo, &query::pairs(query.as_deref().unwrap_or_default()))
        .await
        .unwrap_or_else(|error| answer::bad_request(&error))
}

async fn drip_or(echo: &Echo, query: &Pairs) -> Result<Response, String> {
    let duration = bounded(echo, query::first(query, "duration").unwrap_or("2"))?;
    let delay = bounded(echo, query::first(query, "delay").unwrap_or("2"))?;
    let count = number(
        query,
        "numbytes",
        10,
        1,
        echo.settings.max_body_bytes as u64,
    )?;
    let code = status::parse(query::first(query, "code").unwrap_or("200"))?;
    within(echo, duration + delay)?;
    tokio::time::sleep(delay).await;
    let pause = duration
        .checked_div(u32::try_from(count - 1).unwrap_or(u32::MAX))
        .unwrap_or(duration);
    let bytes = if pause.is_zero() {
        Body::from(vec![b'*'; count as usize])
    } else {
        Body::from_stream(paced(count, pause, |_| Bytes::from_static(b"*")))
    };
    let length = HeaderValue::from(count);
    Ok((
        code,
        [
            (CONTENT_TYPE, HeaderValue::from_static(answer::TEXT)),
            (CONTENT_LENGTH, length),
        ],
        bytes,
    )
        .into_response())
}

/// N random bytes, the same for the same `seed`.
pub async fn bytes(
    State(echo): State<Arc<Echo>>,
    Path(count): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    match random(
        &echo,
        &count,
        &query::pairs(query.as_deref().unwrap_or_default()),
    ) {
        Ok((bytes, _)) => ([(CONTENT_TYPE, answer::BINARY)], bytes).into_response(),
        Err(error) => answer::bad_request(&error),
    }
}

/// The same in chunks of `chunk_size`, without a length.
pub async fn stream_bytes(
    State(echo): State<Arc<Echo>>,
    Path(count): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    match random(
        &echo,
        &count,
        &query::pairs(query.as_deref().unwrap_or_default()),
    ) {
        Ok((bytes, chunk)) => {
            let bytes = Bytes::from(bytes);
            let chunks = (0..bytes.len())
                .step_by(chunk)
                .map(move |at| Ok::<_, Infallible>(bytes.slice(at..bytes.len().min(at + chunk))));
            (
                [(CONTENT_TYPE, answer::BINARY)],
                Body::from_stream(stream::iter(chunks)),
            )
                .into_response()
        }
        Err(error) => answer::bad_request(&error),
    }
}

/// The bytes and the size of a chunk.
fn random(echo: &Echo, count: &str, query: &Pairs) -> Result<(Vec<u8>, usize), String> {
    let most = echo.settings.max_body_bytes;
    let count: usize = count.parse().map_err(|_| "invalid byte count".to_owned())?;
    if count > most {
        return Err(format!(
            "invalid byte count: {count} not in range [1, {most}]"
        ));
    }
    let chunk = number(query, "chunk_size", 10 * 1024, 1, most as u64)?;
    let mut rng = match query::first(query, "seed").map(str::parse::<i64>) {
        None => fastrand::Rng::new(),
        Some(Ok(seed)) => fastrand::Rng::with_seed(seed.cast_unsigned()),
        Some(Err(error)) => return Err(format!("invalid seed: {error}")),
    };
    let mut bytes = vec![0; count];
    rng.fill(&mut bytes);
    Ok((bytes, chunk as usize))
}

/// N lines of JSON about the request, at most 100, each sent on its own.
pub async fn lines(
    State(echo): State<Arc<Echo>>,
    Path(count): Path<String>,
    seen: Seen,
) -> Response {
    let Ok(count) = count.parse::<i64>() else {
        return answer::bad_request("invalid count");
    };
    let mut object = seen.object(&echo);
    object.remove("method");
    let lines = (0..count.unsigned_abs().clamp(1, MAX_LINES)).map(move |id| {
        object.insert("id".to_owned(), id.into());
        Ok::<_, Infallible>(Bytes::from(
            serde_json::Value::from(object.clone()).to_string() + "\n",
        ))
    });
    (
        [(CONTENT_TYPE, answer::JSON)],
        Body::from_stream(stream::iter(lines)),
    )
        .into_response()
}

/// `count` server-sent events over `duration` after `delay`.
pub async fn events(State(echo): State<Arc<Echo>>, RawQuery(query): RawQuery) -> Response {
    events_or(&echo, &query::pairs(query.as_deref().unwrap_or_default()))
        .await
        .unwrap_or_else(|error| answer::bad_request(&error))
}

async fn events_or(echo: &Echo, query: &Pairs) -> Result<Response, String> {
    let count = number(query, "count", 10, 1, MAX_EVENTS)?;
    let duration = bounded(echo, query::first(query, "duration").unwrap_or("5s"))?;
    let delay = bounded(echo, query::first(query, "delay").unwrap_or("0"))?;
    within(echo, duration + delay)?;
    tokio::time::sleep(delay).await;
    let pause = duration
        .checked_div(u32::try_from(count - 1).unwrap_or(u32::MAX))
        .unwrap_or(Duration::ZERO);
    let events = paced(count, pause, |id| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Bytes::from(format!(
            "event: ping\ndata: {}\n\n",
            json!({"id": id, "timestamp": u64::try_from(now).unwrap_or(u64::MAX)})
        ))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(events)).into_response())
}

/// `count` pieces with `pause` between them.
fn paced(
    count: u64,
    pause: Duration,
    piece: impl Fn(u64) -> Bytes + Send + 'static,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::iter(0..count)
        .then(move |n| async move {
            if n > 0 {
                tokio::time::sleep(pause).await;
            }
            n
        })
        .map(move |n| Ok(piece(n)))
}

fn bounded(echo: &Echo, text: &str) -> Result<Duration, String> {
    within(echo, query::duration(text)?)
}

fn within(echo: &Echo, duration: Duration) -> Result<Duration, String> {
    let most = echo.settings.max_duration;
    if duration > most {
        Err(format!(
            "invalid duration: {duration:?} longer than {most:?}"
        ))
    } else {
        Ok(duration)
    }
}

fn number(query: &Pairs, name: &str, default: u64, least: u64, most: u64) -> Result<u64, String> {
    let Some(text) = query::first(query, name).filter(|text| !text.is_empty()) else {
        return Ok(default);
    };
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "invalid {name}: {text:?} not in range [{least}, {most}]"
        )),
    }
}
