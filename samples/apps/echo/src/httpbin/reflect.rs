//! Endpoints that show the request: its arguments, headers, origin, URL and body.

use std::io::Write;
use std::sync::Arc;

use axum::body::{Body as AxumBody, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TRAILER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answer;
use super::body::{self, Values};
use crate::connection::{Connection, Scheme};
use crate::query;
use crate::server::Echo;

/// The request as every reflecting endpoint sees it.
pub struct Seen {
    pub args: Values,
    pub headers: Values,
    pub method: Method,
    pub origin: String,
    pub url: String,
}

/// Extractor of [`Seen`].
impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Seen {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Response> {
        let connection = parts.extensions.get::<Connection>().copied();
        let connection = connection.ok_or_else(|| {
            answer::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "request without connection",
            )
        })?;
        let host = host(&parts.headers, &parts.uri);
        Ok(Seen {
            args: body::group(query::pairs(parts.uri.query().unwrap_or_default())),
            headers: header_values(&parts.headers, &host),
            method: parts.method.clone(),
            origin: origin(&parts.headers, connection),
            url: url(&parts.headers, &parts.uri, &host, connection.scheme),
        })
    }
}

impl Seen {
    /// `args`, `headers`, `method`, `origin`, `url`; lists as strings where the settings say so.
    pub fn object(&self, echo: &Echo) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("args".into(), values(&self.args, echo));
        object.insert("headers".into(), values(&self.headers, echo));
        object.insert("method".into(), self.method.as_str().into());
        object.insert("origin".into(), self.origin.as_str().into());
        object.insert("url".into(), self.url.as_str().into());
        object
    }
}

pub async fn get(State(echo): State<Arc<Echo>>, seen: Seen) -> Response {
    answer::json(StatusCode::OK, &seen.object(&echo))
}

pub async fn anything(
    State(echo): State<Arc<Echo>>,
    seen: Seen,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    match with_body(&echo, &seen, &headers, &bytes) {
        Ok(object) => answer::json(StatusCode::OK, &object),
        Err(error) => answer::bad_request(&error),
    }
}

