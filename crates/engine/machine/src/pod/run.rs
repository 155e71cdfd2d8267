//! One container: started, watched by its probes, started again by its pod's policy.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::environment::{Environment, Missing, add_own, expand, service_links};
use super::exec;
use super::live::{Pod, Process};
use super::status::{ContainerStatus, Doing, Ended};
use super::trust::{self, Own, Trust};
use super::volumes::volumes_of;
use crate::blocking::blocking;
use crate::container::spec::{
    Command, Entry, NAMESPACE_DESCRIPTOR, NET_ADMIN, NET_BIND_SERVICE, SPEC_DESCRIPTOR,
    STATUS_DESCRIPTOR, StartSpec,
};
use crate::context::Context;
use crate::control::control_pod;
use crate::error::{Context as _, Error, Result};
use crate::launch::{Launch, c_strings, memory_file, pipe};
use crate::logs::LogFile;
use crate::names::NOBODY;
use crate::namespaces::Privilege;
use crate::network::PodNetwork;
use crate::object;
use crate::probe::{self, Timing};
use crate::processes::{Exit, signal};
use inject::PROXY_ID;

/// Longest wait between two starts.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// A run of this length makes the next failure the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Until its first success a readiness or startup probe is tried this often at first, so that
/// nobody waits for a period to pass.
const EAGER_PERIOD: Duration = Duration::from_millis(50);

/// What the pod wants of its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Stage {
    /// Run.
    Run,
    /// SIGTERM, no more starts.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// How a container's last run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// With code 0.
    Succeeded,
    /// Otherwise, or never.
    Failed,
}

/// A container's task.
#[derive(Debug)]
pub struct Job {
    /// The machine.
    pub context: Arc<Context>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its place among the pod's containers.
    pub index: usize,
    /// The container.
    pub container: Value,
    /// `Always`, `OnFailure`, `Never`
    pub policy: String,
}

/// The wait before start number `failures + 1`: none, then 10 s, 20 s, … 5 min.
pub fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(10)
            .saturating_mul(1 << (more - 2).min(10))
            .min(MAX_BACKOFF),
    }
}

