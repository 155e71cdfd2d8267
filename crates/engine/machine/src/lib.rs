//! A mesh on one machine: Kubernetes' objects as local processes with real pod addresses, traffic
//! capture and DNS.
//!
//! Two processes. The outer one ([`up`]) stays in the machine's namespaces, opens the few sockets
//! there that are needed ([`broker`]) and holds the state folder's lock. The inner one ([`init`])
//! is process 1 of new user, PID, network, mount and UTS namespaces and does everything: it holds
//! the objects ([`store`]) and serves them as Kubernetes' API ([`api`]), reads them from files
//! ([`source`]), makes objects of objects ([`controllers`]), and runs pods ([`kubelet`], [`pod`])
//! as containers ([`container`]) with a network each ([`network`], [`rules`]), DNS ([`dns`]),
//! Services ([`services`]), published ports ([`publish`]) and a way out ([`egress`]). When the
//! outer process ends, in whatever way, the kernel ends the inner one and nothing is left.
//!
//! The program that links this crate must reach [`init::main`] and [`container::exec_main`] by
//! hidden subcommands (`machine-init`, `container-exec`) before it starts threads.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests measure and wait in real time"
    )
)]

pub mod api;
mod blocking;
pub mod broker;
pub mod client;
pub mod container;
pub mod context;
mod control;
pub mod controllers;
pub mod dns;
pub mod egress;
pub mod error;
pub mod files;
pub mod hooks;
pub mod images;
pub mod init;
pub mod kubelet;
pub mod launch;
pub mod logs;
pub mod names;
pub mod namespaces;
pub mod network;
pub mod object;
pub mod options;
mod outside;
pub mod pod;
pub mod probe;
pub mod processes;
pub mod publish;
pub mod rules;
pub mod services;
pub mod source;
pub mod state;
pub mod store;
pub mod table;
pub mod token;
pub mod up;

pub use client::Client;
pub use error::{Error, Result};
pub use options::Options;
pub use up::{Handle, down, up};
