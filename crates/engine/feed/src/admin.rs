//! The proxy's own HTTP pages: Envoy's admin interface, Istio agent's health and metrics ports (reference 4.5).
//!
//! One set of pages, four doors: 15000 (everything, loopback only), 15020 (agent: health, merged metrics, drain), 15021 (readiness) and
//! 15090 (metrics). Served on the control runtime, never on a worker. Answers are made on demand; nothing is kept between requests.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::IdentityHandle;
use parking_lot::Mutex;
use proxy::Live;
use telemetry::{istio_metrics::IstioMetrics, stats::Query};
use tokio::{net::TcpListener, sync::Semaphore};
use wire_envoy::pb::core::Node;

use crate::Status;

mod application;
mod clusters;
mod listeners;
mod server;
#[cfg(test)]
mod tests;

pub use application::Application;

/// Connections that a door serves at a time.
const MAX_CONNECTIONS: usize = 256;

/// Which pages a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// 15000.
    Admin,
    /// 15020.
    Agent,
    /// 15021.
    Health,
    /// 15090.
    Metrics,
}

pub type SetLogLevel = Box<dyn Fn(&str) -> Option<()> + Send + Sync>;

/// What the pages show and what they can do.
pub struct Admin {
    pub live: Arc<Live>,
    pub status: Arc<Status>,
    pub metrics: IstioMetrics,
    pub node: Node,
    pub identity: Option<IdentityHandle>,
    pub started: Instant,
    pub version: String,
    /// Told to drain (`/drain_listeners`, `/drain`) or to stop (`/quitquitquit`).
    pub commands: tokio::sync::mpsc::Sender<Command>,
    /// Sets the log level; `None`: it is not a level.
    pub set_log_level: SetLogLevel,
    pub workers: usize,
    /// Update counters as they were last shown; start with none.
    pub shown_updates: Mutex<HashMap<String, u64>>,
    /// `/healthcheck/fail` was called.
    pub failing: AtomicBool,
    /// The application's own metrics, merged into 15020.
    pub application: Option<Application>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Drain,
    Quit,
}

type Page = Response<Full<Bytes>>;

