//! Further processes in a running container: `exec`, exec probes, hooks.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::live::Pod;
use super::run::{launch_entry, read_status};
use crate::blocking::blocking;
use crate::container::spec::{EnterSpec, Entry};
use crate::context::Context;
use crate::error::{Context as _, Error, Result};
use crate::launch::pipe;
use crate::network::PodNetwork;
use crate::object;
use crate::probe;
use crate::processes::{Exit, signal};
use std::sync::Arc;

/// The three standard descriptors of a new process.
#[derive(Debug)]
pub struct Standard {
    /// Read by the process.
    pub input: OwnedFd,
    /// Written by it.
    pub output: OwnedFd,
    /// Written by it.
    pub errors: OwnedFd,
    /// Whether they are a terminal.
    pub terminal: bool,
}

/// A process that was started beside a container's own.
#[derive(Debug)]
pub struct Entered {
    /// Its helper, as seen from the runtime; killing it kills the process.
    pub pid: i32,
    /// Its end.
    pub ended: oneshot::Receiver<Exit>,
}

/// Starts a command in a running container, with the container's environment and rights.
///
/// # Errors
/// The container does not run, or the command cannot be started.
pub async fn enter(
    context: &Arc<Context>,
    pod: &Pod,
    container: &str,
    arguments: Vec<String>,
    standard: Standard,
) -> Result<Entered> {
    let process = pod.processes.lock().get(container).cloned();
    let process = process
        .ok_or_else(|| Error::Configuration(format!("container {container} is not running")))?;
    let mut command = process.command;
    command.arguments = arguments;
    if standard.terminal && !command.environment.iter().any(|(name, _)| name == "TERM") {
        // As container runtimes do it.
        command.environment.push(("TERM".into(), "xterm".into()));
    }
    let entry = Entry::Enter(EnterSpec {
        command,
        terminal: standard.terminal,
    });
    let worker = context.clone();
    let first = process.pid;
    let (pid, ended, status) = blocking(move || {
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", process.pid);
            File::open(&path).context(|| format!("open {path}"))
        };
        let namespaces = [open("net")?, open("uts")?, open("mnt")?, open("pid")?];
        let numbers: Vec<i32> = namespaces.iter().map(AsRawFd::as_raw_fd).collect();
        let standard = (
            standard.input.as_raw_fd(),
            standard.output.as_raw_fd(),
            standard.errors.as_raw_fd(),
        );
        launch_entry(&worker, &entry, 0, &numbers, standard)
    })
    .await?;
    let message = read_status(status)
        .await
        .unwrap_or_else(|error| error.to_string());
    if message.is_empty() {
        return Ok(Entered { pid, ended });
    }
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    // Nothing can be started among processes that the kernel is ending: the reason that it gives
    // would mislead.
    Err(Error::Configuration(match has_ended(first) {
        true => format!("container {container} is ending"),
        false => message,
    }))
}

/// Has a process ended, though it may not have been waited for yet?
fn has_ended(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the name, which may hold anything but ends with the last parenthesis.
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Ends a process when its owner gives up on it (a probe's timeout).
struct KillOnDrop(i32);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        signal(self.0, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Runs an exec action; its output as the error when the code is not 0.
pub async fn succeeds(
    context: &Arc<Context>,
    pod: &Pod,
    container: &str,
    action: &Value,
) -> Result<(), String> {
    let arguments: Vec<String> = object::list(action, "/command")
        .iter()
        .filter_map(Value::as_str)
        .map(String::from)
        .collect();
    let run = async {
        let (read, write) = pipe().context(|| "make a pipe".into())?;
        let null = File::open("/dev/null").context(|| "open /dev/null".into())?;
        let errors = write.try_clone().context(|| "make a pipe".into())?;
        let standard = Standard {
            input: null.into(),
            output: write,
            errors,
            terminal: false,
        };
        let entered = enter(context, pod, container, arguments, standard).await?;
        let guard = KillOnDrop(entered.pid);
        let output = drain(read).await;
        let exit = entered.ended.await.unwrap_or(Exit::Code(255));
        std::mem::forget(guard);
        Ok::<_, Error>((exit, output))
    };
    match run.await {
        Ok((Exit::Code(0), _)) => Ok(()),
        Ok((exit, output)) => Err(format!("exit code {}: {}", exit.code(), output.trim())),
        Err(error) => Err(error.to_string()),
    }
}

/// The first part of what is written; the rest is read and forgotten.
async fn drain(pipe: OwnedFd) -> String {
    use tokio::io::AsyncReadExt;
    let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut bytes = [0_u8; 4_096];
    while let Ok(length) = pipe.read(&mut bytes).await {
        if length == 0 {
            break;
        }
        if kept.len() < 4_096 {
            kept.extend_from_slice(bytes.get(..length).unwrap_or_default());
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Runs a lifecycle hook; a failure is an event, no more.
pub async fn hook(
    context: &Arc<Context>,
    pod: &Pod,
    network: &PodNetwork,
    container: &Value,
    hook: &Value,
) {
    let name = object::text(container, "/name");
    let result = match (hook.get("exec"), object::number(hook, "/sleep/seconds")) {
        (Some(action), _) => succeeds(context, pod, name, action).await,
        (None, Some(seconds)) => {
            tokio::time::sleep(Duration::from_secs(seconds.unsigned_abs())).await;
            Ok(())
        }
        (None, None) => probe::attempt(network, hook, container).await,
    };
    if let Err(message) = result {
        context.event(
            &pod.object,
            "Warning",
            "FailedLifecycleHook",
            &format!("container {name}: {message}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nobody_waited_for_has_ended_all_the_same() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(!has_ended(pid));
        drop(child.stdin.take());
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !has_ended(pid) {
            assert!(std::time::Instant::now() < end, "cat does not end");
            std::thread::yield_now();
        }
        child.wait().expect("waited for");
    }
}