/// Whether a container is started again.
pub fn starts_again(policy: &str, code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// The pause before the next attempt of a probe that has not succeeded for so long: an eighth of
/// that, so that who takes long to start is not asked all the time, and who is quick is seen at
/// once; at most the probe's period.
fn eager_pause(waited: Duration, period: Duration) -> Duration {
    (waited / 8).max(EAGER_PERIOD).min(period)
}

/// Whether an application may be this user or group.
fn is_granted(number: u32) -> bool {
    number != 0 && number != PROXY_ID
}

struct Started {
    pid: i32,
    ended: oneshot::Receiver<Exit>,
    log: LogFile,
}

impl Job {
    /// Runs until the policy or the pod says that it is over.
    pub async fn run(self, mut stage: watch::Receiver<Stage>) -> Finished {
        let mut failures = 0;
        for difference in self.differences() {
            self.context
                .event(&self.pod.object, "Warning", "Unsupported", &difference);
        }
        loop {
            if *stage.borrow() != Stage::Run {
                return Finished::Failed;
            }
            let command = tokio::select! {
                command = self.command() => command,
                _ = stage.wait_for(|stage| *stage != Stage::Run) => return Finished::Failed,
            };
            let begun = Instant::now();
            let end = self.run_once(command, &mut stage).await;
            failures = if begun.elapsed() >= FORGIVEN_AFTER {
                1
            } else {
                failures + 1
            };
            let over = *stage.borrow() != Stage::Run || !starts_again(&self.policy, end.code);
            let finished = if end.code == 0 {
                Finished::Succeeded
            } else {
                Finished::Failed
            };
            if over {
                self.update(|container| {
                    container.ready = false;
                    container.doing = Doing::Ended(end);
                });
                return finished;
            }
            let wait = backoff(failures);
            self.tell_backoff(end, wait);
            tokio::select! {
                () = sleep(wait) => {}
                _ = stage.wait_for(|stage| *stage != Stage::Run) => return finished,
            }
            self.update(|container| container.restarts += 1);
        }
    }

    fn update(&self, change: impl FnOnce(&mut ContainerStatus)) {
        self.pod.update(&self.context.store, self.index, change);
    }

    fn name(&self) -> &str {
        object::text(&self.container, "/name")
    }

    fn tell_backoff(&self, end: Ended, wait: Duration) {
        let message = format!(
            "back-off {}s restarting container {} (exit code {}) {}",
            wait.as_secs(),
            self.name(),
            end.code,
            end.message
        );
        self.context
            .event(&self.pod.object, "Warning", "BackOff", message.trim());
        self.update(|container| {
            container.ready = false;
            container.started = false;
            container.doing = Doing::Waiting {
                reason: "CrashLoopBackOff".into(),
                message: message.trim().into(),
            };
            container.last = Some(end);
        });
    }

    /// The command line and environment, once the image is mapped and every source is there.
    async fn command(&self) -> Command {
        let mut images = self.context.images.clone();
        let mut version = self.context.store.version();
        let mut told = String::new();
        loop {
            images.mark_unchanged();
            version.mark_unchanged();
            let (reason, message) = match self.resolve() {
                Ok(command) => return command,
                Err(Unresolved::Image(message)) => ("ErrImagePull", message),
                Err(Unresolved::Missing(Missing(message))) => {
                    ("CreateContainerConfigError", message)
                }
            };
            if told != message {
                self.context.event(
                    &self.pod.object,
                    "Warning",
                    if reason == "ErrImagePull" {
                        "Failed"
                    } else {
                        reason
                    },
                    &message,
                );
                self.update(|container| {
                    container.doing = Doing::Waiting {
                        reason: reason.into(),
                        message: message.clone(),
                    }
                });
                told = message;
                version.mark_unchanged();
            }
            tokio::select! {
                _ = images.changed() => {}
                _ = version.changed() => {}
            }
        }
    }

    fn resolve(&self) -> Result<Command, Unresolved> {
        let texts = |pointer: &str| -> Vec<String> {
            object::list(&self.container, pointer)
                .iter()
                .filter_map(Value::as_str)
                .map(String::from)
                .collect()
        };
        let images = self.context.images.borrow().clone();
        let image = object::text(&self.container, "/image");
        let resolved = images
            .resolve(image, &texts("/command"), &texts("/args"))
            .map_err(Unresolved::Image)?;
        let trust = self.trust().unwrap_or(Trust::Application);
        let environment = self.environment(&images.search_path(), resolved.environment, trust)?;
        let directory = match object::text(&self.container, "/workingDir") {
            "" => PathBuf::from("/"),
            directory => PathBuf::from(directory),
        };
        Ok(Command {
            arguments: resolved
                .command
                .iter()
                .map(|argument| expand(argument, &environment))
                .collect(),
            environment: environment.into_iter().collect(),
            directory,
            identity: self.identity(trust),
            capabilities: self.capabilities(trust),
        })
    }

    /// The container's variables, over those of its image.
    fn environment(
        &self,
        search_path: &str,
        image: std::collections::BTreeMap<String, String>,
        trust: Trust,
    ) -> Result<Environment, Unresolved> {
        let address = self
            .pod
            .network
            .lock()
            .as_ref()
            .map_or(std::net::Ipv4Addr::LOCALHOST, |network| network.address);
        let mut environment = Environment::new();
        environment.insert("PATH".into(), search_path.into());
        environment.insert("HOME".into(), "/".into());
        environment.insert("HOSTNAME".into(), object::name(&self.pod.object).into());
        environment.extend(image);
        let own = environment.clone();
        if self
            .pod
            .object
            .pointer("/spec/enableServiceLinks")
            .and_then(Value::as_bool)
            .unwrap_or(true)
        {
            environment.extend(service_links(
                &self.context.store,
                object::namespace(&self.pod.object),
            ));
        }
        add_own(
            &mut environment,
            &self.pod.object,
            &self.container,
            address,
            &self.context.store,
        )
        .map_err(Unresolved::Missing)?;
        if trust != Trust::Application {
            let foreign = trust::clean(&mut environment, &own);
            if !foreign.is_empty() {
                tracing::warn!(
                    container = self.name(),
                    ?foreign,
                    "variables are not passed on to the runtime's own program"
                );
            }
            for (name, value) in &self.context.options.environment {
                if name.starts_with("RUST_") || name.starts_with("TANBARK_") {
                    environment
                        .entry(name.clone())
                        .or_insert_with(|| value.clone());
                }
            }
        }
        Ok(environment)
    }

    /// Whose program this is; an error says why a container with an image of ours is not trusted.
    fn trust(&self) -> Result<Trust, String> {
        let options = &self.context.options;
        let mut programs = vec![options.proxy_program.as_path()];
        programs.extend(options.envoy_program.as_deref());
        let own = Own {
            control: &control_pod(&self.context.options, &self.context.state),
            proxy: options.proxy,
            programs: &programs,
        };
        trust::of(&self.pod.object, &self.container, &own)
    }

    /// `runAsUser` or `runAsGroup` of the container, else of the pod.
    fn wanted(&self, name: &str) -> Option<u32> {
        let own = object::number(&self.container, &format!("/securityContext/{name}"));
        let pod = || object::number(&self.pod.object, &format!("/spec/securityContext/{name}"));
        own.or_else(pod)
            .and_then(|number| u32::try_from(number).ok())
    }

    /// Root without capabilities could still write what belongs to root, and what is the proxy's
    /// user or group is past the capture, so only our own programs may be these.
    fn identity(&self, trust: Trust) -> Option<(u32, u32)> {
        if self.context.privilege == Privilege::User {
            return None;
        }
        let number = |name: &str| self.wanted(name).filter(|number| is_granted(*number));
        Some(match trust {
            Trust::Control => (0, 0),
            Trust::Proxy => (PROXY_ID, PROXY_ID),
            Trust::Application => (
                number("runAsUser").unwrap_or(NOBODY),
                number("runAsGroup").unwrap_or(NOBODY),
            ),
        })
    }

    fn capabilities(&self, trust: Trust) -> Vec<u8> {
        if trust == Trust::Application {
            return Vec::new();
        }
        let added = object::list(&self.container, "/securityContext/capabilities/add");
        let known = [
            ("NET_ADMIN", NET_ADMIN),
            ("NET_BIND_SERVICE", NET_BIND_SERVICE),
        ];
        known
            .iter()
            .filter(|(name, _)| added.iter().any(|added| added == name))
            .map(|(_, number)| *number)
            .collect()
    }

    /// What of the container's wishes is not granted.
    fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let name = self.name();
        match self.trust() {
            Ok(Trust::Application) => {}
            Ok(_) => return found,
            Err(why) => found.push(format!(
                "container {name} has the image of one of the runtime's own programs, but {why}: it runs as an application, without their rights"
            )),
        }
        for field in ["runAsUser", "runAsGroup"] {
            let Some(number) = self.wanted(field) else {
                continue;
            };
            if self.context.privilege == Privilege::Root && !is_granted(number) {
                let whose = if number == PROXY_ID {
                    "the proxy's, past the capture"
                } else {
                    "the machine's root"
                };
                found.push(format!(
                    "container {name}: {field}: {number} is {whose}, and not granted on one machine; it is {NOBODY}"
                ));
            }
        }
        if !object::list(&self.container, "/securityContext/capabilities/add").is_empty() {
            found.push(format!(
                "container {name}: securityContext.capabilities.add is not granted on one machine"
            ));
        }
        found
    }

    async fn run_once(&self, command: Command, stage: &mut watch::Receiver<Stage>) -> Ended {
        let since = object::now();
        let started = match self.start(command.clone()).await {
            Ok(started) => started,
            Err(error) => {
                self.context
                    .event(&self.pod.object, "Warning", "Failed", &error.to_string());
                return Ended {
                    code: 128,
                    reason: "StartError".into(),
                    message: error.to_string(),
                    started: since,
                    finished: object::now(),
                };
            }
        };
        let name = self.name().to_string();
        self.pod.processes.lock().insert(
            name.clone(),
            Process {
                pid: started.pid,
                command,
            },
        );
        let (has_startup, has_readiness) = (
            self.container.get("startupProbe").is_some(),
            self.container.get("readinessProbe").is_some(),
        );
        self.update(|container| {
            container.doing = Doing::Running {
                since: since.clone(),
            };
            container.started = !has_startup;
            container.ready = !has_startup && !has_readiness;
        });
        self.context.event(
            &self.pod.object,
            "Normal",
            "Started",
            &format!("Started container {name}"),
        );
        let exit = self.watch(started, stage).await;
        self.pod.processes.lock().remove(&name);
        let reason = if exit.code() == 0 {
            "Completed"
        } else {
            "Error"
        };
        Ended {
            code: exit.code(),
            reason: reason.into(),
            message: String::new(),
            started: since,
            finished: object::now(),
        }
    }

    /// Waits for the end; passes the pod's wish and a failed liveness probe on.
    async fn watch(&self, started: Started, stage: &mut watch::Receiver<Stage>) -> Exit {
        let Started {
            pid,
            mut ended,
            log,
        } = started;
        let mut sent = Stage::Run;
        let mut probes = std::pin::pin!(self.probes());
        let mut probing = true;
        let mut kill_at: Option<Instant> = None;
        loop {
            let wanted = *stage.borrow();
            if wanted > sent {
                signal(
                    pid,
                    if wanted == Stage::Kill {
                        Signal::SIGKILL
                    } else {
                        Signal::SIGTERM
                    },
                );
                sent = wanted;
            }
            let kill = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                exit = &mut ended => return exit.unwrap_or(Exit::Code(255)),
                _ = stage.wait_for(|stage| *stage > sent) => {}
                message = &mut probes, if probing && sent == Stage::Run => {
                    probing = false;
                    log.line("stderr", 'F', format!("[tanbark] {message}; the container is stopped").as_bytes());
                    self.context.event(&self.pod.object, "Warning", "Unhealthy", &message);
                    signal(pid, Signal::SIGTERM);
                    let grace = object::number(&self.pod.object, "/spec/terminationGracePeriodSeconds").unwrap_or(30).max(0);
                    kill_at = Some(Instant::now() + Duration::from_secs(grace.unsigned_abs()));
                }
                () = kill => {
                    signal(pid, Signal::SIGKILL);
                    kill_at = None;
                }
            }
        }
    }

    /// Runs the probes; ends with the reason why the container must be stopped.
    async fn probes(&self) -> String {
        let Some(network) = self.pod.network.lock().clone() else {
            return std::future::pending().await;
        };
        if let Some(hook) = self.container.pointer("/lifecycle/postStart") {
            exec::hook(&self.context, &self.pod, &network, &self.container, hook).await;
        }
        if let Some(probe) = self.container.get("startupProbe") {
            let timing = Timing::of(probe);
            sleep(timing.initial_delay).await;
            let begun = Instant::now();
            let (mut failures_since, mut failures) = (begun, 0);
            while let Err(message) = self.attempt(&network, probe, timing).await {
                if failures_since.elapsed() >= timing.period {
                    failures_since = Instant::now();
                    failures += 1;
                }
                if failures >= timing.failures {
                    return format!("Startup probe failed: {message}");
                }
                sleep(eager_pause(begun.elapsed(), timing.period)).await;
            }
            let ready = self.container.get("readinessProbe").is_none();
            self.update(|container| {
                container.started = true;
                container.ready = ready;
            });
        }
        tokio::select! {
            () = self.readiness(&network) => std::future::pending().await,
            message = self.liveness(&network) => message,
        }
    }

    async fn readiness(&self, network: &PodNetwork) {
        let Some(probe) = self.container.get("readinessProbe") else {
            return std::future::pending().await;
        };
        let timing = Timing::of(probe);
        sleep(timing.initial_delay).await;
        let (mut successes, mut failures, mut ready) = (0, 0, false);
        let mut unready_since = Instant::now();
        let mut told = String::new();
        loop {
            match self.attempt(network, probe, timing).await {
                Ok(()) => (successes, failures) = (successes + 1, 0),
                Err(message) => {
                    (successes, failures) = (0, failures + 1);
                    // Not at once: who starts is not ready yet, and that is no news.
                    let late = ready || unready_since.elapsed() >= timing.period;
                    if late && told != message {
                        let what = format!("Readiness probe failed: {message}");
                        self.context
                            .event(&self.pod.object, "Warning", "Unhealthy", &what);
                        told = message;
                    }
                }
            }
            let now = if ready {
                failures < timing.failures
            } else {
                successes >= timing.successes
            };
            if now != ready {
                ready = now;
                unready_since = Instant::now();
                self.update(|container| container.ready = ready);
            }
            sleep(if ready {
                timing.period
            } else {
                eager_pause(unready_since.elapsed(), timing.period)
            })
            .await;
        }
    }

    async fn liveness(&self, network: &PodNetwork) -> String {
        let Some(probe) = self.container.get("livenessProbe") else {
            return std::future::pending().await;
        };
        let timing = Timing::of(probe);
        sleep(timing.initial_delay).await;
        let mut failures = 0;
        loop {
            match self.attempt(network, probe, timing).await {
                Ok(()) => failures = 0,
                Err(message) => {
                    failures += 1;
                    if failures >= timing.failures {
                        return format!("Liveness probe failed: {message}");
                    }
                }
            }
            sleep(timing.period).await;
        }
    }

    async fn attempt(
        &self,
        network: &PodNetwork,
        probe: &Value,
        timing: Timing,
    ) -> Result<(), String> {
        let attempt = async {
            match probe.get("exec") {
                Some(action) => exec::succeeds(&self.context, &self.pod, self.name(), action).await,
                None => probe::attempt(network, probe, &self.container).await,
            }
        };
        timeout(timing.timeout, attempt)
            .await
            .unwrap_or_else(|_| Err("timed out".into()))
    }

    async fn start(&self, command: Command) -> Result<Started> {
        let network = self
            .pod
            .network
            .lock()
            .clone()
            .ok_or_else(|| Error::Peer("the pod has no network".into()))?;
        let (namespace, pod_name) = (
            object::namespace(&self.pod.object),
            object::name(&self.pod.object),
        );
        let trust = self.trust().unwrap_or(Trust::Application);
        let volumes = volumes_of(&self.context, &self.pod, &network);
        let environment = command.environment.iter().cloned().collect();
        let mounts = volumes.mounts(&self.container, trust, &environment)?;
        let scratch = self.pod.folder.join("root").join(self.name());
        let spec = Entry::Start(StartSpec {
            command,
            hostname: pod_name.chars().take(63).collect(),
            scratch: scratch.clone(),
            mounts,
            hidden: vec![self.context.state.root().to_path_buf()],
            unprivileged: self.context.privilege == Privilege::User,
        });
        let logs = self.context.state.logs();
        let log = LogFile::begin(
            &crate::logs::path_of(&logs, namespace, pod_name, self.name()),
            &crate::logs::previous_path_of(&logs, namespace, pod_name, self.name()),
        )
        .context(|| format!("make the log of container {}", self.name()))?;
        let (out_read, out_write) = pipe().context(|| "make a pipe".into())?;
        let (error_read, error_write) = pipe().context(|| "make a pipe".into())?;
        let context = self.context.clone();
        let (pid, ended, status) = blocking(move || {
            launch_container(
                &context,
                &spec,
                &scratch,
                &network,
                &out_write,
                &error_write,
            )
        })
        .await?;
        // task: copies a container's standard output to its log; ends with the container
        tokio::spawn(log.clone().copy("stdout", out_read));
        // task: copies a container's standard error to its log; ends with the container
        tokio::spawn(log.clone().copy("stderr", error_read));
        let message = read_status(status)
            .await
            .unwrap_or_else(|error| error.to_string());
        if message.is_empty() {
            return Ok(Started { pid, ended, log });
        }
        signal(pid, Signal::SIGKILL);
        let _ = ended.await;
        log.line("stderr", 'F', format!("[tanbark] {message}").as_bytes());
        Err(Error::Configuration(message))
    }
}

