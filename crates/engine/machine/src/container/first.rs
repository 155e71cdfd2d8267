//! The container's process 1: hands signals to the command, reaps everything, and ends as the
//! command ends.
//!
//! A command that runs as process 1 itself would ignore SIGTERM unless it handles it; under this
//! one it acts as in a shell.

use std::process::ExitCode;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, Result};

/// Blocks all signals, so that none is lost between starting the command and waiting.
pub fn block_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None)
        .context(|| "block signals".into())
}

/// Waits for the command; its code, or 128 + the signal that ended it.
pub fn wait(command: Pid) -> ExitCode {
    let all = SigSet::all();
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(command) {
                    return ExitCode::from(code);
                }
            }
            Ok(signal) => {
                let _ = kill(command, signal);
            }
            Err(_) => {}
        }
    }
}

fn reap(command: Pid) -> Option<u8> {
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => continue,
        };
        if pid == command {
            return Some(u8::try_from(code & 0xff).unwrap_or(255));
        }
    }
}
