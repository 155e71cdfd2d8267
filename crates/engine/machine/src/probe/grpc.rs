//! The standard health service of gRPC: one `grpc.health.v1.Health/Check`, asked over a connection
//! that is there.
//!
//! Follows <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>; what counts as healthy is as in Kubernetes' kubelet.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// An answer is a few bytes.
const MAX_ANSWER_BYTES: usize = 4_096;
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u64 = 1;
/// gRPC's status for a method that the server does not have.
const UNIMPLEMENTED: &str = "12";

/// Asks whether a service (the whole server, when empty) serves.
///
/// # Errors
/// Why it does not, or why that is not known.
pub async fn check<S>(stream: S, authority: &str, service: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io)
            .await
            .map_err(|error| error.to_string())?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.33")
        .body(Full::from(question(service)))
        .map_err(|error| error.to_string())?;
    let ask = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        judge(response).await
    };
    tokio::select! {
        judged = ask => judged,
        // It ends before the answer only with an error.
        ended = connection => Err(ended.err().map_or("the connection ended".into(), |error| error.to_string())),
    }
}

/// `HealthCheckRequest { service }` in gRPC's framing: no compression, length, message.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, a text.
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend(
        u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    framed.extend(message);
    framed
}

async fn judge(response: Response<Incoming>) -> Result<(), String> {
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(format!("HTTP status {}", head.status.as_u16()));
    }
    let body = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    // An answer without a message has its status in the head.
    let of = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    match of("grpc-status") {
        "0" => {}
        UNIMPLEMENTED => {
            return Err("this server does not implement the grpc health protocol".into());
        }
        status => return Err(format!("grpc status {status}: {}", of("grpc-message"))),
    }
    match status_of(&body.to_bytes()) {
        SERVING => Ok(()),
        0 => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
        2 => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
        other => Err(format!("service unhealthy (responded with {other})")),
    }
}

/// Field 1 of a framed `HealthCheckResponse`; 0 where it is not there.
fn status_of(framed: &[u8]) -> u64 {
    match framed.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;

    use super::*;

    /// A server that knows the service `shop`, whose status is this.
    async fn ask(service: &str, status: u8) -> Result<(), String> {
        let (client, server) = tokio::io::duplex(4_096);
        let serve = service_fn(move |request: Request<Incoming>| async move {
            let path = request.uri().path().to_string();
            let question = request.into_body().collect().await.expect("a question");
            let known = question.to_bytes() == b"\0\0\0\0\x06\x0a\x04shop".as_slice();
            let mut trailers = HeaderMap::new();
            let code = if known { "0" } else { "5" };
            trailers.insert("grpc-status", code.parse().expect("a value"));
            let mut frames = vec![Ok::<_, Infallible>(Frame::trailers(trailers))];
            if known {
                let answer = vec![0, 0, 0, 0, 2, 0x08, status];
                frames.insert(0, Ok(Frame::data(Bytes::from(answer))));
            }
            assert_eq!(path, "/grpc.health.v1.Health/Check");
            Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
        });
        let io = TokioIo::new(server);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, serve);
        let server = tokio::spawn(server);
        let answer = check(client, "p:1", service).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn only_a_serving_service_is_healthy() {
        assert_eq!(ask("shop", 1).await, Ok(()));
        let error = ask("shop", 2).await.expect_err("not serving");
        assert!(error.contains("NOT_SERVING"), "{error}");
        let error = ask("", 1).await.expect_err("not known");
        assert!(error.contains("grpc status 5"), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_speaks_something_else_is_not_healthy() {
        let (client, mut server) = tokio::io::duplex(4_096);
        tokio::spawn(async move {
            let text = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut server, text).await;
        });
        check(client, "p:1", "").await.expect_err("no HTTP/2");
    }
}