#[derive(Debug)]
enum Unresolved {
    Image(String),
    Missing(Missing),
}

type Launched = (i32, oneshot::Receiver<Exit>, OwnedFd);

fn launch_container(
    context: &Context,
    spec: &Entry,
    scratch: &Path,
    network: &PodNetwork,
    out: &OwnedFd,
    errors: &OwnedFd,
) -> Result<Launched> {
    std::fs::create_dir_all(scratch).context(|| format!("make {}", scratch.display()))?;
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    let namespaces = [network.namespace.as_raw_fd()];
    let null = File::open("/dev/null").context(|| "open /dev/null".into())?;
    launch_entry(
        context,
        spec,
        flags,
        &namespaces,
        (null.as_raw_fd(), out.as_raw_fd(), errors.as_raw_fd()),
    )
}

/// Starts this program as `container-exec` with an entry; the third part is the read end of its
/// status pipe.
pub fn launch_entry(
    context: &Context,
    entry: &Entry,
    flags: i32,
    namespaces: &[i32],
    standard: (i32, i32, i32),
) -> Result<Launched> {
    let text = serde_json::to_vec(entry).map_err(|error| Error::Peer(error.to_string()))?;
    let spec = memory_file(c"container", &text).context(|| "make a memory file".into())?;
    let (status_read, status_write) = pipe().context(|| "make a pipe".into())?;
    let mut descriptors = vec![
        (standard.0, 0),
        (standard.1, 1),
        (standard.2, 2),
        (spec.as_raw_fd(), SPEC_DESCRIPTOR),
        (status_write.as_raw_fd(), STATUS_DESCRIPTOR),
    ];
    descriptors.extend(
        namespaces
            .iter()
            .zip(NAMESPACE_DESCRIPTOR..)
            .map(|(from, to)| (*from, to)),
    );
    let program = c_strings(["/proc/self/exe"]).context(|| "the program".into())?;
    let own = std::iter::once("tanbark".to_string())
        .chain(context.options.container_arguments.iter().cloned());
    let arguments = c_strings(own).context(|| "the arguments".into())?;
    let program = program
        .first()
        .ok_or_else(|| Error::Peer("no program".into()))?;
    let launch = Launch {
        flags,
        program,
        arguments: &arguments,
        environment: &[],
        descriptors: &descriptors,
        writes: &[],
    };
    let (pid, ended) = context
        .processes
        .launch(&launch)
        .context(|| "start a container".into())?;
    Ok((pid, ended, status_read))
}

