//! Hash policies of routes and of the TCP proxy (`envoy.config.route.v3.RouteAction.HashPolicy`,
//! `envoy.type.v3.HashPolicy`).

use std::{sync::Arc, time::Duration};

use http::HeaderName;

/// What consistent hashing looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    pub source: HashSource,
    /// Later policies are skipped once a hash exists.
    pub terminal: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HashSource {
    Header(HeaderName),
    /// With a `ttl` a missing cookie is generated; zero: session cookie.
    Cookie {
        name: Arc<str>,
        ttl: Option<Duration>,
        path: Arc<str>,
        attributes: Arc<[(Arc<str>, Arc<str>)]>,
    },
    SourceIp,
    QueryParameter(Arc<str>),
    FilterState(Arc<str>),
}
