//! The other end of a gRPC connection; requests carry it as an extension.

use std::net::SocketAddr;

use identity::SpiffeId;

/// Who is at the other end of a connection, as the handshake proved it.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub id: Option<SpiffeId>,
    /// Where it calls from.
    pub address: Option<SocketAddr>,
}
