//! Everything towards the upstream: which connection carries a request, how it is made, and what its fate teaches.

pub mod ad_hoc;
pub mod breaker;
pub mod cluster;
pub mod connect;
pub mod connected;
pub mod dynamic_forward;
pub mod ejection;
pub mod handshake;
pub mod in_flight;
pub mod metrics;
pub mod names;
pub mod original_destination;
pub mod outlier;
pub mod pool;
pub mod reset;
pub mod retry;
