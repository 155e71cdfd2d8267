//! The data path over real sockets on loopback: configuration values in, requests and connections through, answers and records out.

mod backend;
mod client;
mod config;
mod proxy;

mod connections;
mod drain;
mod failures;
mod filters;
mod http;
mod mutual_tls;
mod reports;
mod retries;
mod updates;
mod upgrades;
