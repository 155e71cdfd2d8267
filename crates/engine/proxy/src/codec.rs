//! HTTP towards the downstream, by hyper's connection-level interfaces.
//!
//! [`server`] drives a downstream connection and calls `serve` for each request; [`session`] is
//! what the requests of a connection share;
//! `refused` notes what never became a request; `linger` closes. The upstream's side is
//! `upstream::handshake`.

mod linger;
mod refused;
pub mod server;
pub mod session;

/// Receive windows of HTTP/2 streams and connections where the configuration names none. Bounds
/// what a slow reader makes us hold.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