/// What the container's first process says before it becomes the command; empty when all went well.
pub async fn read_status(pipe: OwnedFd) -> Result<String> {
    let mut pipe =
        pipe::Receiver::from_owned_fd(pipe).context(|| "read a container's status".into())?;
    let mut text = Vec::new();
    let read = pipe.read_to_end(&mut text);
    match timeout(Duration::from_secs(20), read).await {
        Ok(Ok(_)) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(Err(error)) => Err(Error::system("read a container's status", error)),
        Err(_) => Err(Error::system(
            "start a container",
            io::ErrorKind::TimedOut.into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_from_ten_seconds_to_five_minutes() {
        let seconds: Vec<u64> = (0..10)
            .map(|failures| backoff(failures).as_secs())
            .collect();
        assert_eq!(seconds, [0, 0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_probe_is_eager_at_first_and_never_slower_than_its_period() {
        let pause = |waited: u64| {
            let waited = Duration::from_millis(waited);
            eager_pause(waited, Duration::from_secs(2)).as_millis()
        };
        assert_eq!([0, 400, 4_000, 60_000].map(pause), [50, 50, 500, 2_000]);
    }

    #[test]
    fn policies_decide_about_another_start() {
        assert!(starts_again("Always", 0));
        assert!(starts_again("OnFailure", 1));
        assert!(!starts_again("OnFailure", 0));
        assert!(!starts_again("Never", 1));
    }
}
