//! The way back: hop-by-hop headers out, `server` and what the connection manager adds in.

use http::{
    HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, SERVER, TRANSFER_ENCODING, UPGRADE, VIA},
    response::Parts,
};
use proxy_config::{http_connection_manager::ServerHeader, listener::TrafficDirection};

use crate::{
    exchange::Exchange,
    headers::{admit::add_to_list, names::*, remove_all},
};

/// Of one connection, beside `connection` and `upgrade`.
const OF_THIS_HOP: [HeaderName; 3] = [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING];

/// The last change of every response's head, whoever made it.
pub fn finish(x: &Exchange, head: &mut Parts) {
    let http = &x.http.config;
    let headers = &mut head.headers;
    let upgrades = head.status == StatusCode::SWITCHING_PROTOCOLS
        || (x.head.method == Method::CONNECT && head.status.is_success());
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        remove_all(headers, &[CONNECTION, UPGRADE]);
        // Nobody waits for the rest of a request that is answered already: on HTTP/1 that costs the connection. So does HTTP/1.0.
        let unread = x.closes || x.upgrade.is_some() || x.body.ended(x.started).is_none();
        let is_old = x.head.version == Version::HTTP_10 && !x.keeps_alive;
        if x.head.version < Version::HTTP_2 && (unread || is_old) && !upgrades {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    remove_all(headers, &OF_THIS_HOP);
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
        add_to_list(headers, VIA, via);
    }
    if (http.request_id.always_in_response || x.head.headers.contains_key(X_ENVOY_FORCE_TRACE))
        && let Some(id) = x.head.headers.get(X_REQUEST_ID)
    {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    decorator(x, head);
}

/// An inbound sidecar tells the caller's sidecar how the operation is called, unless that one said it first; it uses and removes the header.
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
        .filter(|m| m.route.decorator_propagate && !x.trace.was_told)
        .and_then(|m| m.route.decorator.as_deref());
    if let Some(operation) = decorator
        && let Ok(value) = HeaderValue::from_str(operation)
    {
        head.headers.insert(X_ENVOY_DECORATOR_OPERATION, value);
    }
}
