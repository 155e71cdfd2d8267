//! `tanbark-proxy sidecar` and `gateway`: worker threads for traffic, this thread for everything
//! else.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use feed::{
    Environment, Feed, Role, Settings,
    admin::{Admin, Application, Command, Door, Loggers},
    bootstrap::{self, Static, Wire as Bootstrap},
    spans::Exporter,
    statistics::Shown,
};
use proxy::{
    Live, Worker,
    peers::Own,
    report::{
        log_files::LogFiles,
        reports::{ExportedSpan, Node, Reports, Shared},
    },
};
use stdx::{Drain, DrainTrigger, SystemClock, SystemRng, drain};
use telemetry::{
    istio_metrics::{self, IstioMetrics},
    stats::{self, Store, WorkerSlot},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{logging::Levels, signals::Terminate};

/// How long connections of a listener that goes are given to finish. Setting: `drainDuration` of
/// ProxyConfig.
const DRAIN: Duration = Duration::from_secs(45);
/// How long connections are given after SIGTERM. Setting: `TERMINATION_DRAIN_DURATION_SECONDS`,
/// `terminationDrainDuration` of ProxyConfig.
const TERMINATION_DRAIN: Duration = Duration::from_secs(5);
/// After SIGTERM new connections are still taken for this long, because others learn only gradually
/// that we leave.
const LAME_DUCK: Duration = Duration::from_millis(1500);
/// For what is queued for log files when the process ends.
const LOG_FLUSH: Duration = Duration::from_secs(1);
/// Series of Istio's metrics that nothing touched for so long (at most twice) are forgotten.
const SILENT_SERIES: Duration = Duration::from_secs(3600);
/// Spans that may wait for their collector.
const WAITING_SPANS: usize = 4096;

/// How to serve; what is not said here the environment or the bootstrap says.
#[derive(Debug, clap::Args)]
pub struct DataPlane {
    /// An Envoy bootstrap in YAML or JSON, instead of the environment that an injector sets.
    #[arg(short = 'c', long = "config")]
    pub bootstrap: Option<PathBuf>,
    /// Worker threads; one per core unless said here or, without a bootstrap, by the environment.
    #[arg(long)]
    pub concurrency: Option<NonZeroUsize>,
    /// How long connections of replaced listeners may go on, where a command line says it.
    #[arg(skip)]
    pub drain_time: Option<Duration>,
    /// DNS domain of the workload, instead of that of the environment.
    #[arg(skip)]
    pub domain: Option<String>,
}

/// What was read before anything starts.
struct Plan {
    /// SO_MARK of our connections to upstreams.
    mark: Option<u32>,
    settings: Settings,
    fixed: Static,
    doors: Vec<(SocketAddr, Door)>,
    workers: usize,
    traffic: proxy::Settings,
    termination_drain: Duration,
    application: Option<Application>,
    shown: Shown,
    /// For `/config_dump`.
    bootstrap: Bootstrap,
}

pub fn run(role: Role, options: &DataPlane, levels: Levels) -> anyhow::Result<ExitCode> {
    let mut plan = match &options.bootstrap {
        None => from_environment(role, options.domain.as_deref())?,
        Some(file) => from_file(file)?,
    };
    if let Some(workers) = options.concurrency {
        plan.workers = workers.get();
    }
    if let Some(drain_time) = options.drain_time {
        plan.traffic.drain_time = drain_time;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(plan, levels))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a bootstrap as [`run`] would, and ends (Envoy's `--mode validate`).
pub fn validate(options: &DataPlane) -> anyhow::Result<ExitCode> {
    let Some(file) = &options.bootstrap else {
        return Ok(ExitCode::SUCCESS);
    };
    from_file(file)?;
    println!("configuration '{}' OK", file.display());
    Ok(ExitCode::SUCCESS)
}

fn from_environment(role: Role, domain: Option<&str>) -> anyhow::Result<Plan> {
    let domain = domain.map(|domain| ("DNS_DOMAIN".to_owned(), domain.to_owned()));
    let environment = Environment::new(role, env::vars().chain(domain))?;
    let port = |key: &str, default: u16| {
        environment
            .proxy_number(key)
            .and_then(|n| u16::try_from(n).ok())
            .unwrap_or(default)
    };
    let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    if environment.variable("ISTIO_META_DNS_CAPTURE") == Some("true") {
        tracing::warn!(
            "ISTIO_META_DNS_CAPTURE is not supported: this proxy answers no DNS; a pod whose port 53 \
             is redirected to 15053 has no names"
        );
    }
    let settings = environment.settings()?;
    let bootstrap = Bootstrap {
        node: Some(settings.node.clone()),
        ..Bootstrap::default()
    };
    Ok(Plan {
        bootstrap,
        mark: environment.mark()?,
        settings,
        fixed: Static::default(),
        doors: vec![
            (
                (Ipv4Addr::LOCALHOST, port("proxyAdminPort", 15000)).into(),
                Door::Admin,
            ),
            (everywhere(port("statusPort", 15020)), Door::Agent),
            (everywhere(15021), Door::Health),
            (everywhere(15090), Door::Metrics),
        ],
        workers: environment
            .proxy_number("concurrency")
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or_else(cores),
        traffic: proxy::Settings {
            drain_time: environment.proxy_duration("drainDuration").unwrap_or(DRAIN),
            ..proxy::Settings::default()
        },
        termination_drain: environment
            .proxy_duration("terminationDrainDuration")
            .unwrap_or(TERMINATION_DRAIN),
        application: application(&environment),
        shown: environment.shown(),
    })
}

fn from_file(file: &Path) -> anyhow::Result<Plan> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let environment = xds_environment();
    let read = bootstrap::read(&text, environment).with_context(|| file.display().to_string())?;
    Ok(Plan {
        bootstrap: read.wire,
        mark: None,
        settings: read.settings,
        fixed: read.fixed,
        doors: read
            .bootstrap
            .admin
            .map(|address| (address, Door::Admin))
            .into_iter()
            .collect(),
        workers: cores(),
        traffic: proxy::Settings {
            drain_time: DRAIN,
            default_tracer: read.bootstrap.tracing,
            ..proxy::Settings::default()
        },
        termination_drain: TERMINATION_DRAIN,
        application: None,
        shown: Shown::of_bootstrap(&read.bootstrap.stats),
    })
}

/// What log formats of a bootstrap file may print.
fn xds_environment() -> feed::LogEnvironment {
    feed::LogEnvironment {
        hostname: fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        variables: env::vars().collect(),
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The pod's `prometheus.io` annotations, as the injector passes them on
/// (`ISTIO_PROMETHEUS_ANNOTATIONS`).
fn application(environment: &Environment) -> Option<Application> {
    let text = environment.variable("ISTIO_PROMETHEUS_ANNOTATIONS")?;
    let fields: serde_json::Value = serde_json::from_str(text).ok()?;
    let field = |key: &str| {
        fields
            .get(key)
            .and_then(|v| v.as_str())
            .filter(|text| !text.is_empty())
    };
    if field("scrape") != Some("true") {
        return None;
    }
    let port = field("port").unwrap_or("80").parse().ok()?;
    Some(Application {
        port,
        path: field("path").unwrap_or("/metrics").to_owned(),
    })
}

/// Everything that runs, and how to end it.
struct Running {
    admin: Arc<Admin>,
    commanded: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    drain_workers: DrainTrigger,
    /// Ends feed and exporter.
    stop: DrainTrigger,
    exporter: tokio::task::JoinHandle<()>,
    _tasks: JoinSet<()>,
}

async fn serve(plan: Plan, levels: Levels) -> anyhow::Result<()> {
    let mut signals = Terminate::new()?;
    let termination_drain = plan.termination_drain;
    let mut running = start(plan, levels).await?;
    let mut lame_duck = LAME_DUCK.min(termination_drain / 2);
    loop {
        tokio::select! {
            () = signals.wait() => break,
            command = running.commanded.recv() => match command {
                Some(Command::Drain) => {
                    running.drain_workers.start();
                    lame_duck = Duration::ZERO;
                }
                Some(Command::Quit) | None => break,
            },
        }
    }
    tracing::info!("ending: connections drain");
    running.admin.failing.store(true, Ordering::Relaxed);
    let deadline = tokio::time::Instant::now() + termination_drain;
    tokio::time::sleep(lame_duck).await;
    running.drain_workers.start();
    let ended = tokio::time::timeout_at(deadline, joined(running.workers)?).await;
    if ended.is_err() {
        tracing::info!("connections that have not ended in time are closed");
    }
    running.stop.start();
    running.shared.files.flush(LOG_FLUSH);
    if running.exporter.await.is_err() {
        tracing::error!("the span exporter ended by panic");
    }
    Ok(())
}

async fn start(plan: Plan, levels: Levels) -> anyhow::Result<Running> {
    let node = bootstrap::node(&plan.settings.node)?;
    let live = Live::new(
        Arc::new(SystemClock),
        Arc::new(SystemRng),
        store(&plan),
        Own::new(&node),
    );
    let live = Arc::new(live.with_mark(plan.mark));
    let metrics = IstioMetrics::new(istio_metrics::Options {
        version: env::var("ISTIO_META_ISTIO_VERSION").unwrap_or_default(),
        buckets: plan.shown.buckets.clone(),
        ..istio_metrics::Options::default()
    });
    let (spans, exported) = mpsc::channel(WAITING_SPANS);
    let shared = Arc::new(shared(&live, metrics.clone(), spans, node));
    let identity = plan
        .settings
        .certificates
        .is_some()
        .then(|| live.tls.identity.clone());
    let bootstrap = plan.bootstrap;
    let feed = Feed::new(plan.settings, plan.fixed, live.clone());
    let (commands, commanded) = mpsc::channel(4);
    let admin = Arc::new(Admin {
        live: live.clone(),
        status: feed.status(),
        metrics,
        bootstrap,
        identity,
        started: Instant::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commands,
        loggers: Loggers::new(levels.directives()).into(),
        set_log_level: Box::new(move |directives| levels.set(directives)),
        workers: plan.workers,
        shown_updates: Default::default(),
        failing: AtomicBool::new(false),
        application: plan.application,
    });
    let mut tasks = JoinSet::new();
    for (address, door) in plan.doors {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("port {address}"))?;
        tasks.spawn(admin.clone().serve(listener, door));
    }
    tasks.spawn(admin.clone().keep_house(SILENT_SERIES));
    let (stop, stopping) = drain::channel();
    tasks.spawn(feed.run(stopping.clone()));
    // task: exports spans; ends after the feed, within the time for the last spans
    let exporter = tokio::spawn(Exporter::new(live.clone(), exported).run(stopping));
    let (drain_workers, worker_drain) = drain::channel();
    let workers = start_workers(plan.workers, &live, &shared, &plan.traffic, &worker_drain)?;
    Ok(Running {
        admin,
        commanded,
        shared,
        workers,
        drain_workers,
        stop,
        exporter,
        _tasks: tasks,
    })
}

/// What all workers report to.
fn shared(
    live: &Live,
    metrics: IstioMetrics,
    spans: mpsc::Sender<ExportedSpan>,
    node: Node,
) -> Shared {
    Shared {
        files: LogFiles::new(live.stats.counter("access_log_file.lines_dropped")),
        metrics,
        rng: live.rng.clone(),
        spans,
        spans_dropped: live.stats.counter("tracing.spans_dropped"),
        node,
        variables: env::vars().collect(),
    }
}

fn store(plan: &Plan) -> Store {
    for problem in &plan.shown.problems {
        tracing::warn!(problem, "which statistics are shown");
    }
    Store::new(stats::Options {
        workers: plan.workers,
        matcher: plan.shown.matcher.clone(),
        tags: plan.shown.tags.clone(),
        buckets: plan.shown.buckets.clone(),
        ..stats::Options::default()
    })
}

/// Resolves when all workers have ended. Those that have not end with the process.
fn joined(workers: Vec<JoinHandle<()>>) -> anyhow::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    // task: waits for the workers' ends; ends with the last one or the process
    thread::Builder::new().name("join".into()).spawn(move || {
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a worker ended by panic");
            }
        }
        // Nobody waits any more when the deadline has passed.
        let _ = sender.send(());
    })?;
    Ok(receiver)
}

fn start_workers(
    count: usize,
    live: &Arc<Live>,
    shared: &Arc<Shared>,
    settings: &proxy::Settings,
    drain: &Drain,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    (0..count)
        .map(|number| {
            let reporter = Arc::new(Reports::new(shared.clone(), live.own.peer.clone()));
            let worker = Worker::new(live.clone(), reporter, settings.clone());
            let drain = drain.clone();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            // task: one worker with its runtime; ends when it has drained, or with the process
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _slot = WorkerSlot::claim();
                    runtime.block_on(proxy::listen::run(worker, drain));
                })?;
            Ok(thread)
        })
        .collect()
}
