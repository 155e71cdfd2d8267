//! The client of the runtime's local API: Kubernetes' paths and objects over a Unix socket.
//!
//! One connection a request; a watch or a followed log keeps its own open. Whatever the API refuses comes back as [`ApiError`] with
//! Kubernetes' reason, so commands say what kubectl would say. Nothing here knows a command.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::kind::Kind;

/// Bytes of an answer that is read as a whole.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Bytes of one line of a watch or a log.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The API of one runtime.
#[derive(Debug, Clone)]
pub struct Api {
    state: PathBuf,
    socket: PathBuf,
}

/// What the API refused.
#[derive(Debug, thiserror::Error)]
#[error("Error from server ({reason}): {message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Kubernetes' reason, such as `NotFound`.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

/// A body for a request: its media type and its bytes.
pub struct Payload {
    media_type: &'static str,
    bytes: Bytes,
}

impl Payload {
    pub fn none() -> Self {
        Self { media_type: "", bytes: Bytes::new() }
    }

    pub fn json(value: &Value) -> Self {
        Self { media_type: "application/json", bytes: value.to_string().into() }
    }

    /// RFC 7396.
    pub fn merge_patch(value: &Value) -> Self {
        Self { media_type: "application/merge-patch+json", bytes: value.to_string().into() }
    }
}

/// Where a request through a pod's loopback goes.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub port: u16,
}

impl Api {
    /// The API of the runtime whose state is kept there.
    pub fn at(state: &machine::state::State) -> Self {
        Self { state: state.root().into(), socket: state.socket() }
    }

    /// The socket, for protocols other than plain HTTP.
    pub async fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket).await.map_err(|error| unreachable(&self.state, &self.socket, error))
    }

    /// Sends a request; a status of 400 and more is an [`ApiError`].
    pub async fn send(&self, method: Method, path: &str, payload: Payload) -> Result<Response<Incoming>> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("the local API")?;
        tokio::spawn(async move {
            // The end of the connection shows at the response.
            let _ = connection.await;
        });
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost").header(header::ACCEPT, "application/json");
        if !payload.media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, payload.media_type);
        }
        let request = request.body(Full::new(payload.bytes)).with_context(|| format!("a request for {path}"))?;
        let response = sender.send_request(request).await.with_context(|| format!("the local API did not answer {path}"))?;
        if response.status().is_client_error() || response.status().is_server_error() {
            return Err(refusal(response).await);
        }
        Ok(response)
    }

    /// Sends a request and reads the whole answer.
    pub async fn bytes(&self, method: Method, path: &str, payload: Payload) -> Result<Bytes> {
        read_all(self.send(method, path, payload).await?).await
    }

    /// Sends a request and reads the answer as JSON.
    pub async fn json(&self, method: Method, path: &str, payload: Payload) -> Result<Value> {
        let bytes = self.bytes(method, path, payload).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("the answer to {path} is not JSON"))
    }

    /// One object.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value> {
        self.json(Method::GET, &kind.path(Some(namespace), Some(name)), Payload::none()).await
    }

    /// One object, or `None` where there is none.
    pub async fn find(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        match self.get(kind, namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_status(&error, 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a kind in one namespace, or in all.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, selector: Option<&str>) -> Result<Vec<Value>> {
        let mut list = self.list_object(kind, namespace, selector).await?;
        Ok(match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        })
    }

    /// The list itself, with its resource version; items are given their type.
    pub async fn list_object(&self, kind: &Kind, namespace: Option<&str>, selector: Option<&str>) -> Result<Value> {
        let mut path = kind.path(namespace, None);
        if let Some(selector) = selector {
            path.push_str("?labelSelector=");
            path.push_str(&escape(selector));
        }
        let mut list = self.json(Method::GET, &path, Payload::none()).await?;
        for item in list.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            if item.get("kind").is_none() {
                item["kind"] = kind.kind.clone().into();
                item["apiVersion"] = kind.api_version().into();
            }
        }
        Ok(list)
    }

    /// A request to a port on a pod's loopback, through the runtime.
    pub async fn pod(&self, method: Method, to: Port<'_>, path: &str) -> Result<Bytes> {
        let Port { namespace, pod, port } = to;
        self.bytes(method, &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"), Payload::none()).await
    }
}

/// Is this error the API's, with this HTTP status?
pub fn is_status(error: &anyhow::Error, status: u16) -> bool {
    error.downcast_ref::<ApiError>().is_some_and(|error| error.status == status)
}

/// Lines of a streamed answer.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl Lines {
    pub fn of(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), ended: false }
    }

    /// The next line without its end; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line.freeze()));
            }
            if self.ended {
                let rest = self.buffer.split().freeze();
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(anyhow!("the local API sent a line of more than {MAX_LINE_BYTES} bytes"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.context("the local API broke off")?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => self.ended = true,
            }
        }
    }

    /// The next piece as it came, for output that has no lines.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.context("the local API broke off")?.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Percent-encodes a query value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    Ok(body.map_err(|error| anyhow!("the local API broke off: {error}"))?.to_bytes())
}

async fn refusal(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let bytes = match read_all(response).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let plain = || String::from_utf8_lossy(&bytes).trim().to_owned();
    ApiError {
        status: status.as_u16(),
        reason: text("reason").unwrap_or_else(|| status.canonical_reason().unwrap_or("Unknown").replace(' ', "")),
        message: text("message").unwrap_or_else(plain),
    }
    .into()
}

fn unreachable(state: &Path, socket: &Path, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => machine::error::Error::NotRunning { state: state.into() }.into(),
        std::io::ErrorKind::PermissionDenied => {
            anyhow!("no permission to open {}: the runtime belongs to another user; run this as that user or choose your own `--state`", socket.display())
        }
        _ => anyhow::Error::new(error).context(format!("cannot connect to {}", socket.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_escaped() {
        assert_eq!(escape("app in (a,b),x!=y"), "app%20in%20%28a%2Cb%29%2Cx%21%3Dy");
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let api = Api::at(&machine::state::State::at(folder.path()));
        let error = api.connect().await.expect_err("nothing runs").to_string();
        assert!(error.contains("start it with `tanbark up`"), "{error}");
    }
}
