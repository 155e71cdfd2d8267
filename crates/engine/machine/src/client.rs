//! A client of the local API: HTTP/1.1 over its socket, one connection a request.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::api::route::encode;
use crate::error::{Context, Error, Result};
use crate::object;
use crate::store::kinds::{Kind, PODS};

/// How long the beginning of an answer is waited for; what follows it may take as long as it likes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

/// What a log is asked for.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// The pod's default one, when absent.
    pub container: Option<String>,
    /// Go on as it grows.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<usize>,
    /// The last run.
    pub previous: bool,
    /// With times.
    pub timestamps: bool,
    /// Only the last seconds.
    pub since_seconds: Option<u64>,
}

/// What a command is started with.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The pod's default one, when absent.
    pub container: Option<String>,
    /// The command.
    pub command: Vec<String>,
    /// Pass standard input on.
    pub stdin: bool,
    /// In a terminal.
    pub terminal: bool,
}

/// The changes of a list.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    pending: Vec<u8>,
}

/// A piece of a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Standard output.
    Output(Bytes),
    /// Standard error.
    Errors(Bytes),
    /// It ended with this code.
    Ended(i32),
    /// It could not be run.
    Failed(String),
}

/// A running command.
#[derive(Debug)]
pub struct Exec {
    socket: WebSocketStream<UnixStream>,
}

impl Client {
    /// A client of the API at this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            patience: PATIENCE,
        }
    }

    /// The same with another patience.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn state(&self) -> PathBuf {
        self.socket.parent().map(PathBuf::from).unwrap_or_default()
    }

    /// Waits for the beginning of an answer.
    async fn answered<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.patience, answer)
            .await
            .map_err(|_| Error::Silent {
                state: self.state(),
                seconds: self.patience.as_secs(),
            })
    }

    async fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    Error::NotRunning {
                        state: self.state(),
                    }
                }
                _ => Error::system(format!("connect to {}", self.socket.display()), error),
            })
    }

    /// Sends any request; a refusal is an error.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let stream = self.connect().await?;
        let peer = |error: hyper::Error| Error::Peer(format!("the local API: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(peer)?;
        // task: the connection of one request to the local API; ends with the answer's body
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "tanbark")
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Error::Configuration(format!("{path}: {error}")))?;
        let response = self
            .answered(sender.send_request(request))
            .await?
            .map_err(peer)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(peer)?
            .to_bytes();
        let refusal: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = match object::text(&refusal, "/message") {
            "" => String::from_utf8_lossy(&body).into_owned(),
            message => message.to_string(),
        };
        Err(Error::Api {
            status,
            reason: object::text(&refusal, "/reason").into(),
            message,
        })
    }

    /// Sends a request with an object, and reads one.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let body = body
            .map(|body| body.to_string().into_bytes())
            .unwrap_or_default();
        let response = self.send(method, path, content_type, body).await?;
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| Error::Peer(error.to_string()))?
            .to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Peer(format!("the local API's answer: {error}")))
    }

    /// One object.
    pub async fn read(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value> {
        self.request(
            Method::GET,
            &kind.path(Some(namespace), Some(name)),
            "application/json",
            None,
        )
        .await
    }

    /// A list object; `selector` is a label selector.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Value> {
        let query = if selector.is_empty() {
            String::new()
        } else {
            format!("?labelSelector={}", encode(selector))
        };
        self.request(
            Method::GET,
            &format!("{}{query}", kind.path(namespace, None)),
            "application/json",
            None,
        )
        .await
    }

    /// What is there and every change after it, as `{"type", "object"}`.
    pub async fn watch(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Watch> {
        let path = format!(
            "{}?watch=true&resourceVersion=0&labelSelector={}",
            kind.path(namespace, None),
            encode(selector)
        );
        let response = self
            .send(Method::GET, &path, "application/json", Vec::new())
            .await?;
        Ok(Watch {
            body: response.into_body(),
            pending: Vec::new(),
        })
    }

    /// Adds an object.
    pub async fn create(&self, kind: &Kind, object: &Value) -> Result<Value> {
        let namespace = namespace_of(object);
        self.request(
            Method::POST,
            &kind.path(Some(namespace), None),
            "application/json",
            Some(object),
        )
        .await
    }

    /// Creates an object or merges it into the present one; the object as it is then.
    pub async fn apply(&self, kind: &Kind, object: &Value) -> Result<Value> {
        let path = kind.path(Some(namespace_of(object)), Some(object::name(object)));
        self.request(
            Method::PATCH,
            &path,
            "application/apply-patch+yaml",
            Some(object),
        )
        .await
    }

    /// Merges a patch (RFC 7386) into an object.
    pub async fn merge(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Value> {
        self.request(
            Method::PATCH,
            &kind.path(Some(namespace), Some(name)),
            "application/merge-patch+json",
            Some(patch),
        )
        .await
    }

    /// Sets the number of replicas.
    pub async fn scale(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        replicas: u32,
    ) -> Result<Value> {
        let path = format!("{}/scale", kind.path(Some(namespace), Some(name)));
        self.request(
            Method::PATCH,
            &path,
            "application/merge-patch+json",
            Some(&serde_json::json!({"spec": {"replicas": replicas}})),
        )
        .await
    }

    /// Deletes an object.
    pub async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        grace_seconds: Option<u64>,
    ) -> Result<Value> {
        let query = grace_seconds
            .map(|seconds| format!("?gracePeriodSeconds={seconds}"))
            .unwrap_or_default();
        self.request(
            Method::DELETE,
            &format!("{}{query}", kind.path(Some(namespace), Some(name))),
            "application/json",
            None,
        )
        .await
    }

    /// The machine at a glance.
    pub async fn summary(&self) -> Result<Value> {
        self.request(Method::GET, "/tanbark/v1/summary", "application/json", None)
            .await
    }

    /// A container's output, as a body to be read piece by piece.
    pub async fn log(&self, namespace: &str, pod: &str, options: &LogOptions) -> Result<Incoming> {
        let mut query = format!(
            "follow={}&previous={}&timestamps={}",
            options.follow, options.previous, options.timestamps
        );
        if let Some(container) = &options.container {
            query.push_str(&format!("&container={}", encode(container)));
        }
        if let Some(lines) = options.tail {
            query.push_str(&format!("&tailLines={lines}"));
        }
        if let Some(seconds) = options.since_seconds {
            query.push_str(&format!("&sinceSeconds={seconds}"));
        }
        let path = format!("{}/log?{query}", PODS.path(Some(namespace), Some(pod)));
        Ok(self
            .send(Method::GET, &path, "application/json", Vec::new())
            .await?
            .into_body())
    }

    /// Sends a GET request to a pod's port (15000 is the proxy's admin port on 127.0.0.1); its
    /// body.
    pub async fn pod_get(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<Bytes> {
        let name = format!("{pod}:{port}");
        let path = format!("{}/proxy{path}", PODS.path(Some(namespace), Some(&name)));
        let response = self
            .send(Method::GET, &path, "application/json", Vec::new())
            .await?;
        Ok(response
            .into_body()
            .collect()
            .await
            .map_err(|error| Error::Peer(error.to_string()))?
            .to_bytes())
    }

    /// Starts a command in a container.
    pub async fn exec(&self, namespace: &str, pod: &str, options: &ExecOptions) -> Result<Exec> {
        let mut query = format!(
            "stdin={}&stdout=true&stderr={}&tty={}",
            options.stdin, !options.terminal, options.terminal
        );
        for word in &options.command {
            query.push_str(&format!("&command={}", encode(word)));
        }
        if let Some(container) = &options.container {
            query.push_str(&format!("&container={}", encode(container)));
        }
        let uri = format!(
            "ws://tanbark{}/exec?{query}",
            PODS.path(Some(namespace), Some(pod))
        );
        let mut request = uri
            .into_client_request()
            .map_err(|error| Error::Configuration(error.to_string()))?;
        request.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            header::HeaderValue::from_static("v5.channel.k8s.io"),
        );
        let stream = self.connect().await?;
        let opened = self
            .answered(tokio_tungstenite::client_async(request, stream))
            .await?;
        match opened {
            Ok((socket, _)) => Ok(Exec { socket }),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                let refusal: Value = response
                    .body()
                    .as_deref()
                    .and_then(|body| serde_json::from_slice(body).ok())
                    .unwrap_or_default();
                Err(Error::Api {
                    status: response.status().as_u16(),
                    reason: object::text(&refusal, "/reason").into(),
                    message: object::text(&refusal, "/message").into(),
                })
            }
            Err(error) => Err(Error::Peer(error.to_string())),
        }
    }
}

