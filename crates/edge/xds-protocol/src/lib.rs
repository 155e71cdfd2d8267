//! The aggregated discovery protocol (ADS) of xDS v3, both sides, state-of-the-world and delta,
//! without IO.
//!
//! [`Client`] is what a proxy runs: it is told what is wanted and what the stream brings, and
//! answers with requests to send and resources to apply. [`Server`] is one stream of a control
//! plane: it is told what the client says and what the client should have, and answers with
//! responses in an order that never breaks traffic. Time, sockets and decoding are the caller's.
//!
//! Invariants: nothing from the peer panics or grows without bound of what was asked for; a
//! response is answered exactly once, with an ACK or a NACK; a stale nonce changes nothing; a
//! refused resource leaves the last good one in place.
//!
//! Follows Envoy's "xDS REST and gRPC protocol" page; push order as reference CP-002.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod client;
mod message;
mod order;
mod server;

pub use client::{Client, ClientInput, ClientOutput, Delivery, Interest, Received, Rejection};
pub use message::{Flavour, ProtocolError, Request, Resource, Response, resource_name};
pub use order::push_rank;
pub use server::{Acknowledged, Server, ServerEvent, TypeStatus};
