//! The Kubernetes kinds that a control plane reads, with the fields that it needs.
//!
//! These are `partial`: whatever else an object holds is checked by Kubernetes (or by the
//! one-machine runtime), not here.

pub mod endpoint_slice;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod secret;
pub mod service;
