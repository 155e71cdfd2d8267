//! What the arithmetic ends in: one edge with its rate, success, latency and encryption.
//!
//! Values only, for the terminal's table and for a console; how they are shown is the caller's.

/// The traffic of one edge over a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Workload, with `.NAMESPACE` where that is not `default`; `unknown` outside of the mesh.
    pub source: String,
    /// As `source`; the Service's name for what reached no workload.
    pub destination: String,
    /// `http`, `grpc`, `tcp`
    pub protocol: String,
    /// Requests (TCP: connections) a second.
    pub rate: f64,
    /// Share of requests that succeeded, 0 to 100; `None` for TCP.
    pub success: Option<f64>,
    /// Milliseconds that half of the requests took at most; `None` for TCP.
    pub p50: Option<f64>,
    /// Milliseconds that 99 of 100 requests took at most; `None` for TCP.
    pub p99: Option<f64>,
    pub encryption: Encryption,
}

/// How the destination's proxy got the edge's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// All by mutual TLS.
    MutualTls,
    /// At least one in plaintext.
    Plaintext,
    /// The destination has no proxy, or no word of it has come yet.
    Unknown,
}
