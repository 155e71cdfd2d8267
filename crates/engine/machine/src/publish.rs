//! Services of type LoadBalancer and NodePort on the machine's 127.0.0.1.
//!
//! A listener on the machine comes from the broker; its connections are spliced to a ready
//! endpoint. The port is the given
//! `nodePort` of a NodePort Service, otherwise the Service's own port, or that plus 8000 below 1024 (80 → 8080, 443 → 8443).
//! Where it is in use, that is reported and the node port, then any free one, is taken. What was
//! chosen stands in the Service's status and in the annotation `tanbark.io/published`
//! (`80=127.0.0.1:8080`).

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::broker::{Broker, HostSocket};
use crate::context::Context;
use crate::object;
use crate::services::endpoints_of;
use crate::store::Part;
use crate::store::kinds::SERVICES;

/// Where a Service's ports are published.
pub const ANNOTATION: &str = "tanbark.io/published";
/// Connections of one published port at the same time.
const MAX_CONNECTIONS: usize = 4_096;

struct Published {
    host_port: u16,
    task: AbortHandle,
}

type Key = (String, i64);

/// Publishes, and takes back, as Services come and go.
pub async fn run(context: Arc<Context>, broker: Arc<Broker>) {
    let mut published: HashMap<Key, Published> = HashMap::new();
    let mut version = context.store.version();
    loop {
        version.mark_unchanged();
        let services: Vec<Arc<Value>> = context
            .store
            .all(&SERVICES)
            .into_iter()
            .filter(|service| is_published(service))
            .collect();
        let wanted: Vec<Key> = services.iter().flat_map(|service| keys(service)).collect();
        published.retain(|key, entry| {
            let keep = wanted.contains(key);
            if !keep {
                entry.task.abort();
            }
            keep
        });
        for service in &services {
            for port in tcp_ports(service) {
                let key = (
                    object::uid(service).to_string(),
                    object::number(port, "/port").unwrap_or(0),
                );
                if !published.contains_key(&key)
                    && let Some(entry) = publish(&context, &broker, service, port).await
                {
                    published.insert(key, entry);
                }
            }
            write_status(&context, service, &published);
        }
        if version.changed().await.is_err() {
            return;
        }
    }
}

fn is_published(service: &Value) -> bool {
    matches!(
        object::text(service, "/spec/type"),
        "LoadBalancer" | "NodePort"
    ) && !object::deleting(service)
}

fn tcp_ports(service: &Value) -> impl Iterator<Item = &Value> {
    object::list(service, "/spec/ports")
        .iter()
        .filter(|port| object::text(port, "/protocol") != "UDP")
}

fn keys(service: &Value) -> Vec<Key> {
    let uid = object::uid(service);
    tcp_ports(service)
        .map(|port| (uid.to_string(), object::number(port, "/port").unwrap_or(0)))
        .collect()
}

/// The ports to try, best first; 0 is any.
pub fn candidates(service_type: &str, port: u16, node_port: u16) -> Vec<u16> {
    let usual = if port < 1024 { port + 8_000 } else { port };
    match service_type {
        "NodePort" => vec![node_port, 0],
        _ => vec![usual, node_port, 0],
    }
}

async fn publish(
    context: &Arc<Context>,
    broker: &Arc<Broker>,
    service: &Arc<Value>,
    port: &Value,
) -> Option<Published> {
    let number = |key: &str| {
        object::number(port, key)
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or(0)
    };
    for candidate in candidates(
        object::text(service, "/spec/type"),
        number("/port"),
        number("/nodePort"),
    ) {
        match listen(broker, candidate).await {
            Ok(listener) => {
                let host_port = listener.local_addr().ok()?.port();
                // task: a published port; aborted when its Service no longer publishes it
                let task = tokio::spawn(accept(
                    context.clone(),
                    listener,
                    service.clone(),
                    object::text(port, "/name").to_string(),
                ))
                .abort_handle();
                return Some(Published { host_port, task });
            }
            Err(error) => {
                let message = format!(
                    "port {candidate} of 127.0.0.1 for port {} is not available: {error}",
                    number("/port")
                );
                context.event(service, "Warning", "PortInUse", &message);
            }
        }
    }
    None
}

async fn listen(broker: &Broker, port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(broker.open(HostSocket::Listen { port }).await?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(
    context: Arc<Context>,
    listener: TcpListener,
    service: Arc<Value>,
    port_name: String,
) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let endpoints = endpoints_of(&context.store, &service, &port_name);
        // task: one connection to a published port; holds one of MAX_CONNECTIONS places, ends with
        // either side
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = splice(stream, &endpoints).await {
                tracing::debug!(%error, "a published connection ended");
            }
        });
    }
}

async fn splice(mut client: TcpStream, endpoints: &[std::net::SocketAddrV4]) -> io::Result<()> {
    let first = fastrand::usize(..endpoints.len().max(1));
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for endpoint in endpoints.iter().cycle().skip(first).take(endpoints.len()) {
        match TcpStream::connect(endpoint).await {
            Ok(mut server) => {
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                tokio::io::copy_bidirectional(&mut client, &mut server).await?;
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    // Nobody there: a reset, as from a closed port, not an orderly end.
    let _ = client.set_zero_linger();
    Err(last)
}

fn write_status(context: &Context, service: &Value, published: &HashMap<Key, Published>) {
    let uid = object::uid(service);
    let mut lines = Vec::new();
    let mut ports = Vec::new();
    for port in tcp_ports(service) {
        let number = object::number(port, "/port").unwrap_or(0);
        if let Some(entry) = published.get(&(uid.to_string(), number)) {
            lines.push(format!("{number}=127.0.0.1:{}", entry.host_port));
            ports.push(json!({"port": number, "protocol": "TCP"}));
        }
    }
    let (namespace, name) = (object::namespace(service), object::name(service));
    let text = lines.join(",");
    if object::annotations(service)
        .get(ANNOTATION)
        .map(String::as_str)
        != Some(&text)
    {
        let result = context
            .store
            .change(&SERVICES, namespace, name, Part::Main, |present| {
                let mut next = present.clone();
                object::annotate(&mut next, ANNOTATION, &text);
                Ok(next)
            });
        if let Err(refusal) = result {
            tracing::debug!(%refusal, name, "the published ports are not written");
        }
    }
    if object::text(service, "/spec/type") == "LoadBalancer" {
        let address = Ipv4Addr::LOCALHOST.to_string();
        context.store.set_status(&SERVICES, namespace, name, json!({"loadBalancer": {"ingress": [{"ip": address, "ipMode": "Proxy", "ports": ports}]}}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_chosen_so_that_a_plain_user_may_have_them() {
        assert_eq!(candidates("LoadBalancer", 80, 30_001), [8_080, 30_001, 0]);
        assert_eq!(
            candidates("LoadBalancer", 15_021, 30_001),
            [15_021, 30_001, 0]
        );
        assert_eq!(candidates("NodePort", 80, 30_001), [30_001, 0]);
    }
}
