//! Probes and hooks: one attempt at asking a container how it is.
//!
//! A connection is made inside the pod's network, from 127.0.0.6 to the pod's own address, as the
//! sidecar connects to its application: redirection leaves it alone, so a probe works whatever the
//! mesh's policy says (Istio rewrites probes instead).

mod grpc;

use std::net::Ipv4Addr;
use std::time::Duration;

use identity::tls::{ClientTls, PeerValidation, TlsSettings, client_config};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Context, Error, Result};
use crate::network::{PodNetwork, socket_inside};
use crate::object;

/// The source of connections that redirection leaves alone.
pub const UNCAPTURED_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// Of an answer only its status line is read.
const MAX_STATUS_LINE_BYTES: usize = 1_024;

/// The timing of a probe (its defaults are Kubernetes').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Before the first attempt.
    pub initial_delay: Duration,
    /// Between attempts.
    pub period: Duration,
    /// For one attempt.
    pub timeout: Duration,
    /// Successes in a row that count.
    pub successes: u32,
    /// Failures in a row that count.
    pub failures: u32,
}

impl Timing {
    /// Reads a probe's timing.
    pub fn of(probe: &Value) -> Self {
        let number = |name: &str, default: i64, least: i64| {
            object::number(probe, &format!("/{name}"))
                .unwrap_or(default)
                .max(least)
        };
        let seconds = |name: &str, default: i64, least: i64| {
            Duration::from_secs(number(name, default, least).unsigned_abs())
        };
        Self {
            initial_delay: seconds("initialDelaySeconds", 0, 0),
            period: seconds("periodSeconds", 10, 1),
            timeout: seconds("timeoutSeconds", 1, 1),
            successes: u32::try_from(number("successThreshold", 1, 1)).unwrap_or(1),
            failures: u32::try_from(number("failureThreshold", 3, 1)).unwrap_or(3),
        }
    }
}

/// The port of a probe or a Service: a number, or the name of one of the container's ports.
pub fn port_of(port: Option<&Value>, containers: &[Value]) -> Option<u16> {
    let port = port?;
    let number = port.as_i64().or_else(|| port.as_str()?.parse().ok());
    let number = number.or_else(|| {
        let name = port.as_str()?;
        let mut ports = containers
            .iter()
            .flat_map(|container| object::list(container, "/ports"));
        ports
            .find(|port| object::text(port, "/name") == name)
            .and_then(|port| object::number(port, "/containerPort"))
    })?;
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// Connects to a port of a pod, past redirection.
pub async fn connect(pod: &PodNetwork, target: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let source = if target.is_loopback() {
        Ipv4Addr::UNSPECIFIED
    } else {
        UNCAPTURED_SOURCE
    };
    let socket = socket_inside(pod, source)?;
    socket
        .connect((target, port).into())
        .await
        .context(|| format!("connect to {target}:{port}"))
}

/// One HTTP request into a pod.
#[derive(Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`
    pub method: &'a str,
    /// Over TLS, with whatever certificate the server has, as Kubernetes does.
    pub tls: bool,
    /// The pod's own address, or another that is reached from inside of it.
    pub target: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// With its query.
    pub path: &'a str,
    /// Further headers; `Host` replaces the one that is made of target and port.
    pub headers: &'a [(String, String)],
}

/// Sends one HTTP/1.1 request into a pod; the status of the answer.
pub async fn http(pod: &PodNetwork, request: &Request<'_>) -> Result<u16> {
    let stream = connect(pod, request.target, request.port).await?;
    if request.tls {
        ask(encrypted(stream).await?, request).await
    } else {
        ask(stream, request).await
    }
}

async fn encrypted(stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let settings = ClientTls {
        presented: None,
        validation: PeerValidation::unverified(),
        sni: None,
        alpn: Vec::new(),
        settings: TlsSettings::default(),
        resumption: false,
    };
    let config = client_config(&settings).map_err(|error| Error::Peer(error.to_string()))?;
    TlsConnector::from(config.rustls)
        .connect(config.server_name, stream)
        .await
        .context(|| "TLS handshake".into())
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &Request<'_>,
) -> Result<u16> {
    let to = || format!("ask {}:{}", request.target, request.port);
    stream
        .write_all(head_of(request).as_bytes())
        .await
        .context(to)?;
    stream.flush().await.context(to)?;
    let mut answer = Vec::new();
    let mut bytes = [0_u8; 256];
    while !answer.contains(&b'\n') && answer.len() < MAX_STATUS_LINE_BYTES {
        match stream.read(&mut bytes).await.context(to)? {
            0 => break,
            length => answer.extend_from_slice(bytes.get(..length).unwrap_or_default()),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.get(..3))
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| {
        Error::Peer(format!(
            "{}:{} gave no HTTP answer",
            request.target, request.port
        ))
    })
}