/// [`Seen::object`] and the body's `data`, `files`, `form` and `json`.
pub fn with_body(
    echo: &Echo,
    seen: &Seen,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<Map<String, Value>, String> {
    let mut object = seen.object(echo);
    if seen.method == Method::HEAD {
        return Ok(object);
    }
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let body = body::parse(content_type, bytes)
        .map_err(|error| format!("error parsing request body: {error}"))?;
    object.insert("data".into(), body.data.into());
    object.insert("files".into(), values(&body.files, echo));
    object.insert("form".into(), values(&body.form, echo));
    object.insert("json".into(), body.json);
    Ok(object)
}

pub async fn headers(State(echo): State<Arc<Echo>>, seen: Seen) -> Response {
    answer::json(
        StatusCode::OK,
        &json!({"headers": values(&seen.headers, &echo)}),
    )
}

pub async fn ip(seen: Seen) -> Response {
    answer::json(StatusCode::OK, &json!({"origin": seen.origin}))
}

pub async fn user_agent(headers: HeaderMap) -> Response {
    let agent = headers
        .get(USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    answer::json(
        StatusCode::OK,
        &json!({"user-agent": agent.unwrap_or_default()}),
    )
}

pub async fn hostname(State(echo): State<Arc<Echo>>) -> Response {
    answer::json(
        StatusCode::OK,
        &json!({"hostname": *echo.settings.hostname}),
    )
}

pub async fn uuid() -> Response {
    answer::json(
        StatusCode::OK,
        &json!({"uuid": uuid::Uuid::new_v4().to_string()}),
    )
}

pub async fn gzip(State(echo): State<Arc<Echo>>, seen: Seen) -> Response {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(marked(&echo, seen, "gzipped").as_bytes());
    compressed("gzip", written.and_then(|()| encoder.finish()))
}

pub async fn deflate(State(echo): State<Arc<Echo>>, seen: Seen) -> Response {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(marked(&echo, seen, "deflated").as_bytes());
    compressed("deflate", written.and_then(|()| encoder.finish()))
}

fn marked(echo: &Echo, seen: Seen, mark: &str) -> String {
    let mut object = seen.object(echo);
    object.insert(mark.to_owned(), true.into());
    answer::pretty(&object)
}

fn compressed(encoding: &'static str, body: std::io::Result<Vec<u8>>) -> Response {
    match body {
        Ok(body) => (
            [(CONTENT_TYPE, answer::JSON), (CONTENT_ENCODING, encoding)],
            body,
        )
            .into_response(),
        Err(error) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Sets each query parameter as a header and shows them. Under a content type that a browser might run, the body is escaped.
pub async fn response_headers(RawQuery(query): RawQuery) -> Response {
    let mut values = body::group(query::pairs(query.as_deref().unwrap_or_default()));
    values
        .entry("Content-Type".to_owned())
        .or_insert_with(|| vec![answer::JSON.to_owned()]);
    let harmless =
        |kind: &String| kind.starts_with("application/json") || kind.starts_with("text/plain");
    let mut text = answer::pretty(&values);
    if !values
        .get("Content-Type")
        .is_some_and(|kinds| kinds.iter().all(harmless))
        || values
            .keys()
            .any(|name| name != "Content-Type" && name.eq_ignore_ascii_case("content-type"))
    {
        text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
    }
    let mut response = text.into_response();
    response.headers_mut().remove(CONTENT_TYPE);
    for (name, value) in values
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
    {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        else {
            return answer::bad_request(&format!("invalid header: {name}"));
        };
        response.headers_mut().append(name, value);
    }
    response.headers_mut().insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// As `/anything`, with each query parameter as a trailer (over HTTP/1.1 only to clients that say `te: trailers`).
pub async fn trailers(
    State(echo): State<Arc<Echo>>,
    seen: Seen,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    const FORBIDDEN: [&str; 6] = [
        "content-length",
        "content-type",
        "content-encoding",
        "host",
        "trailer",
        "transfer-encoding",
    ];
    let object = match with_body(&echo, &seen, &headers, &bytes) {
        Ok(object) => object,
        Err(error) => return answer::bad_request(&error),
    };
    let mut trailers = HeaderMap::new();
    for (name, values) in &seen.args {
        for value in values {
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
            else {
                return answer::bad_request(&format!("invalid trailer: {name}"));
            };
            if FORBIDDEN.contains(&name.as_str()) {
                return answer::bad_request(&format!("forbidden trailer: {name}"));
            }
            trailers.append(name, value);
        }
    }
    let announced: Vec<HeaderValue> = trailers
        .keys()
        .map(|name| HeaderValue::from(name.clone()))
        .collect();
    let frames = [
        Frame::data(Bytes::from(answer::pretty(&object))),
        Frame::trailers(trailers),
    ];
    let body = AxumBody::new(StreamBody::new(stream::iter(
        frames.map(Ok::<_, std::convert::Infallible>),
    )));
    let mut response = ([(CONTENT_TYPE, answer::JSON)], body).into_response();
    for name in announced {
        response.headers_mut().append(TRAILER, name);
    }
    response
}

fn values(values: &Values, echo: &Echo) -> Value {
    if !echo.settings.single_values {
        return to_value(values);
    }
    values
        .iter()
        .map(|(name, values)| (name.clone(), Value::from(values.join(","))))
        .collect::<Map<_, _>>()
        .into()
}

fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("invariant: maps of text are JSON")
}

fn header_values(headers: &HeaderMap, host: &str) -> Values {
    let mut values = Values::new();
    for (name, value) in headers {
        values
            .entry(canonical(name.as_str()))
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    values.insert("Host".to_owned(), vec![host.to_owned()]);
    values
}

/// `x-request-id` → `X-Request-Id`, as Go writes header names.
fn canonical(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let c = if start { c.to_ascii_uppercase() } else { c };
            start = c == '-';
            c
        })
        .collect()
}

fn host(headers: &HeaderMap, uri: &Uri) -> String {
    match uri.authority() {
        Some(authority) => authority.to_string(),
        None => headers
            .get(HOST)
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned())
            .unwrap_or_default(),
    }
}

/// The first address of x-forwarded-for, else the peer's.
fn origin(headers: &HeaderMap, connection: Connection) -> String {
    let forwarded = headers
        .get("x-forwarded-for")
        .and_then(|value| value.to_str().ok());
    match forwarded
        .and_then(|list| list.split(',').next())
        .map(str::trim)
    {
        Some(first) if !first.is_empty() => first.to_owned(),
        _ => connection.peer.ip().to_canonical().to_string(),
    }
}

fn url(headers: &HeaderMap, uri: &Uri, host: &str, scheme: Scheme) -> String {
    let forwarded = headers
        .get("x-forwarded-proto")
        .and_then(|value| value.to_str().ok());
    let scheme = forwarded.unwrap_or(if scheme == Scheme::Https {
        "https"
    } else {
        "http"
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{host}{path}")
}

/// For endpoints that need the URL alone.
pub fn base(
    headers: &HeaderMap,
    uri: &Uri,
    Extension(connection): Extension<Connection>,
) -> String {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let mut url = url(headers, uri, &host(headers, uri), connection.scheme);
    url.truncate(url.len() - path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_gos() {
        assert_eq!(canonical("x-b3-traceid"), "X-B3-Traceid");
    }

    #[test]
    fn origin_prefers_the_first_forwarded_address() {
        let connection = Connection {
            peer: "10.0.0.1:5".parse().unwrap(),
            scheme: Scheme::Http,
        };
        let mut headers = HeaderMap::new();
        assert_eq!(origin(&headers, connection), "10.0.0.1");
        headers.insert(
            "x-forwarded-for",
            HeaderValue::from_static("1.2.3.4, 5.6.7.8"),
        );
        assert_eq!(origin(&headers, connection), "1.2.3.4");
    }
}
