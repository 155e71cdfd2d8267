//! Changes of headers that configuration asks for, on the way to the upstream and back.

use std::sync::Arc;

use http::HeaderName;

/// Header changes of a table, virtual host, route or weighted cluster, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderOperations {
    pub request: Arc<[HeaderOperation]>,
    pub response: Arc<[HeaderOperation]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HeaderOperation {
    Remove(HeaderName),
    Set {
        name: HeaderName,
        value: HeaderValueFormat,
        mode: AppendMode,
        keep_empty: bool,
    },
    /// `host` / `:authority`.
    SetHost(HeaderValueFormat),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendMode {
    AppendOrAdd,
    AddIfAbsent,
    OverwriteOrAdd,
    OverwriteIfExists,
}

/// A literal, or a format with operators (`%DOWNSTREAM_REMOTE_ADDRESS%`).
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValueFormat {
    Literal(http::HeaderValue),
    Format(Arc<telemetry::access_log::Format>),
}