fn head_of(request: &Request<'_>) -> String {
    let Request {
        method,
        tls: _,
        target,
        port,
        path,
        headers,
    } = request;
    let host = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map_or_else(|| format!("{target}:{port}"), |(_, value)| value.clone());
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut head = format!("{method} {slash}{path} HTTP/1.1\r\nHost: {host}\r\n");
    // A probe's own headers replace these.
    for (name, value) in [
        ("User-Agent", "kube-probe/1.33"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ] {
        if !headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name))
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if *method == "POST" {
        head.push_str("Content-Length: 0\r\n");
    }
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
    {
        if !name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    head
}

/// One attempt of a probe or hook that uses the network (`httpGet`, `tcpSocket`, `grpc`).
///
/// # Errors
/// Why it failed.
pub async fn attempt(pod: &PodNetwork, probe: &Value, container: &Value) -> Result<(), String> {
    let containers = std::slice::from_ref(container);
    let port = |action: &Value| port_of(action.get("port"), containers).ok_or("no such port");
    let host = |action: &Value| match object::text(action, "/host") {
        "" => Ok(pod.address),
        host => host
            .parse()
            .map_err(|_| format!("host {host} is not an IPv4 address")),
    };
    if let Some(get) = probe.get("httpGet") {
        let header = |header: &Value| {
            let text = |pointer: &str| object::text(header, pointer).to_string();
            (text("/name"), text("/value"))
        };
        let headers: Vec<_> = object::list(get, "/httpHeaders")
            .iter()
            .map(header)
            .collect();
        let request = Request {
            method: "GET",
            tls: object::text(get, "/scheme").eq_ignore_ascii_case("https"),
            target: host(get)?,
            port: port(get)?,
            path: object::text(get, "/path"),
            headers: &headers,
        };
        let status = http(pod, &request)
            .await
            .map_err(|error| error.to_string())?;
        return if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {status}"))
        };
    }
    let opened = async |target: Ipv4Addr, port: u16| {
        let stream = connect(pod, target, port).await;
        stream.map_err(|error| error.to_string())
    };
    if let Some(socket) = probe.get("tcpSocket") {
        return opened(host(socket)?, port(socket)?).await.map(drop);
    }
    if let Some(service) = probe.get("grpc") {
        let port = port(service)?;
        let stream = opened(pod.address, port).await?;
        let authority = format!("{}:{port}", pod.address);
        return grpc::check(stream, &authority, object::text(service, "/service")).await;
    }
    Err("the probe has no known action".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn timing_has_kubernetes_defaults() {
        let timing = Timing::of(&json!({}));
        assert_eq!(
            (timing.period, timing.timeout, timing.failures),
            (Duration::from_secs(10), Duration::from_secs(1), 3)
        );
        assert_eq!(
            Timing::of(&json!({"periodSeconds": 2})).period,
            Duration::from_secs(2)
        );
    }

    #[test]
    fn ports_are_numbers_or_names() {
        let containers = [json!({"ports": [{"name": "web", "containerPort": 8080}]})];
        assert_eq!(port_of(Some(&json!("web")), &containers), Some(8080));
        assert_eq!(port_of(Some(&json!(80)), &containers), Some(80));
        assert_eq!(port_of(Some(&json!("other")), &containers), None);
    }

    #[test]
    fn a_probes_own_headers_replace_the_usual_ones() {
        let headers = [
            ("Host", "shop.example"),
            ("accept", "text/html"),
            ("X", "1"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()));
        let head = head_of(&Request {
            method: "GET",
            tls: false,
            target: Ipv4Addr::LOCALHOST,
            port: 80,
            path: "health?deep",
            headers: &headers,
        });
        let expected = "GET /health?deep HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: kube-probe/1.33\r\n\
            Connection: close\r\naccept: text/html\r\nX: 1\r\n\r\n";
        assert_eq!(head, expected);
    }
}
