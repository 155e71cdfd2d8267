//! The inner process: process 1 of the runtime's namespaces, where everything happens.
//!
//! It dies with the outer one however that ends (the kernel sees to it), and with it all pods,
//! namespaces, mounts and rules. Here the parts are made and wired; each of them is a task that
//! looks at the store.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::blocking::blocking;
use crate::broker::Broker;
use crate::context::Context;
use crate::control::{
    control_labels, control_metadata, control_pod, control_service, definitions, injector,
};
use crate::dns::Dns;
use crate::error::{Context as _, Error, Result};
use crate::hooks::Hooks;
use crate::images::ImageMap;
use crate::names::{NODE_NAME, SYSTEM_NAMESPACE};
use crate::namespaces::Privilege;
use crate::network::{BRIDGE_ADDRESS, Network, find_programs};
use crate::object;
use crate::options::Options;
use crate::processes::Processes;
use crate::source::Source;
use crate::state::State;
use crate::store::kinds::{
    CUSTOM_RESOURCE_DEFINITIONS, DEPLOYMENTS, MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, NODES,
    SERVICE_ACCOUNTS, SERVICES,
};
use crate::store::{Refusal, Store};
use crate::token::Tokens;
use crate::{api, controllers, egress, kubelet, publish, services};
use inject::{Injection, inject};

/// Where the options are read.
pub const OPTIONS_DESCRIPTOR: RawFd = 3;
/// The broker's socket.
pub const BROKER_DESCRIPTOR: RawFd = 4;
/// How long pods get when the machine stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Memory for the folders of all pods; a container's own changes are counted apart.
const RUN_SIZE: &str = "size=256m,mode=700";

/// What the outer process hands over.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Handover {
    /// The options.
    pub options: Options,
    /// Whether users are told apart inside.
    pub root: bool,
}

/// The library entry of the hidden subcommand `machine-init`.
pub fn main(hooks: Hooks) -> ExitCode {
    // SAFETY: plain system call about this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: the outer process opened both for us and nothing else uses these numbers.
    let (options, socket) = unsafe {
        (
            File::from_raw_fd(OPTIONS_DESCRIPTOR),
            OwnedFd::from_raw_fd(BROKER_DESCRIPTOR),
        )
    };
    close_on_exec(&socket);
    let broker = match Broker::start(socket) {
        Ok(broker) => broker,
        Err(error) => {
            tracing::error!(%error, "the inner process cannot start");
            return ExitCode::FAILURE;
        }
    };
    match start(options, hooks, broker.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            broker.tell_failed(&error);
            ExitCode::FAILURE
        }
    }
}

fn close_on_exec(descriptor: &OwnedFd) {
    use std::os::fd::AsRawFd;
    // SAFETY: sets a flag of an open descriptor.
    unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
}

fn start(mut options: File, hooks: Hooks, broker: Arc<Broker>) -> Result<()> {
    let mut text = Vec::new();
    options
        .read_to_end(&mut text)
        .context(|| "read the options".into())?;
    drop(options);
    let handover: Handover = serde_json::from_slice(&text)
        .map_err(|error| Error::Peer(format!("the options: {error}")))?;
    raise_descriptor_limit();
    prepare_mounts(&handover.options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context(|| "start the runtime".into())?;
    let result = runtime.block_on(run(handover, hooks, broker));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Every connection, container and log is a descriptor.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is the one that both calls take.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(1 << 20);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn prepare_mounts(options: &Options) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context(|| "separate the mounts".into())?;
    let run = State::at(&options.state).run();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &run, Some("tmpfs"), flags, Some(RUN_SIZE))
        .context(|| format!("mount {}", run.display()))?;
    let flags = flags | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), flags, none) {
        tracing::debug!(%errno, "the machine's /proc is used");
    }
    Ok(())
}

