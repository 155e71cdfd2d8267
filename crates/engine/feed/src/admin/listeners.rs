//! `/listeners`: names and addresses of the listeners that have a socket.

use std::fmt::Write as _;

use http::StatusCode;
use proxy::Live;
use serde_json::{Value, json};

use super::page::{self, Page};

pub(super) fn page(live: &Live, as_json: bool) -> Page {
    let config = live.config();
    let mut bound: Vec<_> = config
        .listeners
        .values()
        .filter(|listener| listener.config.bind_to_port)
        .collect();
    bound.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if as_json {
        let statuses: Vec<Value> = bound
            .iter()
            .map(|listener| {
                let address = listener.addresses().next().map(|a| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}}));
                json!({"name": listener.config.name.as_str(), "local_address": address})
            })
            .collect();
        return page::json(&json!({ "listener_statuses": statuses }));
    }
    let mut body = String::new();
    for listener in bound {
        for address in listener.addresses() {
            // Writing to a String does not fail.
            let _ = writeln!(body, "{}::{address}", listener.config.name);
        }
    }
    page::text(StatusCode::OK, body)
}