impl Admin {
    /// Serves one port until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, door: Door) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "admin port: cannot accept");
                    continue;
                }
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| admin.answer(door, peer, request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "admin connection");
                }
                drop(slot);
            });
        }
    }

    async fn answer(
        &self,
        door: Door,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Page, std::convert::Infallible> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let changes = request.method() == Method::POST;
        if !may_ask(door, path, peer) {
            return Ok(text(
                StatusCode::FORBIDDEN,
                "only requests from localhost are allowed\n",
            ));
        }
        Ok(match (door, path) {
            (Door::Health | Door::Agent, "/healthz/ready") => self.ready(),
            (Door::Metrics, "/stats/prometheus" | "/metrics") => prometheus(self.proxy_metrics()),
            (Door::Agent, "/stats/prometheus" | "/metrics") => {
                prometheus(self.merged_metrics().await)
            }
            (Door::Agent, "/drain") if changes => self.command(Command::Drain).await,
            (Door::Agent, "/quitquitquit") if changes => self.command(Command::Quit).await,
            (Door::Agent, "/drain" | "/quitquitquit") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "POST is required\n")
            }
            (Door::Admin, _) => self.admin_page(path, query, changes).await,
            (Door::Health | Door::Agent | Door::Metrics, _) => {
                text(StatusCode::NOT_FOUND, "not found\n")
            }
        })
    }

    async fn admin_page(&self, path: &str, query: &str, changes: bool) -> Page {
        const POSTS: &[&str] = &[
            "/logging",
            "/reset_counters",
            "/drain_listeners",
            "/healthcheck/fail",
            "/healthcheck/ok",
            "/quitquitquit",
        ];
        if POSTS.contains(&path) && !changes {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method GET not allowed, POST required for {path}\n"),
            );
        }
        match path {
            "/ready" => self.live_page(),
            "/stats" => self.stats(query),
            "/stats/prometheus" => prometheus(self.proxy_metrics()),
            "/clusters" => clusters::page(&self.live, parameter(query, "format") == Some("json")),
            "/listeners" => listeners::page(&self.live, parameter(query, "format") == Some("json")),
            "/config_dump" => self.config_dump(query),
            "/certs" => self.certificates(),
            "/server_info" => self.server_info(),
            "/memory" => json(&memory()),
            "/logging" => self.logging(query),
            "/reset_counters" => {
                self.live.stats.reset_counters();
                text(StatusCode::OK, "OK\n")
            }
            "/drain_listeners" => self.command(Command::Drain).await,
            "/quitquitquit" => self.command(Command::Quit).await,
            "/healthcheck/fail" => self.set_failing(true),
            "/healthcheck/ok" => self.set_failing(false),
            "/" | "/help" => text(StatusCode::OK, HELP),
            _ => text(
                StatusCode::NOT_FOUND,
                format!("invalid path {path}; /help lists the pages\n"),
            ),
        }
    }

    /// Envoy's `/ready`.
    fn live_page(&self) -> Page {
        if self.is_ready() {
            text(StatusCode::OK, "LIVE\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "PRE_INITIALIZING\n")
        }
    }

    /// The agent's `/healthz/ready`: empty 200, else the reason.
    fn ready(&self) -> Page {
        if self.is_ready() {
            return text(StatusCode::OK, "");
        }
        let connection = self.status.connection();
        let reason = match (self.status.last_certificate_error(), connection.last_error) {
            (Some(error), _) => format!("no certificate yet: {error}\n"),
            (None, Some(error)) if !connection.connected => {
                format!("not connected to the control plane: {error}\n")
            }
            (None, _) => "waiting for the first configuration\n".to_owned(),
        };
        text(StatusCode::SERVICE_UNAVAILABLE, reason)
    }

    fn is_ready(&self) -> bool {
        self.status.is_ready()
            && self.live.has_opened(self.workers)
            && !self.failing.load(Ordering::Relaxed)
    }

    fn stats(&self, query: &str) -> Page {
        match Query::parse(query) {
            Ok(query) => {
                self.refresh();
                let body = self.live.stats.render(&query);
                if body.starts_with('{') {
                    with_type("application/json", body)
                } else {
                    text(StatusCode::OK, body)
                }
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }

    fn proxy_metrics(&self) -> String {
        self.refresh();
        let mut body = self.live.stats.prometheus();
        self.metrics.prometheus(&mut body);
        body
    }

    async fn merged_metrics(&self) -> String {
        let mut body = self.proxy_metrics();
        body.push_str(&self.status.prometheus(SystemTime::now()));
        if let Some(application) = &self.application {
            body.push_str(&application.metrics().await);
        }
        body
    }

    async fn command(&self, command: Command) -> Page {
        match self.commands.send(command).await {
            Ok(()) => text(StatusCode::OK, "OK\n"),
            Err(_) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the proxy is already stopping\n",
            ),
        }
    }

    fn set_failing(&self, failing: bool) -> Page {
        self.failing.store(failing, Ordering::Relaxed);
        text(StatusCode::OK, "OK\n")
    }

    fn config_dump(&self, query: &str) -> Page {
        let identity = self.identity.as_ref().and_then(IdentityHandle::load);
        match self.status.config_dump(
            &self.node,
            identity.as_deref(),
            query.split('&').any(|part| part.starts_with("include_eds")),
        ) {
            Ok(dump) => json(&dump),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn certificates(&self) -> Page {
        let Some(leaf) = self.status.certificate() else {
            return json(&serde_json::json!({"certificates": []}));
        };
        let left = leaf
            .not_after_time()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let names: Vec<_> = leaf
            .uri_sans
            .iter()
            .map(|uri| serde_json::json!({ "uri": uri }))
            .collect();
        let certificate = serde_json::json!({
            "path": "<inline>",
            "serial_number": leaf.serial,
            "subject_alt_names": names,
            "days_until_expiration": (left.as_secs() / 86_400).to_string(),
            "valid_from": rfc3339(leaf.not_before_time()),
            "expiration_time": rfc3339(leaf.not_after_time()),
        });
        json(&serde_json::json!({"certificates": [{"ca_cert": [], "cert_chain": [certificate]}]}))
    }

    fn server_info(&self) -> Page {
        let uptime = format!("{}s", self.started.elapsed().as_secs());
        let state = if self.is_ready() {
            "LIVE"
        } else {
            "PRE_INITIALIZING"
        };
        json(&serde_json::json!({
            "version": format!("tanbark-proxy/{}", self.version),
            "state": state,
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "node": {"id": self.node.id, "cluster": self.node.cluster},
        }))
    }

    fn logging(&self, query: &str) -> Page {
        let Some(level) = parameter(query, "level") else {
            return text(
                StatusCode::BAD_REQUEST,
                "usage: /logging?level=<trace|debug|info|warning|error|off>\n",
            );
        };
        match (self.set_log_level)(level) {
            Some(()) => text(StatusCode::OK, format!("active loggers:\n  all: {level}\n")),
            None => text(StatusCode::BAD_REQUEST, format!("unknown level {level}\n")),
        }
    }
}

/// The agent's port is open to all of the cluster, but only the pod itself may end or drain its proxy. Port 15000 is bound to loopback
/// unless the operator says otherwise.
fn may_ask(door: Door, path: &str, peer: SocketAddr) -> bool {
    let changes = door == Door::Agent && matches!(path, "/drain" | "/quitquitquit");
    !changes || peer.ip().to_canonical().is_loopback()
}

const HELP: &str = "\
admin commands are:
  /: this list
  /certs: the workload's certificate
  /clusters: upstream cluster status (?format=json)
  /config_dump: the configuration that is in force (?include_eds)
  /drain_listeners (POST): drain listeners
  /healthcheck/fail (POST): fail readiness
  /healthcheck/ok (POST): no longer fail readiness
  /listeners: listener addresses (?format=json)
  /logging (POST): set the log level (?level=)
  /memory: memory in use
  /quitquitquit (POST): exit
  /ready: readiness
  /reset_counters (POST): reset all counters
  /server_info: version, state, uptime
  /stats: statistics (?filter=regex&usedonly&format=json|prometheus)
  /stats/prometheus: statistics for Prometheus
";

struct MemoryBytes {
    resident: u64,
    data: u64,
}

/// From the kernel; zeros where it tells nothing.
fn memory_bytes() -> MemoryBytes {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let bytes = |key: &str| kib(key).unwrap_or(0) * 1024;
    MemoryBytes {
        resident: bytes("VmRSS:"),
        data: bytes("VmData:"),
    }
}

fn memory() -> serde_json::Value {
    let MemoryBytes { resident, data } = memory_bytes();
    serde_json::json!({
        "allocated": resident.to_string(),
        "heap_size": data.to_string(),
        "total_physical_bytes": resident.to_string(),
    })
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Page {
    let mut page = with_type("text/plain; charset=UTF-8", body);
    *page.status_mut() = status;
    page
}

fn prometheus(body: String) -> Page {
    with_type("text/plain; version=0.0.4; charset=utf-8", body)
}

fn json(value: &serde_json::Value) -> Page {
    with_type("application/json", format!("{value:#}\n"))
}

fn with_type(kind: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    page.headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    page.headers_mut().insert(
        "cache-control",
        http::HeaderValue::from_static("no-cache, max-age=0"),
    );
    page
}
