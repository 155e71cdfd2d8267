//! Who calls whom, worked out from the Istio metrics that every proxy publishes.
//!
//! Path: a proxy's page in Prometheus' text format → [`Totals`] (counters of all proxies) →
//! [`Window`] (the last scrapes) → [`Flow`] (one line of a table, one edge of a graph).
//!
//! The crate is pure: callers fetch the pages and pass the time in. A line of a page that does not
//! parse is passed over, so that what one proxy writes hides nothing of the others. An edge is
//! counted once: at its source where the source has a proxy, because that proxy also sees requests
//! that never arrived; otherwise at its destination. Only the destination knows whether the
//! connection was encrypted.
//!
//! Names of metrics and labels are those of <https://istio.io/latest/docs/reference/config/metrics/>.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests may end by a panic"
    )
)]

mod counts;
mod exposition;
mod flow;
mod totals;
mod window;

pub use flow::{Encryption, Flow};
pub use totals::Totals;
pub use window::Window;
