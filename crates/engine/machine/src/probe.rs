//! Probes and hooks: one attempt at asking a container how it is.
//!
//! A connection is made inside the pod's network, from 127.0.0.6 to the pod's own address, as the sidecar connects to its
//! application: redirection leaves it alone, so a probe works whatever the mesh's policy says (Istio rewrites probes instead).

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// Sends one HTTP/1.1 request into a pod; the status of the answer.
pub async fn http(
    pod: &PodNetwork,
    method: &str,
    target: Ipv4Addr,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<u16> {
    let mut stream = connect(pod, target, port).await?;
    let host = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map_or_else(|| format!("{target}:{port}"), |(_, value)| value.clone());
    let path = if path.starts_with('/') {
        path.to_string()
    } else {
        format!("/{path}")
    };
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close\r\n"
    );
    if method == "POST" {
        request.push_str("Content-Length: 0\r\n");
    }
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
    {
        if !name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    request.push_str("\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .context(|| format!("ask {target}:{port}"))?;
    let mut answer = Vec::new();
    let mut bytes = [0_u8; 256];
    while !answer.contains(&b'\n') && answer.len() < MAX_STATUS_LINE_BYTES {
        match stream
            .read(&mut bytes)
            .await
            .context(|| format!("ask {target}:{port}"))?
        {
            0 => break,
            length => answer.extend_from_slice(bytes.get(..length).unwrap_or_default()),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.get(..3))
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| Error::Peer(format!("{target}:{port} gave no HTTP answer")))
}

/// One attempt of a probe or hook that uses the network (`httpGet`, `tcpSocket`, `grpc` as a connection).
///
/// # Errors
/// Why it failed.
pub async fn attempt(pod: &PodNetwork, probe: &Value, container: &Value) -> Result<(), String> {
    let containers = std::slice::from_ref(container);
    let target = |host: &str| {
        if host.is_empty() {
            Some(pod.address)
        } else {
            host.parse().ok()
        }
    };
    if let Some(get) = probe.get("httpGet") {
        if object::text(get, "/scheme").eq_ignore_ascii_case("https") {
            // Kubernetes does not check the certificate either; that the port accepts is what is left to know.
            return tcp(pod, port_of(get.get("port"), containers)).await;
        }
        let port = port_of(get.get("port"), containers).ok_or("httpGet: no such port")?;
        let headers: Vec<(String, String)> = object::list(get, "/httpHeaders")
            .iter()
            .map(|header| {
                (
                    object::text(header, "/name").to_string(),
                    object::text(header, "/value").to_string(),
                )
            })
            .collect();
        let host = target(object::text(get, "/host")).ok_or("httpGet: host is not an address")?;
        let path = object::text(get, "/path");
        let status = http(pod, "GET", host, port, path, &headers)
            .await
            .map_err(|error| error.to_string())?;
        return if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {status}"))
        };
    }
    if let Some(socket) = probe.get("tcpSocket").or_else(|| probe.get("grpc")) {
        return tcp(pod, port_of(socket.get("port"), containers)).await;
    }
    Err("the probe has no known action".into())
}

async fn tcp(pod: &PodNetwork, port: Option<u16>) -> Result<(), String> {
    let port = port.ok_or("no such port")?;
    connect(pod, pod.address, port)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
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
}
