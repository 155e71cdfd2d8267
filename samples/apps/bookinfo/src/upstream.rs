//! Requests from one service to the next, and the headers that travel along.
//!
//! A proxy can only join spans into a trace if the application hands the trace headers on; which ones do is Istio's list for
//! bookinfo. Connections are kept and reused; a reused one that the other side closed is replaced without a failed request.

use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Longest answer of another service that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Trace context, request identity and what the application itself passes on: Istio's list for bookinfo, and B3's one-header form.
const FORWARDED: [&str; 20] = [
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// Where a service is: `http://HOST[.DOMAIN]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    base: String,
}

/// One service that another one calls.
pub struct Upstream {
    address: UpstreamAddress,
    timeout: Duration,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// What came back, whatever its status.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl UpstreamAddress {
    pub fn new(host: &str, domain: Option<&str>, port: u16) -> Self {
        let domain = domain
            .filter(|domain| !domain.is_empty())
            .map(|domain| format!(".{domain}"))
            .unwrap_or_default();
        UpstreamAddress {
            base: format!("http://{host}{domain}:{port}"),
        }
    }
}

impl Upstream {
    /// `timeout` covers the whole request: connecting, waiting and reading.
    pub fn new(address: UpstreamAddress, timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build_http();
        Upstream {
            address,
            timeout,
            client,
        }
    }

    pub fn base(&self) -> &str {
        &self.address.base
    }

    /// GET `path` with `headers`; `None` where no whole answer came: no connection, broken, late or too long (said on standard output).
    pub async fn get(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let url = format!("{}{path}", self.address.base);
        match tokio::time::timeout(self.timeout, self.exchange(&url, headers)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                println!("GET {url} failed: {error:#}");
                None
            }
            Err(_) => {
                println!(
                    "GET {url} failed: no answer within {} ms",
                    self.timeout.as_millis()
                );
                None
            }
        }
    }

    async fn exchange(&self, url: &str, headers: &HeaderMap) -> anyhow::Result<Answer> {
        let mut request = Request::get(url).body(Empty::new())?;
        *request.headers_mut() = headers.clone();
        let response = self.client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?
            .to_bytes();
        Ok(Answer { status, body })
    }
}

/// The headers of `incoming` that go on to the next service; `end-user` is added by the one who knows the user.
pub fn forwarded(incoming: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in FORWARDED {
        let name = HeaderName::from_static(name);
        for value in incoming.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, HeaderValue::from_static("tanbark-bookinfo"));
    }
    // HTTP/2 may split cookies over several fields; HTTP/1.1 allows one.
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_headers_are_forwarded() {
        let mut incoming = HeaderMap::new();
        for (name, value) in [
            ("x-request-id", "r"),
            ("traceparent", "t"),
            ("x-b3-traceid", "b"),
            ("accept", "a"),
            ("end-user", "eve"),
        ] {
            incoming.insert(name, HeaderValue::from_static(value));
        }
        let out = forwarded(&incoming);
        let names: Vec<&str> = out.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            names,
            ["x-request-id", "traceparent", "x-b3-traceid", "user-agent"]
        );
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut incoming = HeaderMap::new();
        incoming.append(COOKIE, HeaderValue::from_static("a=1"));
        incoming.append(COOKIE, HeaderValue::from_static("b=2"));
        let out = forwarded(&incoming);
        assert_eq!(out.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn domain_is_optional() {
        assert_eq!(
            UpstreamAddress::new("details", None, 9080).base,
            "http://details:9080"
        );
        assert_eq!(
            UpstreamAddress::new("details", Some("shop.svc"), 9080).base,
            "http://details.shop.svc:9080"
        );
    }
}
