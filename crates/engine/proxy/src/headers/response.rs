//! The way back: hop-by-hop headers out, `server` and what the connection manager adds in.

use http::{
    HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, SERVER, TRANSFER_ENCODING, UPGRADE, VIA},
    response::Parts,
};
use proxy_config::{http_connection_manager::ServerHeader, listener::TrafficDirection};

use crate::{
    headers::{admit::add_to_list, names::*, number, remove_all},
    request::Request,
};

/// Of one connection, beside `connection` and `upgrade`.
const OF_THIS_HOP: [HeaderName; 3] = [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING];

/// The last change of every response's head, whoever made it.
pub fn finish(request: &Request, server: &HeaderValue, head: &mut Parts) {
    let http = &request.http;
    let headers = &mut head.headers;
    let upgrades = head.status == StatusCode::SWITCHING_PROTOCOLS
        || (request.head.method == Method::CONNECT && head.status.is_success());
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        remove_all(headers, &[CONNECTION, UPGRADE]);
        // Nobody waits for the rest of a request that is answered already: on HTTP/1 that costs the connection. So does HTTP/1.0.
        let unread = request.closes
            || request.upgrade.is_some()
            || request.body.ended(request.started).is_none();
        let is_old = request.head.version == Version::HTTP_10 && !request.keeps_alive;
        if request.head.version < Version::HTTP_2 && (unread || is_old) && !upgrades {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    remove_all(headers, &OF_THIS_HOP);
    match http.server_header {
        ServerHeader::Overwrite => drop(headers.insert(SERVER, server.clone())),
        ServerHeader::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| server.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if let Some(via) = &http.via {
        add_to_list(headers, VIA, via);
    }
    if (http.request_id.always_in_response
        || request.head.headers.contains_key(X_ENVOY_FORCE_TRACE))
        && let Some(id) = request.head.headers.get(X_REQUEST_ID)
    {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    decorator(request, head);
}

/// How many attempts it took, where the virtual host wants it told.
pub fn attempt_count(request: &Request, head: &mut Parts) {
    let is_wanted = request
        .route
        .as_ref()
        .is_some_and(|matched| matched.virtual_host.include_attempt_count_in_response);
    if is_wanted {
        head.headers.insert(
            X_ENVOY_ATTEMPT_COUNT,
            number(request.record.attempts.into()),
        );
    }
}

/// An inbound sidecar tells the caller's sidecar how the operation is called, unless that one said it first; it uses and removes the header.
fn decorator(request: &Request, head: &mut Parts) {
    if request.http.tracing.is_none() {
        return;
    }
    if request.downstream.direction == TrafficDirection::Outbound {
        head.headers.remove(X_ENVOY_DECORATOR_OPERATION);
        return;
    }
    let decorator = request
        .route
        .as_ref()
        .filter(|m| m.route.decorator_propagate && !request.trace.was_told)
        .and_then(|m| m.route.decorator.as_deref());
    if let Some(operation) = decorator
        && let Ok(value) = HeaderValue::from_str(operation)
    {
        head.headers.insert(X_ENVOY_DECORATOR_OPERATION, value);
    }
}
