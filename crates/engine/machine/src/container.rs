//! A container: the process that the runtime starts for it, before it becomes the application.
//!
//! The runtime clones this program into new PID, mount, UTS and IPC namespaces with a specification
//! on a descriptor. It enters the pod's network, builds the root ([`root`]), gives up every
//! capability that is not listed, and executes the command as its child; itself it stays as process
//! 1, which passes signals on and reaps ([`first`]). The end of process 1 is the end of all that
//! the container started. `exec` and exec probes enter the namespaces of a running container
//! instead.
//!
//! An error before `execve` is written to the status pipe; its end without a word says that the
//! command runs.

mod confine;
mod first;
mod root;

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

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

/// The library entry of the hidden subcommand `container-exec`: never returns success before its
/// command has ended.
///
/// Must be called before the program starts threads.
pub fn exec_main() -> ExitCode {
    // SAFETY: the launcher opened both for us and nothing else uses these numbers.
    let (spec, status) = unsafe {
        (
            File::from_raw_fd(SPEC_DESCRIPTOR),
            File::from_raw_fd(STATUS_DESCRIPTOR),
        )
    };
    // The command's start closes it: its end without a word says that all went well.
    // SAFETY: sets a flag of an open descriptor.
    unsafe { libc::fcntl(STATUS_DESCRIPTOR, libc::F_SETFD, libc::FD_CLOEXEC) };
    let entry: Entry = match serde_json::from_reader(spec) {
        Ok(entry) => entry,
        Err(error) => {
            return refuse(
                status,
                &Error::Peer(format!("the container's specification: {error}")),
            );
        }
    };
    let child = match &entry {
        Entry::Start(spec) => start(spec, &status),
        Entry::Enter(spec) => enter(spec, &status),
    };
    match child {
        Ok(child) => {
            drop(status);
            first::wait(child)
        }
        Err(error) => refuse(status, &error),
    }
}

fn refuse(mut status: File, error: &Error) -> ExitCode {
    let _ = write!(status, "{error}");
    ExitCode::from(128)
}

fn start(spec: &StartSpec, status: &File) -> Result<Pid> {
    enter_namespace(NAMESPACE_DESCRIPTOR, CloneFlags::CLONE_NEWNET)?;
    nix::unistd::sethostname(&spec.hostname).context(|| "set the host name".into())?;
    // A volume may hide the folder that the program is in (the machine's /tmp, say): it is opened
    // while its path still leads there.
    let outside = confine::find_program(&spec.command).ok();
    root::build(spec)?;
    run(&spec.command, outside, status, || Ok(()))
}

fn enter(spec: &EnterSpec, status: &File) -> Result<Pid> {
    let order = [
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWPID,
    ];
    for (descriptor, kind) in (NAMESPACE_DESCRIPTOR..).zip(order) {
        enter_namespace(descriptor, kind)?;
    }
    run(&spec.command, None, status, || {
        // SAFETY: plain system calls about this process.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if spec.terminal {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
            }
        }
        Ok(())
    })
}

fn enter_namespace(descriptor: RawFd, kind: CloneFlags) -> Result<()> {
    // SAFETY: the launcher opened it for us; it is owned and closed here.
    let namespace = unsafe { OwnedFd::from_raw_fd(descriptor) };
    setns(namespace, kind).context(|| format!("enter a namespace of the pod ({kind:?})"))
}

/// Forks; the child prepares itself and becomes the command. The caller stays as its init.
fn run(
    command: &Command,
    outside: Option<confine::Program>,
    status: &File,
    prepare: impl FnOnce() -> Result<()>,
) -> Result<Pid> {
    first::block_signals()?;
    let program = confine::find_program(command).or_else(|missing| outside.ok_or(missing))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.context(|| "fork".into())? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let error = match prepare().and_then(|()| confine::become_command(command, &program)) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let mut status = status;
            let _ = write!(status, "{error}");
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(127) }
        }
    }
}
