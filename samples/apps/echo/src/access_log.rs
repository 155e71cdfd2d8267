//! One line for each request, in the combined log format (Apache HTTP Server, "Log Files"), as the
//! web server of httpbin writes it and as Istio's tasks look for it in `kubectl logs`.

use std::net::IpAddr;

use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, HOST, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName};

/// What of a line is known when the request comes.
pub struct Line {
    peer: String,
    request: String,
    referer: String,
    agent: String,
}

impl Line {
    pub fn begin(request: &Request, peer: Option<IpAddr>) -> Self {
        let headers = request.headers();
        Self {
            peer: peer.map_or_else(|| "-".into(), |address| address.to_string()),
            request: format!(
                "{} {} {:?}",
                request.method(),
                request
                    .uri()
                    .path_and_query()
                    .map_or("/", |whole| whole.as_str()),
                request.version()
            ),
            referer: quoted(headers, &REFERER),
            agent: format!(
                "{} {}",
                quoted(headers, &USER_AGENT),
                // The host that was asked for tells a mirrored request (`…-shadow`) from another.
                quoted(headers, &HOST)
            ),
        }
    }

    pub fn end(self, response: &Response) -> String {
        let Self {
            peer,
            request,
            referer,
            agent,
        } = self;
        let time = jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000");
        let status = response.status().as_u16();
        let bytes = response.headers().get(CONTENT_LENGTH);
        let bytes = bytes.and_then(|value| value.to_str().ok()).unwrap_or("-");
        format!("{peer} - - [{time}] \"{request}\" {status} {bytes} {referer} {agent}")
    }
}

/// A header's text in quotes; what would end the quotes or the line is written as an escape.
fn quoted(headers: &HeaderMap, name: &HeaderName) -> String {
    match headers.get(name) {
        Some(value) => format!(
            "\"{}\"",
            String::from_utf8_lossy(value.as_bytes()).escape_default()
        ),
        None => "\"-\"".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_request_the_status_and_nothing_that_ends_it_early() {
        let request = http::Request::builder()
            .uri("/status/418?x=1")
            .header(USER_AGENT, "curl/8 \"x\"")
            .body(axum::body::Body::empty())
            .expect("a request");
        let line = Line::begin(&request, None);
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
        let text = line.end(&response);
        assert!(text.starts_with("- - - ["), "{text}");
        assert!(
            text.ends_with(
                "\"GET /status/418?x=1 HTTP/1.1\" 418 - \"-\" \"curl/8 \\\"x\\\"\" \"-\""
            ),
            "{text}"
        );
    }
}
