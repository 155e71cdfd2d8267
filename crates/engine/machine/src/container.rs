//! A container: the process that the runtime starts for it, before it becomes the application.
//!
//! The runtime clones this program into new PID, mount, UTS and IPC namespaces with a specification
//! ([`spec`]) on a descriptor. It enters the pod's network, builds the root ([`root`]), gives up
//! every capability that is not listed, and executes the command as its child; itself it stays as
//! process 1, which passes signals on and reaps ([`first`]). The end of process 1 is the end of all
//! that the container started. `exec` and exec probes enter the namespaces of a running container
//! instead.
//!
//! An error before `execve` is written to the status pipe; its end without a word says that the
//! command runs.

mod confine;
mod first;
mod root;
pub mod spec;

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::{Context, Error, Result};
use spec::{
    Command, EnterSpec, Entry, NAMESPACE_DESCRIPTOR, SPEC_DESCRIPTOR, STATUS_DESCRIPTOR, StartSpec,
};

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
