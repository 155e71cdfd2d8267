//! What users write: Istio, Kubernetes and mesh configuration objects, as they stand in files and
//! in an API server.
//!
//! Three things live here. [`manifest`] turns the text of a file into JSON objects and remembers
//! where every field stood. [`read`] turns one JSON object into a struct of [`istio`] or
//! [`kubernetes`], by the rules of proto3 JSON: both spellings of a name, numbers as text, enums by
//! name or number, Go's durations; it collects everything that is wrong with its place instead of
//! stopping at the first. [`kinds`] lists what is known and what is served. [`object`] reads and
//! writes the fields that every object has, on plain JSON.
//!
//! Structs here say what was written and nothing about what it means: no defaults are filled in, no
//! rule is checked. That is `ingest`'s work, which destructures every struct exhaustively.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests measure and wait in real time"
    )
)]
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
        clippy::indexing_slicing
    )
)]

#[macro_use]
mod message;

pub mod duration;
pub mod istio;
pub mod kinds;
pub mod kubernetes;
pub mod manifest;
pub mod meta;
pub mod object;
pub mod path;
pub mod read;
pub mod shapes;

pub use manifest::{Document, LoadError, Source};
pub use meta::ObjectMeta;
pub use read::{Fault, FaultKind};
