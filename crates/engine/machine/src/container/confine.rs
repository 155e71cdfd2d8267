//! Giving up rights and becoming the command.
//!
//! The bounding set is emptied but for what the command keeps, `no_new_privs` is set, and only the
//! kept capabilities go on through `execve` (as ambient ones, so that a plain user has them too).
//! An application keeps none: it cannot change its network or leave the capture.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::spec::Command;
use crate::error::{Context, Error, Result};
use crate::launch::c_strings;

/// More than any kernel has; the loop ends at the first number that the kernel does not know.
const MAX_CAPABILITY: u8 = 63;

/// A program that was found, opened while its path could still be walked.
#[derive(Debug)]
pub struct Program {
    path: CString,
    file: Option<std::fs::File>,
}

/// Looks the command's name up in its own `PATH`.
pub fn find_program(command: &Command) -> Result<Program> {
    let name = command
        .arguments
        .first()
        .ok_or_else(|| Error::Configuration("the container has no command".into()))?;
    let search = command
        .environment
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or("", |(_, value)| value.as_str());
    let path = match name.contains('/') {
        true => Some(command.directory.join(name)),
        false => search
            .split(':')
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.is_file()),
    };
    let path: PathBuf = path.filter(|path| path.exists()).ok_or_else(|| {
        Error::Configuration(format!(
            "command `{name}` is not installed on this machine (searched: {search})"
        ))
    })?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&path)
        .ok();
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Configuration("a NUL byte in the command".into()))?;
    Ok(Program { path, file })
}

/// Gives up rights and executes; returns only on failure.
pub fn become_command(command: &Command, program: &Program) -> Result<Infallible> {
    let arguments = c_strings(command.arguments.iter().map(String::as_str))
        .context(|| "the command's arguments".into())?;
    let environment = command
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let environment = c_strings(environment).context(|| "the command's environment".into())?;
    give_up_rights(command)?;
    // After the change of user, so that the folder is entered with its rights.
    std::env::set_current_dir(&command.directory).context(|| {
        format!(
            "enter the working directory {}",
            command.directory.display()
        )
    })?;
    reset_signals()?;
    // Ours were refused for us; the command gets what it would get anywhere.
    stdx::huge_pages::allow();
    let errno = match nix::unistd::execve(&program.path, &arguments, &environment) {
        Ok(never) => match never {},
        Err(errno) => errno,
    };
    // A folder on the way may be closed to the command's user (a home), or hidden by a volume; the
    // program itself need not be.
    if let (nix::errno::Errno::EACCES | nix::errno::Errno::ENOENT, Some(file)) =
        (errno, &program.file)
    {
        let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
        // A script's interpreter opens it again by its number.
        // SAFETY: sets a flag of an open descriptor.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        if let Ok(never) = nix::unistd::execveat(file, c"", &arguments, &environment, flags) {
            match never {}
        }
        tracing::debug!(
            descriptor = file.as_raw_fd(),
            "the program cannot be executed by its descriptor either"
        );
    }
    Err(Error::system(
        format!("start `{}`", program.path.to_string_lossy()),
        errno.into(),
    ))
}

fn give_up_rights(command: &Command) -> Result<()> {
    for capability in 0..=MAX_CAPABILITY {
        if !command.capabilities.contains(&capability) {
            // SAFETY: acts on this process only. EINVAL past the last capability is expected.
            unsafe {
                libc::prctl(
                    libc::PR_CAPBSET_DROP,
                    libc::c_ulong::from(capability),
                    0,
                    0,
                    0,
                )
            };
        }
    }
    if let Some((user, group)) = command.identity {
        // SAFETY: acts on this process only.
        unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
        hand_over_output(user, group);
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        setgroups(&[group]).context(|| "give up groups".into())?;
        setresgid(group, group, group).context(|| "change the group".into())?;
        setresuid(user, user, user).context(|| "change the user".into())?;
    }
    keep_capabilities(&command.capabilities)?;
    // SAFETY: acts on this process only.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(Error::system(
            "forbid new privileges",
            std::io::Error::last_os_error(),
        )),
    }
}

/// Makes output the command's own, so that it may open `/dev/stdout` and `/dev/stderr` again, as in
/// a container engine.
fn hand_over_output(user: u32, group: u32) {
    for descriptor in [1, 2] {
        // SAFETY: plain system calls on descriptors that the launcher opened; the structure is
        // filled before it is read.
        unsafe {
            let mut status = std::mem::zeroed::<libc::stat>();
            let pipe = libc::fstat(descriptor, &raw mut status) == 0
                && status.st_mode & libc::S_IFMT == libc::S_IFIFO;
            if pipe {
                libc::fchown(descriptor, user, group);
            }
        }
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version 3 of the `capset` interface (capabilities(7)).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

fn keep_capabilities(kept: &[u8]) -> Result<()> {
    let bits = kept
        .iter()
        .fold(0_u64, |bits, capability| bits | (1_u64 << capability));
    let word = |bits: u64| {
        let bits = (bits & u64::from(u32::MAX)) as u32;
        CapabilityData {
            effective: bits,
            permitted: bits,
            inheritable: bits,
        }
    };
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let data = [word(bits), word(bits >> 32)];
    // SAFETY: both structures have the layout that version 3 asks for.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } != 0 {
        return Err(Error::system(
            "give up capabilities",
            std::io::Error::last_os_error(),
        ));
    }
    for capability in kept {
        // SAFETY: acts on this process only.
        let raised = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
                libc::c_ulong::from(*capability),
                0,
                0,
            )
        };
        if raised != 0 {
            return Err(Error::system(
                format!("keep capability {capability}"),
                std::io::Error::last_os_error(),
            ));
        }
    }
    Ok(())
}

fn reset_signals() -> Result<()> {
    // SAFETY: the default action is no function of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.context(|| "reset signals".into())?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .context(|| "reset signals".into())
}
