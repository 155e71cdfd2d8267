//! What the runtime tells a container's first process: the command, its rights, its root and the
//! descriptors it finds open.
//!
//! The specification is JSON on [`SPEC_DESCRIPTOR`].

use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the specification is read.
pub const SPEC_DESCRIPTOR: RawFd = 3;
/// Where a failure before `execve` is told.
pub const STATUS_DESCRIPTOR: RawFd = 4;
/// The first of the namespaces to enter, in the order that each [`Entry`] names.
pub const NAMESPACE_DESCRIPTOR: RawFd = 5;

/// CAP_NET_BIND_SERVICE
pub const NET_BIND_SERVICE: u8 = 10;
/// CAP_NET_ADMIN
pub const NET_ADMIN: u8 = 12;

/// What the new process is to become.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Entry {
    /// A container's first process; descriptor: the pod's network.
    Start(StartSpec),
    /// A further process in a running container; descriptors: its network, UTS, mount and PID
    /// namespaces.
    Enter(EnterSpec),
}

/// The command and its rights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// Name and arguments; the name is looked up in the environment's `PATH` when it has no slash.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The working directory.
    pub directory: PathBuf,
    /// User and group to become; `None` where only one user is mapped.
    pub identity: Option<(u32, u32)>,
    /// Capabilities that are kept, by number.
    pub capabilities: Vec<u8>,
}

/// A new container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartSpec {
    /// What to run.
    pub command: Command,
    /// The pod's name.
    pub hostname: String,
    /// An existing empty folder that the container's root is built on.
    pub scratch: PathBuf,
    /// Files and folders to show.
    pub mounts: Vec<Mount>,
    /// Folders of the machine that the container must not see into.
    pub hidden: Vec<PathBuf>,
    /// Whether overlays are made without the rights of root.
    pub unprivileged: bool,
}

/// A further process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnterSpec {
    /// What to run.
    pub command: Command,
    /// Whether descriptor 0 is a terminal to control.
    pub terminal: bool,
}

/// A bind mount.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Mount {
    /// On the machine.
    pub source: PathBuf,
    /// In the container; made when missing.
    pub target: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}
