//! CORS policy of a route (`envoy.extensions.filters.http.cors.v3.CorsPolicy`).

use std::sync::Arc;

use http::HeaderValue;

use crate::matcher::{Fraction, StringMatcher};

#[derive(Debug, Clone, PartialEq)]
pub struct CorsPolicy {
    pub allow_origins: Arc<[StringMatcher]>,
    pub allow_methods: Option<HeaderValue>,
    pub allow_headers: Option<HeaderValue>,
    pub expose_headers: Option<HeaderValue>,
    /// Seconds.
    pub max_age: Option<HeaderValue>,
    pub allow_credentials: bool,
    pub enabled: Fraction,
    pub shadow_enabled: Option<Fraction>,
    /// A preflight whose origin does not match goes upstream; default true.
    pub forward_not_matching_preflights: bool,
    pub allow_private_network: bool,
}
