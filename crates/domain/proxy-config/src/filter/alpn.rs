//! Istio's ALPN override (`istio.envoy.config.filter.http.alpn.v2alpha1`): what is offered to an
//! upstream, by its HTTP version.

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alpn {
    pub http10: Arc<[Arc<str>]>,
    pub http11: Arc<[Arc<str>]>,
    pub http2: Arc<[Arc<str>]>,
}
