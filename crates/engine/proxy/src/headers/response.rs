//! The way back: hop-by-hop headers out, `server` and what the connection manager adds in.

use http::{
    HeaderValue,
    header::{CONNECTION, SERVER, TRANSFER_ENCODING, UPGRADE, VIA},
    response::Parts,
};
use proxy_config::{http_connection_manager::ServerHeader, listener::TrafficDirection};

use super::{names::*, text};
use crate::exchange::Exchange;

/// The last change of every response's head, whoever made it.
pub fn finish(x: &Exchange, head: &mut Parts) {
    let http = &x.http.config;
    let headers = &mut head.headers;
    let upgrades = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    if !upgrades {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    match http.server_header {
        ServerHeader::Overwrite => drop(headers.insert(SERVER, x.http.server_name.clone())),
        ServerHeader::AppendIfAbsent => drop(
            headers
                .entry(SERVER)
                .or_insert_with(|| x.http.server_name.clone()),
        ),
        ServerHeader::PassThrough => {}
    }
    if let Some(via) = &http.via {
        headers.append(VIA, text(via));
    }
    if http.request_id.always_in_response
        && let Some(id) = x.head.headers.get(X_REQUEST_ID)
    {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    decorator(x, head);
}

/// An inbound sidecar tells the caller's sidecar how the operation is called; that sidecar uses and removes it.
fn decorator(x: &Exchange, head: &mut Parts) {
    if x.http.config.tracing.is_none() {
        return;
    }
    if x.connection.listener.config.direction == TrafficDirection::Outbound {
        head.headers.remove(X_ENVOY_DECORATOR_OPERATION);
        return;
    }
    let decorator = x
        .route
        .as_ref()
        .filter(|m| m.route.decorator_propagate)
        .and_then(|m| m.route.decorator.as_deref());
    if let Some(operation) = decorator
        && let Ok(value) = HeaderValue::from_str(operation)
    {
        head.headers.insert(X_ENVOY_DECORATOR_OPERATION, value);
    }
}
