//! One pod from its creation to its removal: network, volumes, containers, end.
//!
//! The order is Kubernetes': sidecars and init containers one after another, then all applications
//! together; at the end the other way round. Before an application is told to end, the pod has left
//! its Services' endpoints and its sidecar drains, so that nobody still sends to it. Everything
//! that a pod made goes with it.

mod differences;
pub mod environment;
pub mod exec;
pub mod live;
pub mod run;
pub mod status;
pub mod trust;
pub mod volumes;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::blocking::blocking;
use crate::context::Context;
use crate::error::{Context as _, Error, Result};
use crate::namespaces::Privilege;
use crate::object;
use crate::probe;
use crate::processes::signal;
use crate::rules::capture::{self, Exemption};
use inject::capture::Capture;
use inject::{ROOT_CERTIFICATE, STATUS_ANNOTATION, TEMPLATE_ANNOTATION};
use live::{Pod, Stop};
use run::{Finished, Stage};
use status::{Role, containers_of};
use volumes::{Problem, volumes_of, write_volumes_of};

/// How long those who send to a pod get to learn that it ends, before its application is told.
const PROPAGATION: Duration = Duration::from_millis(1_500);
/// What is left for a sidecar when its application has ended, whatever the pod's grace says.
const SIDECAR_GRACE: Duration = Duration::from_secs(6);

/// Runs a pod to its end; the caller removes the object. A panic on the way costs this pod: it is
/// told as an event, the pod's processes end, and what the pod had is taken away as at any other
/// end.
pub async fn run(context: Arc<Context>, pod: Arc<Pod>) {
    let (namespace, name) = pod.place();
    if AssertUnwindSafe(live(&context, &pod))
        .catch_unwind()
        .await
        .is_err()
    {
        let message =
            "the runtime failed to look after this pod, which ends; this is a bug of tanbark";
        context.event(&pod.object, "Warning", "Failed", message);
        let processes: Vec<i32> = pod
            .processes
            .lock()
            .values()
            .map(|process| process.pid)
            .collect();
        for pid in processes {
            signal(pid, Signal::SIGKILL);
        }
    }
    clean_up(&context, &pod).await;
    tracing::info!(namespace, name, "pod ended");
}

async fn live(context: &Arc<Context>, pod: &Arc<Pod>) {
    if let Err(error) = prepare(context, pod).await {
        context.event(
            &pod.object,
            "Warning",
            "FailedCreatePodSandBox",
            &error.to_string(),
        );
        pod.wait_reason(&context.store, "CreateContainerError", &error.to_string());
        let mut stop = pod.stop.subscribe();
        let _ = stop.wait_for(|stop| *stop != Stop::No).await;
    } else if *pod.stop.borrow() == Stop::No {
        run_containers(context, pod).await;
    }
}

async fn prepare(context: &Arc<Context>, pod: &Arc<Pod>) -> Result<()> {
    let annotations = object::annotations(&pod.object);
    let captured = annotations.contains_key(STATUS_ANNOTATION)
        && annotations
            .get(TEMPLATE_ANNOTATION)
            .is_some_and(|kind| kind == "sidecar");
    for difference in differences::differences(context, &pod.object) {
        context.event(&pod.object, "Warning", "Unsupported", &difference);
    }
    let exemption = match context.privilege {
        Privilege::Root => Exemption::OwnerAndMark,
        Privilege::User => Exemption::Mark,
    };
    let rules = match captured {
        true => Some(capture::rules(
            &Capture::parse(&annotations).map_err(Error::Configuration)?,
            context.network.firewall(),
            exemption,
        )),
        false => None,
    };
    let worker = context.clone();
    let network = blocking(move || worker.network.create_pod(rules.as_deref())).await?;
    *pod.network.lock() = Some(Arc::new(network));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&pod.folder)
        .context(|| format!("make {}", pod.folder.display()))?;
    pod.publish(&context.store);
    wait_for_volumes(context, pod).await
}

/// How long a source of a volume may be missing before that is a warning: it may come a moment
/// after its pod, and the root certificate comes when the control plane is up, which is no pod's
/// fault.
fn mount_patience(missing: &str) -> Duration {
    if missing.contains(ROOT_CERTIFICATE) {
        Duration::from_secs(30)
    } else {
        Duration::from_secs(1)
    }
}

async fn wait_for_volumes(context: &Arc<Context>, pod: &Arc<Pod>) -> Result<()> {
    let Some(network) = pod.network.lock().clone() else {
        return Ok(());
    };
    volumes_of(context, pod, &network).write_network_files()?;
    let mut version = context.store.version();
    let mut stop = pod.stop.subscribe();
    let begun = Instant::now();
    let (mut shown, mut told) = (String::new(), String::new());
    loop {
        version.mark_unchanged();
        let missing = match write_volumes_of(context, pod, &network) {
            Ok(()) => return Ok(()),
            Err(Problem::Failed(error)) => return Err(error),
            Err(Problem::Waiting(missing)) => missing.0,
        };
        if shown != missing {
            pod.wait_reason(&context.store, "ContainerCreating", &missing);
            shown.clone_from(&missing);
            // What was just written is no news.
            version.mark_unchanged();
        }
        let due = begun + mount_patience(&missing);
        if told != missing && Instant::now() >= due {
            context.event(&pod.object, "Warning", "FailedMount", &missing);
            told.clone_from(&missing);
            version.mark_unchanged();
        }
        tokio::select! {
            _ = version.changed() => {}
            () = tokio::time::sleep_until(due), if told != missing => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
        }
    }
}

