//! What a request asks of its answer, whatever the path: headers `x-echo-*` anywhere, the same names as query parameters on `/echo`.
//!
//! | header | parameter | effect |
//! |---|---|---|
//! | `x-echo-delay: 250ms` | `delay` | waits before answering, at most ten minutes |
//! | `x-echo-status: 503` | `status` | answers with this status |
//! | `x-echo-size: 100000` | `size` | body of that many bytes, at most 1 GiB |
//! | `x-echo-header: name: value` | `header` | adds a header; may be repeated |
//! | `x-echo-fail-first: 2` | `fail-first` | the first N requests with the same key get the status (503), later ones the normal answer |
//! | `x-echo-key: k` | `key` | key of fail-first; else `x-request-id`, else the path |
//! | `x-echo-abort: true` | `abort` | no answer: the connection or stream is reset |

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;

use crate::connection::Abort;
use crate::httpbin::answer;
use crate::query;

const MAX_DELAY: Duration = Duration::from_secs(600);
const MAX_SIZE_BYTES: u64 = 1 << 30;
/// Keys of fail-first that are remembered.
const MAX_KEYS: usize = 10_000;
const CHUNK: &[u8; 16_384] = &[b'x'; 16_384];

/// Number of failures given so far, by key.
#[derive(Default)]
pub struct Failures {
    given: Mutex<HashMap<String, u32>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    delay: Option<Duration>,
    status: Option<StatusCode>,
    size: Option<u64>,
    headers: Vec<(HeaderName, HeaderValue)>,
    fail_first: Option<(u32, String)>,
    abort: bool,
}

impl Failures {
    /// Whether this request is among the first `count` of `key`; an error where no further key can be remembered.
    fn take(&self, key: &str, count: u32) -> Result<bool, &'static str> {
        let mut given = self.given.lock();
        if given.len() >= MAX_KEYS && !given.contains_key(key) {
            return Err("too many fail-first keys; DELETE /counters forgets them");
        }
        let given = given.entry(key.to_owned()).or_default();
        let fails = *given < count;
        *given += u32::from(fails);
        Ok(fails)
    }

    pub fn forget(&self) {
        self.given.lock().clear();
    }
}

/// Answers `request` by `next`, shaped as it asks.
pub async fn shape(failures: &Failures, request: Request, next: Next) -> Response {
    let shape = match Shape::parse(&request) {
        Ok(shape) => shape,
        Err(error) => return answer::error(StatusCode::BAD_REQUEST, &error),
    };
    if let Some(delay) = shape.delay {
        tokio::time::sleep(delay).await;
    }
    if shape.abort {
        let mut response = StatusCode::NO_CONTENT.into_response();
        response.extensions_mut().insert(Abort);
        return response;
    }
    let mut status = shape.status;
    if let Some((count, key)) = &shape.fail_first {
        status = match failures.take(key, *count) {
            Ok(true) => Some(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)),
            Ok(false) => None,
            Err(error) => return answer::error(StatusCode::INSUFFICIENT_STORAGE, error),
        };
    }
    let mut response = next.run(request).await;
    if let Some(size) = shape.size {
        *response.body_mut() = body_of(size);
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(size));
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
    }
    if let Some(status) = status {
        *response.status_mut() = status;
    }
    for (name, value) in shape.headers {
        response.headers_mut().append(name, value);
    }
    response
}

impl Shape {
    fn parse(request: &Request) -> Result<Self, String> {
        let mut shape = Shape::default();
        let mut key = None;
        for (name, value) in wishes(request)? {
            match name.as_str() {
                "delay" => {
                    shape.delay = Some(query::duration(&value)?)
                        .filter(|delay| *delay <= MAX_DELAY)
                        .ok_or("delay over ten minutes")?
                        .into()
                }
                "status" => {
                    shape.status = Some(
                        value
                            .parse()
                            .map_err(|_| format!("status {value:?} is none"))?,
                    )
                }
                "size" => {
                    let size: u64 = value
                        .parse()
                        .map_err(|_| format!("size {value:?} is no number"))?;
                    shape.size = Some(size)
                        .filter(|size| *size <= MAX_SIZE_BYTES)
                        .ok_or("size over 1 GiB")?
                        .into();
                }
                "header" => shape.headers.push(header(&value)?),
                "fail-first" => {
                    shape.fail_first = Some((
                        value
                            .parse()
                            .map_err(|_| format!("fail-first {value:?} is no number"))?,
                        String::new(),
                    ))
                }
                "key" => key = Some(value),
                "abort" => shape.abort = value == "true",
                other => return Err(format!("unknown wish {other:?}")),
            }
        }
        if let Some((_, used)) = &mut shape.fail_first {
            *used = key
                .or_else(|| text(request.headers(), "x-request-id"))
                .unwrap_or_else(|| request.uri().path().to_owned());
        }
        Ok(shape)
    }
}

/// Names without `x-echo-`, from the headers and, on `/echo`, from the query.
fn wishes(request: &Request) -> Result<Vec<(String, String)>, String> {
    let mut wishes = Vec::new();
    for (name, value) in request.headers() {
        if let Some(name) = name.as_str().strip_prefix("x-echo-") {
            let value = value
                .to_str()
                .map_err(|_| format!("x-echo-{name} is no text"))?;
            wishes.push((name.to_owned(), value.to_owned()));
        }
    }
    if request.uri().path() == "/echo" {
        wishes.extend(query::pairs(request.uri().query().unwrap_or_default()));
    }
    Ok(wishes)
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("header {text:?} is not `name: value`");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    Ok((
        name.trim().parse().map_err(|_| wrong())?,
        value.trim().parse().map_err(|_| wrong())?,
    ))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// A body of `size` bytes that is made while it is sent.
fn body_of(size: u64) -> Body {
    let chunk = CHUNK.len() as u64;
    let chunks = (0..size.div_ceil(chunk)).map(move |n| {
        let length = chunk.min(size - n * chunk) as usize;
        Ok::<_, std::convert::Infallible>(Bytes::from_static(CHUNK).slice(..length))
    });
    Body::from_stream(stream::iter(chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str, headers: &[(&str, &str)]) -> Result<Shape, String> {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Shape::parse(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn headers_shape_every_path_and_queries_only_echo() {
        assert_eq!(parse("/get?status=503", &[]), Ok(Shape::default()));
        assert_eq!(
            parse("/echo?status=503", &[]).unwrap().status,
            Some(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(
            parse("/get", &[("x-echo-delay", "20ms")]).unwrap().delay,
            Some(Duration::from_millis(20))
        );
    }

    #[test]
    fn wrong_wishes_are_named() {
        for (header, value) in [
            ("x-echo-status", "9"),
            ("x-echo-delay", "1h"),
            ("x-echo-size", "2000000000"),
            ("x-echo-foo", "1"),
            ("x-echo-header", "x"),
        ] {
            assert!(
                parse("/get", &[(header, value)]).is_err(),
                "{header}: {value}"
            );
        }
    }

    #[test]
    fn failures_are_counted_by_key() {
        let failures = Failures::default();
        let take = |key| failures.take(key, 2).unwrap();
        assert_eq!(
            [take("a"), take("a"), take("a"), take("b")],
            [true, true, false, true]
        );
    }
}
