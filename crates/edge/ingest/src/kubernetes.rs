//! Kubernetes' own objects, as far as they mean something to the mesh.
//!
//! Services and pods stay what they say here; endpoints are put together from slices, pods, nodes and Services when a snapshot
//! is built.

pub mod endpoint_slice;
pub mod pod;
pub mod secret;
pub mod service;
