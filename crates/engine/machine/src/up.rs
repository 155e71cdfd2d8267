//! The outer process: starts the inner one in its namespaces, opens the machine's sockets for it,
//! and ends it.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::broker::{self, Host, Progress};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::init::{BROKER_DESCRIPTOR, Handover, OPTIONS_DESCRIPTOR};
use crate::launch::{Launch, c_strings, launch, memory_file};
use crate::namespaces::{Privilege, Settings, explain, flags, identity_maps, privilege};
use crate::network::find_programs;
use crate::options::Options;
use crate::state::{Lock, State};

/// How long the inner process gets to stop its pods.
const STOP_TIMEOUT: Duration = Duration::from_millis(4_500);
/// Where Debian keeps `nft` and `ip`, which a plain user's `PATH` lacks.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// A runtime that was started here. Dropping it kills the runtime.
#[derive(Debug)]
pub struct Handle {
    state: State,
    host: Host,
    pid: i32,
    ended: watch::Receiver<bool>,
    _lock: Lock,
}

/// Starts a runtime. It is not up yet: see [`Handle::ready`].
///
/// # Errors
/// Another runtime holds the state folder, a program is missing, the options cannot be used, or the
/// kernel refuses namespaces.
pub async fn up(mut options: Options) -> Result<Handle> {
    options.search_path = format!("{}:{SYSTEM_PATH}", options.search_path);
    find_programs(&options.search_path)?;
    let state = State::at(&options.state);
    state.prepare()?;
    options.state = options
        .state
        .canonicalize()
        .context(|| format!("find {}", options.state.display()))?;
    // Links stay, so that one that leads elsewhere later is followed.
    options.sources = options
        .sources
        .iter()
        .map(|path| absolute(path))
        .collect::<Result<_>>()?;
    options.images = options.images.as_deref().map(absolute).transpose()?;
    // It is mounted into the control plane's container.
    if let Some(file) = &mut options.mesh_config {
        *file = file
            .canonicalize()
            .context(|| format!("find {}", file.display()))?;
    }
    let state = State::at(&options.state);
    let lock = state.lock()?;
    state.clean();
    let (outer, inner) = broker::pair()?;
    let host = Host::serve(outer)?;
    let (tell, ended) = watch::channel(false);
    let (started, pid) = tokio::sync::oneshot::channel();
    // The kernel ends the inner process with the thread that started it, so this thread stays.
    // task: waits for the inner process; ends with it
    std::thread::Builder::new()
        .name("inner".into())
        .spawn(move || {
            let result = start_inner(&options, inner);
            let pid = *result.as_ref().unwrap_or(&0);
            if started.send(result).is_ok() && pid > 0 {
                let _ = waitpid(Pid::from_raw(pid), None);
            }
            let _ = tell.send(true);
        })
        .context(|| "start a thread".into())?;
    let pid = pid
        .await
        .map_err(|_| Error::Peer("the inner process was not started".into()))??;
    Ok(Handle {
        state,
        host,
        pid,
        ended,
        _lock: lock,
    })
}

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).context(|| format!("find {}", path.display()))
}

