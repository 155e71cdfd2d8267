//! Fault injection (`envoy.extensions.filters.http.fault.v3`).

use std::{sync::Arc, time::Duration};

use crate::matcher::{Fraction, HeaderMatcher};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
    /// Only requests to this upstream cluster.
    pub upstream_cluster: Option<Arc<str>>,
    /// All must match.
    pub headers: Arc<[HeaderMatcher]>,
    pub downstream_nodes: Arc<[Arc<str>]>,
    pub max_active_faults: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay {
    pub kind: DelayKind,
    pub fraction: Fraction,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DelayKind {
    Fixed(Duration),
    /// `x-envoy-fault-delay-request`, milliseconds.
    Header,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Abort {
    pub kind: AbortKind,
    pub fraction: Fraction,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AbortKind {
    Http(http::StatusCode),
    /// gRPC status code.
    Grpc(u32),
    /// `x-envoy-fault-abort-request`.
    Header,
}
