//! Everything towards the upstream: which connection carries a request, how it is made, and what its fate teaches.

pub mod breaker;
pub mod connect;
pub mod dynamic_forward;
pub mod metrics;
pub mod original_destination;
pub mod outlier;
pub mod pool;
pub mod retry;
