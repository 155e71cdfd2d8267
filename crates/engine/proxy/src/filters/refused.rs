//! Stands where a filter or a route stood that could not be read: answers 503, so that nothing
//! passes what it was to guard.
//!
//! The answer's body and `%RESPONSE_CODE_DETAILS%` name the part; the flag is Envoy's for a filter
//! whose configuration is missing (`NFCF`). The field and the reason are in the proxy's own log and
//! on its pages, not in answers to clients.

use http::StatusCode;
use proxy_config::Refused;
use telemetry::record::ResponseFlags;

use crate::{filters::flow::Flow, local_reply::LocalReply, request::Request};

/// An HTTP filter.
pub fn on_request(refused: &Refused, request: &mut Request) -> Flow {
    Flow::Respond(answer(refused, "filter_config_refused", request))
}

/// A route.
pub fn route(refused: &Refused, request: &mut Request) -> LocalReply {
    answer(refused, "route_config_refused", request)
}

fn answer(refused: &Refused, kind: &str, request: &mut Request) -> LocalReply {
    let body = format!("configuration refused by the proxy: {}", refused.name);
    let (status, flag) = (
        StatusCode::SERVICE_UNAVAILABLE,
        ResponseFlags::NO_FILTER_CONFIG_FOUND,
    );
    LocalReply::failure(request, status, body, flag, refused.details(kind))
}
