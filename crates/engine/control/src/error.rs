//! Why a control plane could not start, or ended.

use std::net::SocketAddr;

use identity::IdentityError;

/// Why a control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    #[error("certificate authority: {0}")]
    Authority(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("a server ended: {0}")]
    Server(#[from] tonic::transport::Error),
    #[error(
        "the lifetime of workload certificates is {seconds} s: it must be between 1 and {maximum} s"
    )]
    WorkloadLifetime { seconds: u64, maximum: u64 },
    #[error("bug: {0}")]
    Bug(&'static str),
}