async fn run(handover: Handover, hooks: Hooks, broker: Arc<Broker>) -> Result<()> {
    let Handover { options, root } = handover;
    let state = State::at(&options.state);
    let processes = Processes::start()?;
    let firewall = find_programs(&options.search_path)?;
    crate::logs::remove_old(&state.logs());
    let worker = processes.clone();
    let network = blocking(move || Network::create(worker, firewall)).await?;
    let store = Arc::new(Store::default());
    let injection = Injection {
        proxy: options.proxy,
        trust_domain: options.trust_domain.clone(),
    };
    store.set_mutator(Arc::new(move |kind, object, namespace| match kind.kind {
        "Pod" => inject(object, namespace, &injection).map_err(Refusal::Invalid),
        _ => Ok(()),
    }));
    let (images, images_receiver) = watch::channel(Arc::new(ImageMap::default()));
    let context = Arc::new(Context {
        privilege: if root {
            Privilege::Root
        } else {
            Privilege::User
        },
        tokens: Tokens::open(&state.token_key())?,
        store: store.clone(),
        images: images_receiver,
        pods: Default::default(),
        workers: Default::default(),
        problems: Default::default(),
        hooks: hooks.clone(),
        options,
        state,
        processes,
        network,
    });
    let listener = api::listen(&context.state.socket())?;
    bootstrap(&context)?;
    Dns::start(
        store.clone(),
        broker.clone(),
        context.options.resolvers.clone(),
    )
    .await?;
    let mut source = Source::new(
        context.options.sources.clone(),
        context.options.images.clone(),
        hooks.validate,
    );
    source.synchronise_images(&context, &images);
    source.synchronise(&context);
    let mut tasks = JoinSet::new();
    tasks.spawn(controllers::run(store.clone()));
    tasks.spawn(kubelet::run(context.clone()));
    let way_out = way_out(&context, &broker, &mut tasks).await?;
    tasks.spawn(services::run(context.clone(), way_out));
    tasks.spawn(publish::run(context.clone(), broker.clone()));
    tasks.spawn(api::serve(listener, context.clone()));
    tasks.spawn(source.follow(context.clone(), images));
    broker.tell_started();
    tracing::info!("the runtime is up");
    let _ = broker.stop().wait_for(|stop| *stop).await;
    tracing::info!("the runtime stops");
    // First whatever would start pods again.
    tasks.shutdown().await;
    let _ = tokio::time::timeout(STOP_TIMEOUT, context.stop_all()).await;
    context.state.clean();
    Ok(())
}

/// Opens the way out of the mesh, if it is wanted: the port that connections to the world are
/// brought to.
async fn way_out(
    context: &Context,
    broker: &Arc<Broker>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<u16>> {
    if !context.options.egress {
        return Ok(None);
    }
    let listener = egress::open().await?;
    let address = listener.local_addr();
    let port = address.context(|| "open the way out".into())?.port();
    tasks.spawn(egress::run(listener, broker.clone()));
    Ok(Some(port))
}

/// The objects that are there before any file is read.
fn bootstrap(context: &Context) -> Result<()> {
    let store = &context.store;
    let create = |kind, object: Value| {
        store
            .create(kind, object)
            .map(drop)
            .map_err(|refusal| Error::Peer(format!("a first object was refused: {refusal}")))
    };
    for name in ["default", "kube-system", SYSTEM_NAMESPACE] {
        create(&NAMESPACES, json!({"metadata": {"name": name}}))?;
    }
    create(&NODES, node())?;
    for definition in definitions() {
        create(&CUSTOM_RESOURCE_DEFINITIONS, definition)?;
    }
    if context.options.control_command.is_empty() {
        return Ok(());
    }
    create(&SERVICE_ACCOUNTS, json!({"metadata": control_metadata()}))?;
    create(&SERVICES, control_service())?;
    create(&MUTATING_WEBHOOK_CONFIGURATIONS, injector())?;
    create(
        &DEPLOYMENTS,
        json!({
            "metadata": control_metadata(),
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "istiod", "istio": "pilot"}}, "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": control_labels()}, "spec": control_pod(&context.options, &context.state)},
            },
        }),
    )
}

fn node() -> Value {
    let cores = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let condition = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": object::now()});
    json!({
        "metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": BRIDGE_ADDRESS.to_string()}, {"type": "Hostname", "address": NODE_NAME}],
            "capacity": {"cpu": cores, "pods": "16384"}, "conditions": [condition], "nodeInfo": {"kubeletVersion": "v1.33.0+tanbark", "operatingSystem": "linux"},
        },
    })
}
