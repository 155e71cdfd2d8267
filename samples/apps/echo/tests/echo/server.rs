//! Starting the program, and an HTTP client for it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

pub struct Server {
    process: Child,
    /// Address by kind of port.
    listeners: Vec<(String, SocketAddr)>,
}

pub struct Answer {
    pub status: StatusCode,
    pub version: http::Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    pub fn start(arguments: &[&str]) -> Server {
        Self::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut process = program(arguments)
            .args(["--address", "127.0.0.1", "--hostname", "pod-1"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut listeners = Vec::new();
        loop {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            match line.trim().split_once(" listening on ") {
                Some((kind, address)) => {
                    listeners.push((kind.to_owned(), address.parse().unwrap()))
                }
                None => {
                    assert_eq!(line.trim(), "ready");
                    break;
                }
            }
        }
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Server { process, listeners }
    }

    pub fn at(&self, kind: &str) -> SocketAddr {
        self.listeners
            .iter()
            .find(|(name, _)| name == kind)
            .unwrap_or_else(|| panic!("no {kind} port"))
            .1
    }

    pub fn terminate(&self) {
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", self.process.id())])
            .status()
            .unwrap();
        assert!(killed.success());
    }

    pub async fn wait(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.process.wait().unwrap())
            .await
            .unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.try_send(false, method, path, headers, body)
            .await
            .unwrap()
    }

    /// `h2`: HTTP/2 with prior knowledge.
    pub async fn try_send(
        &self,
        h2: bool,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(h2)
            .retry_canceled_requests(false)
            .build_http::<Full<Bytes>>();
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.at("http")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let response = tokio::time::timeout(Duration::from_secs(20), client.request(request))
            .await
            .unwrap();
        let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok(Answer {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            body,
        })
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The program with nothing of the tests' environment.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tanbark-echo"));
    command.args(arguments).env_clear();
    command
}
