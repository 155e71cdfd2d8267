//! The children of the runtime's inner process, which is process 1 of its PID namespace and so
//! inherits every orphan.
//!
//! One thread waits for whatever ends. It looks first and reaps afterwards under the lock that
//! starting takes too, so a child that ends at once is never reaped before its owner is known, and
//! `std::process` never finds its failed child gone. Owners learn of an end through a channel; ends
//! without an owner are orphans and are only reaped.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::{Context, Error, Result};
use crate::launch::{Launch, launch};

/// Longest part of a helper's standard error that is shown.
const MAX_MESSAGE_BYTES: usize = 2_000;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By returning this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code as a shell and Kubernetes show it: 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// All children of this process.
#[derive(Debug, Default)]
pub struct Processes {
    owners: Mutex<HashMap<i32, oneshot::Sender<Exit>>>,
    started: Condvar,
}

impl Processes {
    /// Starts the reaping thread, which lives as long as the process.
    pub fn start() -> Result<Arc<Self>> {
        let processes = Arc::new(Self::default());
        let reaper = processes.clone();
        // task: reaps ended processes; lives as long as the process
        std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || reaper.reap())
            .context(|| "start the reaper thread".into())?;
        Ok(processes)
    }

    fn reap(&self) {
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                    self.reap_one(pid)
                }
                Err(Errno::ECHILD) => {
                    let mut owners = self.owners.lock();
                    if owners.is_empty() {
                        self.started.wait(&mut owners);
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn reap_one(&self, pid: Pid) {
        let mut owners = self.owners.lock();
        let exit = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
            _ => return,
        };
        if let Some(owner) = owners.remove(&pid.as_raw()) {
            let _ = owner.send(exit);
        }
    }

    /// Starts a program in new namespaces; its end arrives on the channel.
    pub fn launch(&self, what: &Launch<'_>) -> io::Result<(i32, oneshot::Receiver<Exit>)> {
        let mut owners = self.owners.lock();
        let pid = launch(what)?;
        let (sender, receiver) = oneshot::channel();
        owners.insert(pid, sender);
        self.started.notify_all();
        Ok((pid, receiver))
    }

    /// Runs a helper program to its end, in the calling thread's network namespace; returns its
    /// standard output.
    ///
    /// Blocks; not to be called on a runtime's worker thread.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, ended) = {
            let mut owners = self.owners.lock();
            let child = command.spawn().context(|| format!("start `{program}`"))?;
            let (sender, receiver) = oneshot::channel();
            owners.insert(i32::try_from(child.id()).unwrap_or(-1), sender);
            self.started.notify_all();
            (child, receiver)
        };
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (output, message) = std::thread::scope(|scope| {
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
            let errors = scope.spawn(move || read_all(stderr));
            (read_all(stdout), errors.join().unwrap_or_default())
        });
        match ended.blocking_recv() {
            Ok(Exit::Code(0)) => Ok(output),
            Ok(exit) => Err(Error::Program {
                program: format!("{program} {}", arguments.join(" ")),
                message: format!("exit code {}: {}", exit.code(), shorten(message.trim())),
            }),
            Err(_) => Err(Error::Peer("the reaper thread is gone".into())),
        }
    }
}

/// Sends a signal; a process that is gone already is no failure.
pub fn signal(pid: i32, signal: Signal) {
    if let Err(errno) = kill(Pid::from_raw(pid), signal)
        && errno != Errno::ESRCH
    {
        tracing::warn!(pid, %signal, %errno, "could not signal a process");
    }
}

fn read_all(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_BYTES).collect()
}
