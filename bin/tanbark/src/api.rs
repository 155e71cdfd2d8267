//! What commands ask of the runtime's local API, in their words: objects of a [`Kind`], lists, streamed lines, ports of pods.
//!
//! The wire is [`machine::Client`]'s. Whatever the API refuses comes back as [`machine::Error::Api`] with Kubernetes' reason, so that
//! commands say what kubectl would say.

use anyhow::{Context as _, Result, anyhow};
use bytes::{Bytes, BytesMut};
use http::{Method, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use machine::{Client, Error};
use serde_json::Value;

use crate::kind::Kind;

/// Bytes of an answer that is read as a whole.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Bytes of one line of a watch or a log.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The API of one runtime.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
}

/// A body for a request: its media type and its bytes.
pub struct Payload {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Payload {
    pub fn none() -> Self {
        Self {
            media_type: "application/json",
            bytes: Vec::new(),
        }
    }

    pub fn json(value: &Value) -> Self {
        Self {
            media_type: "application/json",
            bytes: value.to_string().into_bytes(),
        }
    }

    /// RFC 7396.
    pub fn merge_patch(value: &Value) -> Self {
        Self {
            media_type: "application/merge-patch+json",
            bytes: value.to_string().into_bytes(),
        }
    }
}

/// Which objects of a list are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    pub labels: Option<&'a str>,
    pub fields: Option<&'a str>,
}

impl<'a> Filter<'a> {
    /// By labels only.
    pub fn labels(selector: &'a str) -> Self {
        Self {
            labels: Some(selector),
            fields: None,
        }
    }

    /// The parameters of a request, each behind `first` or `&`; empty when all objects are wanted.
    pub fn query(self, first: &str) -> String {
        let Self { labels, fields } = self;
        let parts: Vec<String> = [("labelSelector", labels), ("fieldSelector", fields)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", escape(value?))))
            .collect();
        if parts.is_empty() {
            return String::new();
        }
        format!("{first}{}", parts.join("&"))
    }
}

/// A port of a pod, reached from inside its network.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub port: u16,
}

impl Api {
    /// The API of the runtime whose state is kept there.
    pub fn at(state: &machine::state::State) -> Self {
        Self {
            client: Client::new(state.socket()),
        }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request; a refusal is an error.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<Response<Incoming>> {
        Ok(self
            .client
            .send(method, path, payload.media_type, payload.bytes)
            .await?)
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
        self.json(
            Method::GET,
            &kind.path(Some(namespace), Some(name)),
            Payload::none(),
        )
        .await
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
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        filter: Filter<'_>,
    ) -> Result<Vec<Value>> {
        let mut list = self.list_object(kind, namespace, filter).await?;
        Ok(match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        })
    }

    /// The list itself, with its resource version; items are given their type.
    pub async fn list_object(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        filter: Filter<'_>,
    ) -> Result<Value> {
        let path = format!("{}{}", kind.path(namespace, None), filter.query("?"));
        let mut list = self.json(Method::GET, &path, Payload::none()).await?;
        for item in list
            .get_mut("items")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if item.get("kind").is_none() {
                item["kind"] = kind.kind.clone().into();
                item["apiVersion"] = kind.api_version().into();
            }
        }
        Ok(list)
    }

    /// A request to a port on a pod's loopback, through the runtime.
    pub async fn pod(&self, method: Method, to: Port<'_>, path: &str) -> Result<Bytes> {
        let Port {
            namespace,
            pod,
            port,
        } = to;
        self.bytes(
            method,
            &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"),
            Payload::none(),
        )
        .await
    }
}

/// Is this error the API's, with this HTTP status?
pub fn is_status(error: &anyhow::Error, status: u16) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Api { status: found, .. }) if *found == status)
}

/// Lines of a streamed answer.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl Lines {
    pub fn of(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: BytesMut::new(),
            ended: false,
        }
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
                return Err(anyhow!(
                    "the local API sent a line of more than {MAX_LINE_BYTES} bytes"
                ));
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
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    Ok(body
        .map_err(|error| anyhow!("the local API broke off: {error}"))?
        .to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_parameters() {
        let filter = Filter {
            labels: Some("a=b"),
            fields: Some("status.phase!=Running"),
        };
        assert_eq!(
            filter.query("?"),
            "?labelSelector=a%3Db&fieldSelector=status.phase%21%3DRunning"
        );
        assert_eq!(Filter::default().query("&"), "");
    }

    #[test]
    fn selectors_are_escaped() {
        assert_eq!(
            escape("app in (a,b),x!=y"),
            "app%20in%20%28a%2Cb%29%2Cx%21%3Dy"
        );
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let api = Api::at(&machine::state::State::at(folder.path()));
        let error = api
            .get(&Kind::pods(), "default", "p")
            .await
            .expect_err("nothing runs")
            .to_string();
        assert!(error.contains("start one with `tanbark up DIR`"), "{error}");
    }
}
