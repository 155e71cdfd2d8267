//! The data path over real sockets on loopback: configuration values in, requests and connections
//! through, answers and records out.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes and sockets: measured and waited for in real time"
)]

mod backend;
mod client;
mod config;
mod proxy;

mod connections;
mod drain;
mod failures;
mod filters;
mod framing;
mod http;
mod limits;
mod mutual_tls;
mod reports;
mod retries;
mod silence;
mod updates;
mod upgrades;
