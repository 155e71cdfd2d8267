//! What end-to-end tests share: a whole mesh on this machine, started as a user would start it, and waits with deadlines.
//!
//! Everything goes through the programs' own command lines and through real tools (curl, python3); nothing reaches into a process. A test that
//! fails prints the runtime's log and the state of the pods, so that a failure in CI can be read without repeating it.

mod left_out;
mod mesh;
mod programs;
mod traffic;
mod wait;
mod workload;

pub use left_out::left_out;
pub use mesh::{Builder, Mesh, Proxy, Run, User};
pub use programs::{envoy, programs, root};
pub use traffic::{Answer, Background, Sample, echo_program, installed};
pub use wait::{eventually, holds_for};
pub use workload::{Workload, echo, mesh_settings, namespace, service, whole_service};
