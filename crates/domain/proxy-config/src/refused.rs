//! A part of a configuration that could not be obeyed, kept in its place so that it refuses what it
//! was to guard.
//!
//! The decoder puts one of these where an unreadable filter, route or transport stood; the data
//! path then closes the connection or answers 503 at that place. What a refusal costs is written in
//! ARCHITECTURE.md.

use std::sync::Arc;

/// Stands for what could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Name of the part as its sender calls it (`envoy.filters.http.jwt_authn`, a route's name);
    /// what access logs and clients are told.
    pub name: Arc<str>,
    /// The field and what is wrong with it; for the proxy's own log and pages.
    pub reason: Arc<str>,
}

impl Refused {
    /// `kind[name]` without white space, as access logs want it (`%RESPONSE_CODE_DETAILS%`).
    pub fn details(&self, kind: &str) -> String {
        let name: String = self
            .name
            .chars()
            .map(|c| if c.is_whitespace() { '_' } else { c })
            .collect();
        format!("{kind}[{name}]")
    }
}