fn namespace_of(object: &Value) -> &str {
    match object::namespace(object) {
        "" => "default",
        namespace => namespace,
    }
}

impl Watch {
    /// The next change; `None` at the end of the watch (list again then).
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(change) => return Some(change),
                    Err(_) => continue,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.pending.extend_from_slice(&data);
            }
        }
    }
}

impl Exec {
    /// Passes standard input on.
    pub async fn input(&mut self, data: &[u8]) -> Result<()> {
        self.send(0, data).await
    }

    /// Ends standard input.
    pub async fn end_input(&mut self) -> Result<()> {
        self.send(255, &[0]).await
    }

    /// Tells the terminal's size.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        self.send(
            4,
            serde_json::json!({"Width": columns, "Height": rows})
                .to_string()
                .as_bytes(),
        )
        .await
    }

    async fn send(&mut self, channel: u8, data: &[u8]) -> Result<()> {
        let mut bytes = vec![channel];
        bytes.extend_from_slice(data);
        self.socket
            .send(Message::Binary(bytes.into()))
            .await
            .map_err(std::io::Error::other)
            .context(|| "send to the command".into())
    }

    /// The next piece; `None` after the end.
    pub async fn next(&mut self) -> Option<ExecOutput> {
        while let Some(Ok(message)) = self.socket.next().await {
            let Message::Binary(bytes) = message else {
                continue;
            };
            match bytes.first() {
                Some(1) => return Some(ExecOutput::Output(bytes.slice(1..))),
                Some(2) => return Some(ExecOutput::Errors(bytes.slice(1..))),
                Some(3) => return Some(ended(bytes.get(1..).unwrap_or_default())),
                _ => {}
            }
        }
        None
    }
}

fn ended(status: &[u8]) -> ExecOutput {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    if object::text(&status, "/status") == "Success" {
        return ExecOutput::Ended(0);
    }
    let mut causes = object::list(&status, "/details/causes").iter();
    let code = causes
        .find(|cause| object::text(cause, "/reason") == "ExitCode")
        .and_then(|cause| object::text(cause, "/message").parse().ok());
    code.map_or_else(
        || ExecOutput::Failed(object::text(&status, "/message").into()),
        ExecOutput::Ended,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_that_says_nothing_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("api.sock");
        let _mute = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let client = Client::new(&socket).with_patience(Duration::from_millis(20));
        let error = client.summary().await.expect_err("silence");
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        assert!(error.to_string().contains("`tanbark down` stops it"));
        let exec = client.exec("n", "p", &ExecOptions::default()).await;
        assert!(matches!(exec, Err(Error::Silent { .. })));
    }
}
