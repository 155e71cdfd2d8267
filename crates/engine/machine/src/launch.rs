//! Starts a program as the first process of new namespaces.
//!
//! `std::process` cannot do that: a PID namespace holds only children that are cloned into it. So this is `clone` with the
//! namespace flags and without a shared address space (it acts as `fork`), then `execve`. Between
//! the two only system calls are made, no allocation, because the parent has other threads.
//!
//! The identity maps of a user namespace are written by the child itself, before `execve`:
//! capabilities survive it only when user 0 is mapped by then. A failure in the child comes back to
//! the caller through a pipe that `execve` closes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;

/// Numbers below this may be targets of [`Launch::descriptors`]; temporary copies are made above.
const FIRST_SPARE_DESCRIPTOR: RawFd = 64;

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// `CLONE_NEW…` flags.
    pub flags: libc::c_int,
    /// The file to execute.
    pub program: &'a CStr,
    /// Arguments, the first is the name.
    pub arguments: &'a [CString],
    /// `NAME=value` lines; nothing is inherited.
    pub environment: &'a [CString],
    /// Open descriptors as (here, number there); all others must be close-on-exec.
    pub descriptors: &'a [(RawFd, RawFd)],
    /// Files to write in the child before anything else (identity maps).
    pub writes: &'a [(CString, Vec<u8>)],
}

/// Starts the program and returns its process id as seen from here.
///
/// # Errors
/// What the kernel said to `clone`, to a write of [`Launch::writes`], or to `execve`; the child is
/// reaped then.
pub fn launch(what: &Launch<'_>) -> io::Result<i32> {
    let arguments = pointers(what.arguments);
    let environment = pointers(what.environment);
    let (report_read, report_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let flags = libc::c_long::from(what.flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork; the child below makes only
    // async-signal-safe calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: we are the only thread of the child; all memory was prepared before.
        unsafe { in_child(what, &arguments, &environment, report_write.as_raw_fd()) }
    }
    drop(report_write);
    let pid = i32::try_from(pid).map_err(|_| io::Error::other("process id out of range"))?;
    match read_report(report_read) {
        None => Ok(pid),
        Some(errno) => {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain(std::iter::once(std::ptr::null()))
        .collect()
}

/// The child's errno, or `None` when `execve` closed the pipe.
fn read_report(pipe: OwnedFd) -> Option<i32> {
    let mut file = std::fs::File::from(pipe);
    let mut bytes = [0_u8; 4];
    match std::io::Read::read_exact(&mut file, &mut bytes) {
        Ok(()) => Some(i32::from_ne_bytes(bytes)),
        Err(_) => None,
    }
}

unsafe fn in_child(
    what: &Launch<'_>,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    report: RawFd,
) -> ! {
    // SAFETY: plain system calls on memory that outlives them.
    unsafe {
        let report = libc::fcntl(report, libc::F_DUPFD_CLOEXEC, FIRST_SPARE_DESCRIPTOR);
        for (path, content) in what.writes {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file < 0 || libc::write(file, content.as_ptr().cast(), content.len()) < 0 {
                fail(report);
            }
            libc::close(file);
        }
        let mut spare = [(-1, -1); 16];
        for (slot, (from, to)) in spare.iter_mut().zip(what.descriptors) {
            let copy = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, FIRST_SPARE_DESCRIPTOR);
            if copy < 0 {
                fail(report);
            }
            *slot = (copy, *to);
        }
        for (copy, to) in spare {
            if copy >= 0 && libc::dup2(copy, to) < 0 {
                fail(report);
            }
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Rust ignores SIGPIPE; an ignored signal would stay so in the new program.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execve(
            what.program.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        fail(report)
    }
}

unsafe fn fail(report: RawFd) -> ! {
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: writes four bytes of a local and ends without running destructors of the copied
    // process.
    unsafe {
        libc::write(report, errno.to_ne_bytes().as_ptr().cast(), 4);
        libc::_exit(127)
    }
}

/// A pipe whose ends are close-on-exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// An anonymous file with this content, to be read from its start by another process.
pub fn memory_file(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    // SAFETY: the name is a C string; the result is checked before it is owned.
    let raw = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

/// C strings of texts; a text with a NUL byte is refused.
pub fn c_strings<I, S>(texts: I) -> io::Result<Vec<CString>>
where
    I: IntoIterator<Item = S>,
    S: Into<Vec<u8>>,
{
    texts
        .into_iter()
        .map(|text| CString::new(text).map_err(io::Error::other))
        .collect()
}
