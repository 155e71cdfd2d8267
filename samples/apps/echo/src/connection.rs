//! What the listeners and the answers tell each other about a request: where it came from, and that
//! its answer is a reset.

use std::net::SocketAddr;

/// Where a request came from; every request carries one.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub peer: SocketAddr,
    pub scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// On a response: don't send it, reset the connection or stream.
#[derive(Debug, Clone, Copy)]
pub struct Abort;
