//! Names and numbers that several parts of the runtime agree on.
//!
//! Constants only, so that every other file may use them. What belongs to one part alone stands in
//! that part.

/// The name of the one node.
pub const NODE_NAME: &str = "tanbark";
/// The bridge of all pods, in the runtime's own network namespace.
pub const BRIDGE: &str = "tanbark0";
/// Namespace of the control plane.
pub const SYSTEM_NAMESPACE: &str = "istio-system";
/// The image that stands for the control plane.
pub const CONTROL_IMAGE: &str = "tanbark/control";
/// The user and group `nobody`: whoever has no rights of their own.
pub const NOBODY: u32 = 65_534;
