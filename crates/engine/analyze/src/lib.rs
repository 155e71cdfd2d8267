//! Problems that only show when objects are seen together: references to nothing, conflicts, rules
//! without effect.
//!
//! `ingest` tells what is wrong with each object by itself; this crate looks at what a store and
//! its snapshot say together. Nothing here changes what the mesh does; each finding is attached to
//! the object whose author can mend it. Command line, admission, status and console show the same
//! findings, with the codes of [`ingest::code`].
//!
//! Each rule is a file of [`rules`]: its codes with their severity, its text for users, what it
//! reads, and a check of one unit (an object, or those that claim the same thing). A check reads
//! only through [`Cx`], which notes what it looked at; so after a change exactly those units are
//! checked again that looked at something that changed, and an update costs what it touches.
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
        clippy::disallowed_methods,
        reason = "tests may end by a panic, and read UPDATE_EXPECT"
    )
)]

mod analyzer;
mod cx;
mod rule;
mod rules;
mod selections;
#[cfg(test)]
mod tests;

pub use analyzer::{Analyzer, Updated};
pub use cx::Cx;
pub use rule::{Rule, Source, Units};
pub use rules::RULES;
