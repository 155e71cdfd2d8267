//! The data path of the proxy: from an accepted connection to one report about each request.
//!
//! The files are listed in the order in which a request passes them; `serve` is the outline and worth reading first. [`publish`]
//! takes configuration (values of `proxy-config`) and keeps the live objects that requests run on.
//!
//! Invariants: no request sees two versions of the configuration; decisions (`chain`, `route`, `balance`, `upstream::retry`, …) are pure
//! functions of configuration, facts, clock and random numbers; nothing that comes from the network or from configuration panics;
//! plaintext is never a fallback. No protobuf, no xDS, no Kubernetes in here: `feed` and the programs bring those.
//! Deliberately not here: fetching configuration and certificates (`feed`), command line and environment (`bin/tanbark-proxy`).
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

// In the order in which a request meets them; the blank lines keep it.

pub mod publish;

pub mod config;

pub mod makers;

pub mod problem;

pub mod serve;

pub mod listen;

pub mod listener;

pub mod inspect;

pub mod chain;

pub mod tls;

pub mod connection;

pub mod downstream;

pub mod codec;

pub mod exchange;

pub mod request;

pub mod local_reply;

pub mod body;

pub mod grpc;

pub mod headers;

pub mod route;

pub mod redirect;

pub mod filters;

pub mod peers;

pub mod balance;

pub mod endpoint;

pub mod upstream;

pub mod tcp;

pub mod report;

pub mod waiting;

pub mod worker;

pub use config::Waiting;
pub use publish::{Live, Update};
pub use worker::{Settings, Worker};
