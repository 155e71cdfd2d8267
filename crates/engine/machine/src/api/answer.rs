//! Bodies of requests as they are read, and answers as they are made.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::store::Refusal;

/// Bytes of a request's body, as the API server's.
const MAX_BODY_BYTES: usize = 3 << 20;

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// A handler's result.
pub type Answer = std::result::Result<Response<Body>, Refusal>;

/// A request's body as an object; JSON is YAML too.
pub async fn read_body(request: Request<Incoming>) -> std::result::Result<Value, Refusal> {
    let media = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if media.contains("protobuf") || media.contains("cbor") {
        return Err(Refusal::MediaType(format!(
            "a body of type {media} is not read here, only JSON and YAML; with kubectl write the object out first: `kubectl create … --dry-run=client -o yaml | kubectl apply -f -`"
        )));
    }
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|_| Refusal::TooLarge)?
        .to_bytes();
    if body.is_empty() {
        return Ok(Value::Null);
    }
    match serde_json::from_slice(&body) {
        Ok(value) => Ok(value),
        Err(_) => {
            let text = std::str::from_utf8(&body)
                .map_err(|_| Refusal::BadRequest("the body is neither JSON nor YAML".into()))?;
            serde_saphyr::from_str(text).map_err(|error| {
                Refusal::BadRequest(format!("the body is neither JSON nor YAML: {error}"))
            })
        }
    }
}

/// A response with a JSON object.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(whole(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// A response with a text.
pub fn text(content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(content));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain"),
    );
    response
}

/// A body that is there at once.
pub fn whole(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed_unsync()
}