/// The tasks of a pod's containers, with the channels that end them.
struct Running {
    applications: JoinSet<Finished>,
    sidecars: JoinSet<Finished>,
    end_applications: watch::Sender<Stage>,
    end_sidecars: watch::Sender<Stage>,
}

async fn run_containers(context: &Arc<Context>, pod: &Arc<Pod>) {
    let mut stop = pod.stop.subscribe();
    let mut running = Running {
        applications: JoinSet::new(),
        sidecars: JoinSet::new(),
        end_applications: watch::channel(Stage::Run).0,
        end_sidecars: watch::channel(Stage::Run).0,
    };
    let begun = tokio::select! {
        begun = begin(context, pod, &mut running) => begun,
        _ = stop.wait_for(|stop| *stop != Stop::No) => true,
    };
    if begun {
        tokio::select! {
            () = all_ended(&mut running.applications) => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => {}
        }
    }
    end(context, pod, running).await;
    let ending = *pod.stop.borrow() != Stop::No;
    if !ending {
        pod.publish(&context.store);
        let _ = stop.wait_for(|stop| *stop != Stop::No).await;
    }
}

/// Starts everything in order; false when an init container failed for good.
async fn begin(context: &Arc<Context>, pod: &Arc<Pod>, running: &mut Running) -> bool {
    let policy = object::text(&pod.object, "/spec/restartPolicy").to_string();
    let containers = containers_of(&pod.object);
    for (index, (role, container)) in containers.iter().enumerate() {
        let job = |policy: &str| run::Job {
            context: context.clone(),
            pod: pod.clone(),
            index,
            container: container.clone(),
            policy: policy.to_string(),
        };
        match role {
            Role::Sidecar => {
                running
                    .sidecars
                    .spawn(job("Always").run(running.end_sidecars.subscribe()));
                let mut changed = pod.changed.subscribe();
                let started = || {
                    pod.containers
                        .lock()
                        .get(index)
                        .is_some_and(|container| container.started)
                };
                while !started() {
                    if changed.changed().await.is_err() {
                        return false;
                    }
                }
            }
            Role::Init => {
                let policy = if policy == "Never" {
                    "Never"
                } else {
                    "OnFailure"
                };
                // A task, so that it is ended with the others when the pod is told to end
                // meanwhile.
                running
                    .applications
                    .spawn(job(policy).run(running.end_applications.subscribe()));
                let finished = running.applications.join_next().await;
                if !matches!(finished, Some(Ok(Finished::Succeeded))) {
                    return false;
                }
            }
            Role::Application => {
                running
                    .applications
                    .spawn(job(&policy).run(running.end_applications.subscribe()));
            }
        }
    }
    true
}

async fn all_ended(tasks: &mut JoinSet<Finished>) {
    while tasks.join_next().await.is_some() {}
}

async fn end(context: &Arc<Context>, pod: &Arc<Pod>, mut running: Running) {
    let stop = *pod.stop.borrow();
    let grace = match stop {
        Stop::No | Stop::Now => Duration::from_millis(1_500),
        Stop::Within(grace) => grace,
    };
    let deadline = Instant::now() + grace;
    pod.publish(&context.store);
    if matches!(stop, Stop::Within(_)) && !running.applications.is_empty() {
        let _ = timeout_at(deadline, prepare_to_end(context, pod, grace)).await;
    }
    running.end_applications.send_replace(Stage::Terminate);
    if stop == Stop::Now {
        running.end_sidecars.send_replace(Stage::Terminate);
    }
    if timeout_at(deadline, all_ended(&mut running.applications))
        .await
        .is_err()
    {
        running.end_applications.send_replace(Stage::Kill);
        all_ended(&mut running.applications).await;
    }
    running.end_sidecars.send_replace(Stage::Terminate);
    let patience = if stop == Stop::Now {
        Duration::from_millis(200)
    } else {
        SIDECAR_GRACE
    };
    if timeout(patience, all_ended(&mut running.sidecars))
        .await
        .is_err()
    {
        running.end_sidecars.send_replace(Stage::Kill);
        all_ended(&mut running.sidecars).await;
    }
}

/// The pod has left its Services; hooks run, the sidecar drains, and clients get time to follow.
async fn prepare_to_end(context: &Arc<Context>, pod: &Arc<Pod>, grace: Duration) {
    let Some(network) = pod.network.lock().clone() else {
        return;
    };
    let served = grace.min(PROPAGATION);
    let drain = async {
        if object::annotations(&pod.object).contains_key(STATUS_ANNOTATION) {
            let request = probe::Request {
                method: "POST",
                tls: false,
                target: std::net::Ipv4Addr::LOCALHOST,
                port: 15_000,
                path: "/drain_listeners?inboundonly&graceful&skip_exit",
                headers: &[],
            };
            if let Err(error) = timeout(Duration::from_secs(1), probe::http(&network, &request))
                .await
                .unwrap_or(Ok(0))
            {
                tracing::debug!(%error, "the sidecar did not take the request to drain");
            }
        }
        tokio::time::sleep(served).await;
    };
    let hooks = async {
        for (_, container) in containers_of(&pod.object) {
            if let Some(hook) = container.pointer("/lifecycle/preStop") {
                exec::hook(context, pod, &network, &container, hook).await;
            }
        }
    };
    tokio::join!(drain, hooks);
}

async fn clean_up(context: &Arc<Context>, pod: &Arc<Pod>) {
    let network = pod.network.lock().take();
    let folder = pod.folder.clone();
    let worker = context.clone();
    let _ = blocking(move || {
        if let Some(network) = network {
            worker.network.remove_pod(&network);
        }
        let _ = fs::remove_dir_all(folder);
        Ok(())
    })
    .await;
}
