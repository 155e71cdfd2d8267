//! Filters by the type of their configuration. A filter that is not known is refused by name: one
//! that authorizes must never be skipped. Only `is_optional` HTTP filters of unknown type are left
//! out, as their sender asked, and compressors, as an uncompressed answer is the same answer.

pub(crate) mod alpn;
pub(crate) mod cors;
pub(crate) mod fault;
pub(crate) mod http;
pub(crate) mod istio_stats;
pub(crate) mod local_rate_limit;
pub(crate) mod network;
pub(crate) mod peer_metadata;
pub(crate) mod rbac;
