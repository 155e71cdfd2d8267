//! Small foundations that every layer may use: time, randomness, drain and names.
//!
//! Decisions elsewhere are pure functions, so what they cannot compute comes in through here:
//! [`Clock`] gives monotonic and wall time, [`Rng`] gives random bits, [`drain`] tells long-lived
//! tasks to finish, [`name`] interns names with a bound, [`huge_pages`] says how memory is to be
//! backed. Programs use [`SystemClock`] and [`SystemRng`]; tests use [`VirtualClock`] and
//! [`SeededRng`]. Nothing here starts threads, reads files or depends on a runtime.

pub mod clock;
pub mod drain;
pub mod huge_pages;
pub mod name;
pub mod random;

pub use clock::{Clock, SystemClock, VirtualClock};
pub use drain::{Drain, DrainTrigger};
pub use name::{Name, NameTable};
pub use random::{Rng, SeededRng, SystemRng};
