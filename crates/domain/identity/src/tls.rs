//! TLS configurations, made from what the proxy's configuration says: [`server_config`] and
//! [`client_config`].
//!
//! A configuration follows its [`IdentityHandle`]: a renewed certificate or a changed trust bundle
//! is used by the next handshake, and sessions made before are forgotten. So a configuration is
//! made once per listener filter chain or cluster and kept. Keys are never logged; early data is
//! never accepted or sent; TLS below 1.2 does not exist here.

mod client;
mod provider;
mod server;
mod sessions;
mod settings;
mod verify;

use std::sync::Arc;

// What a handshake needs of rustls beside a configuration.
pub use rustls::{ServerConfig, server::Acceptor};

pub use client::{ClientConfig, ClientTls, ServerName, client_config};
pub use server::{ClientAuth, ServerTls, server_config};
pub(crate) use settings::openssl_name;
pub use settings::{CipherSuites, Curves, TlsSettings, TlsVersion};
pub use verify::{PeerValidation, Roots};

use crate::{IdentityHandle, TlsCertificate};

#[cfg(test)]
mod tests;

/// What a side presents.
#[derive(Debug, Clone)]
pub enum Presented {
    /// The workload's own identity, whatever it is at the time of the handshake.
    Workload(IdentityHandle),
    /// Certificates of a secret; the first that fits the client's SNI and algorithms is taken, else
    /// the first that fits the algorithms.
    Fixed(Arc<[TlsCertificate]>),
}
