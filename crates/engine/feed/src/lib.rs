//! The proxy's intake of configuration: ADS session → decode → warm → publish; and the workload's
//! certificate.
//!
//! [`Feed`] is one loop over everything that can wake it (`session.rs`); what it decides with is
//! pure (`xds_protocol::Client`, [`warm::Warming`]). It writes into `proxy::Live` and nowhere else.
//! [`certificates`] keeps the identity in `Live::tls` current; [`resolve`] looks up clusters whose
//! endpoints are names. [`Status`] tells others how things stand. [`agent`] does the same service
//! for a stock Envoy.
//!
//! Invariants: the last good configuration stays whatever happens to the control plane; a resource
//! that cannot be used is refused by name and hurts no other; the private key stays in this
//! process; nothing here runs on a worker of the data path.
//!
//! Reads no environment and no wall clock of its own: [`environment`] is given the variables,
//! [`Settings`] the rest.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests measure and wait in real time"
    )
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod admin;
pub mod agent;
mod backoff;
pub mod bootstrap;
pub mod certificates;
mod decode;
mod dial;
mod dump;
pub mod environment;
mod error;
pub mod file_secrets;
#[cfg(test)]
mod fixture;
mod resolve;
mod session;
pub mod settings;
pub mod spans;
pub mod statistics;
mod status;
mod stream;
pub mod warm;

pub use environment::{Environment, Role};
pub use error::FeedError;
pub use session::Feed;
pub use settings::Settings;
pub use status::{ConnectionState, Readiness, Refusal, ResourceState, Status, TypeState};
pub use xds_decode::Environment as LogEnvironment;