fn start_inner(options: &Options, socket: std::os::fd::OwnedFd) -> Result<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (user, group) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let privilege = privilege(user, &status, &map);
    let handover = Handover {
        options: options.clone(),
        root: privilege == Privilege::Root,
    };
    let text = serde_json::to_vec(&handover).map_err(|error| Error::Peer(error.to_string()))?;
    let file = memory_file(c"options", &text).context(|| "make a memory file".into())?;
    let program = c_strings([options.program.as_os_str().as_encoded_bytes()])
        .context(|| "the program's path".into())?;
    let own = std::iter::once("tanbark".to_string()).chain(options.init_arguments.iter().cloned());
    let arguments = c_strings(own).context(|| "the program's arguments".into())?;
    let given = options
        .environment
        .iter()
        .filter(|(name, _)| name != "PATH")
        .map(|(name, value)| format!("{name}={value}"));
    let environment = given.chain([format!("PATH={}", options.search_path)]);
    let environment = c_strings(environment).context(|| "the environment".into())?;
    let descriptors = [
        (0, 0),
        (1, 1),
        (2, 2),
        (file.as_raw_fd(), OPTIONS_DESCRIPTOR),
        (socket.as_raw_fd(), BROKER_DESCRIPTOR),
    ];
    let what = Launch {
        flags: flags(privilege),
        program: program
            .first()
            .ok_or_else(|| Error::Peer("no program".into()))?,
        arguments: &arguments,
        environment: &environment,
        descriptors: &descriptors,
        writes: &identity_maps(privilege, user, group),
    };
    launch(&what).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSPC | libc::EACCES | libc::EINVAL | libc::ENOSYS) => {
            explain(&error, &Settings::read())
        }
        _ => Error::system("start the inner process", error),
    })
}

impl Handle {
    /// Waits until the local API answers.
    ///
    /// # Errors
    /// Why the inner process could not start.
    pub async fn ready(&self) -> Result<()> {
        let mut progress = self.host.progress();
        let progress = progress
            .wait_for(|progress| *progress != Progress::Starting)
            .await;
        match progress.map(|progress| progress.clone()) {
            Ok(Progress::Started) => Ok(()),
            Ok(Progress::Failed(message)) => Err(Error::Configuration(message)),
            _ => Err(Error::Peer(
                "the inner process ended while starting; see its messages above".into(),
            )),
        }
    }

    /// Waits until every pod is ready or over; the last summary, also when the time is up.
    pub async fn settled(&self, patience: Duration) -> Result<serde_json::Value> {
        let end = Instant::now() + patience;
        loop {
            let summary = self.client().summary().await?;
            let none = summary
                .pointer("/pods/total")
                .and_then(serde_json::Value::as_u64)
                == Some(0);
            let settled =
                summary.get("settled").and_then(serde_json::Value::as_bool) == Some(true) && !none;
            if settled || Instant::now() >= end {
                return Ok(summary);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// A client of the local API.
    pub fn client(&self) -> Client {
        Client::new(self.state.socket())
    }

    /// What `up` prints: see [`crate::api::summary`].
    pub async fn summary(&self) -> Result<serde_json::Value> {
        self.client().summary().await
    }

    /// Events of the machine (`Event` objects, Warnings first of all) from now on.
    pub async fn events(&self) -> Result<crate::client::Watch> {
        self.client()
            .watch(&crate::store::kinds::EVENTS, None, "")
            .await
    }

    /// The state folder.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Becomes true when the inner process has ended.
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Ends all pods and the runtime within five seconds.
    pub async fn shutdown(mut self) {
        self.host.stop();
        if timeout(STOP_TIMEOUT, self.ended.wait_for(|ended| *ended))
            .await
            .is_err()
        {
            tracing::warn!("the runtime did not stop in time and is killed");
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            let _ = timeout(Duration::from_secs(1), self.ended.wait_for(|ended| *ended)).await;
        }
        self.state.clean();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !*self.ended.borrow() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// Stops the runtime of a state folder from another process, and cleans up after one that was
/// killed.
///
/// # Errors
/// [`Error::NotRunning`] when there is none (the folder is cleaned all the same).
pub async fn down(state: &Path) -> Result<()> {
    let state = State::at(state);
    let Some(pid) = state.holder() else {
        state.clean();
        return Err(Error::NotRunning {
            state: state.root().to_path_buf(),
        });
    };
    for (signal, patience) in [
        (Signal::SIGTERM, Duration::from_secs(6)),
        (Signal::SIGKILL, Duration::from_secs(3)),
    ] {
        // Zero while the other one has not written its number yet: it would mean this process's own
        // group.
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if state.holder().is_none() {
                state.clean();
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Error::Peer(format!("process {pid} does not end")))
}
