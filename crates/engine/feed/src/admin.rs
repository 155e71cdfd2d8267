//! The proxy's own HTTP pages: Envoy's admin interface, Istio agent's health and metrics ports
//! (reference 4.5).
//!
//! One set of pages, four doors: 15000 (everything, loopback only), 15020 (agent: health, merged
//! metrics, drain), 15021 (readiness) and 15090 (metrics). Served on the control runtime, never on
//! a worker. Answers are made on demand; nothing is kept between requests.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::{CertificateChain, IdentityHandle, PeerCertificate};
use parking_lot::Mutex;
use proxy::Live;
use telemetry::{
    istio_metrics::IstioMetrics,
    stats::{Format, Query},
};
use tokio::{net::TcpListener, sync::Semaphore};
use wire_envoy::{Descriptors, Names, pb::bootstrap::Bootstrap};

use crate::{Refusal, Status};
use dump_query::DumpQuery;
use memory::memory;
use page::{Page, json, prometheus, text, with_type};

mod application;
mod clusters;
mod dump_query;
mod listeners;
mod logging;
mod memory;
mod page;
mod server;
#[cfg(test)]
mod tests;

pub use application::Application;
pub use logging::Loggers;

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
    /// As it was given, or made from the environment.
    pub bootstrap: Bootstrap,
    pub identity: Option<IdentityHandle>,
    pub started: Instant,
    pub version: String,
    /// Told to drain (`/drain_listeners`, `/drain`) or to stop (`/quitquitquit`).
    pub commands: tokio::sync::mpsc::Sender<Command>,
    /// Sets the log's directives (`info,proxy::upstream=debug`); `None`: it cannot.
    pub set_log_level: SetLogLevel,
    pub loggers: Mutex<Loggers>,
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
            // task: one connection to a port of the proxy's pages; holds one of MAX_CONNECTIONS
            // places, ends with its client
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
                "Method GET not allowed, POST required.",
            );
        }
        match path {
            "/ready" => self.live_page(),
            "/stats" => self.stats(query),
            "/stats/prometheus" => self.stats(&format!("{query}&format=prometheus")),
            "/clusters" => {
                let fixed = self.bootstrap.static_resources.iter();
                let fixed = fixed.flat_map(|fixed| fixed.clusters.iter());
                let names = fixed.map(|cluster| cluster.name.as_str()).collect();
                let as_json = parameter(query, "format") == Some("json");
                clusters::page(&self.live, &names, as_json)
            }
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
            // There is no runtime layer, no tracing of locks and no restart in place.
            "/runtime" => json(&serde_json::json!({"entries": {}, "layers": []})),
            "/contention" => text(StatusCode::OK, "Mutex contention tracing is not enabled.\n"),
            "/hot_restart_version" => text(StatusCode::OK, "disabled"),
            "/init_dump" => self.init_dump(),
            "/refusals" => text(StatusCode::OK, refused(&self.status.refusals())),
            "/" | "/help" => text(StatusCode::OK, HELP),
            _ => text(StatusCode::NOT_FOUND, format!("invalid path. {HELP}")),
        }
    }

    /// Envoy's `/ready`.
    fn live_page(&self) -> Page {
        let status = if self.is_ready() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        text(status, format!("{}\n", self.state()))
    }

    /// Envoy's name of the state.
    fn state(&self) -> &'static str {
        match (self.failing.load(Ordering::Relaxed), self.is_ready()) {
            (true, _) => "DRAINING",
            (false, true) => "LIVE",
            (false, false) => "PRE_INITIALIZING",
        }
    }

    /// What a proxy that is not ready is waiting for.
    fn init_dump(&self) -> Page {
        let ready = *self.status.readiness().borrow();
        let waiting = [
            ("certificate", ready.identity),
            ("configuration", ready.configuration),
            ("listeners", self.live.has_opened(self.workers)),
        ];
        let names: Vec<&str> = waiting
            .iter()
            .filter(|(_, done)| !done)
            .map(|(name, _)| *name)
            .collect();
        if names.is_empty() {
            return json(&serde_json::json!({}));
        }
        json(
            &serde_json::json!({"unready_targets_dumps": [{"name": "init manager Server", "target_names": names}]}),
        )
    }

    /// The agent's `/healthz/ready`: empty 200, else the reason.
    fn ready(&self) -> Page {
        if self.is_ready() {
            return text(StatusCode::OK, "");
        }
        let refusals = self.status.refusals();
        if !refusals.is_empty() {
            return text(StatusCode::SERVICE_UNAVAILABLE, refused(&refusals));
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

    fn uptime(&self) -> Duration {
        self.live
            .clock
            .now()
            .saturating_duration_since(self.started)
    }

    fn is_ready(&self) -> bool {
        let ready = self.status.is_ready()
            && self.live.has_opened(self.workers)
            && !self.failing.load(Ordering::Relaxed);
        if ready {
            self.status.started_within(self.uptime());
        }
        ready
    }

    fn stats(&self, query: &str) -> Page {
        match Query::parse(query) {
            Ok(query) => {
                self.refresh();
                let mut body = self.live.stats.render(&query);
                match query.format {
                    Format::Json => with_type("application/json", body),
                    Format::Text => text(StatusCode::OK, body),
                    Format::Prometheus => {
                        self.metrics
                            .prometheus_of(&mut body, |name| query.wants(name));
                        prometheus(body)
                    }
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
        let application = match &self.application {
            Some(application) => Some(application.metrics().await),
            None => None,
        };
        self.status
            .scraped(application.as_ref().is_some_and(Result::is_err));
        let mut body = self.proxy_metrics();
        body.push_str(&self.status.prometheus(self.live.clock.wall()));
        // Last: what an application writes may be anything.
        body.push_str(&application.map_or_else(String::new, |read| read.unwrap_or_else(|why| why)));
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
        let asked = match DumpQuery::parse(query) {
            Ok(asked) => asked,
            Err((status, why)) => return text(status, why),
        };
        let started = self.live.clock.wall() - self.uptime();
        let dump = self.status.config_dump(
            &self.bootstrap,
            started,
            identity.as_deref(),
            asked.include_endpoints,
        );
        let mut dump = match dump {
            Ok(dump) => dump,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
        dump_query::redact(&mut dump);
        match asked.apply(dump) {
            Ok(dump) => json(&dump),
            Err((status, why)) => text(status, why),
        }
    }

    fn certificates(&self) -> Page {
        let Some(leaf) = self.status.certificate() else {
            return json(&serde_json::json!({"certificates": []}));
        };
        let now = self.live.clock.wall();
        let identity = self.identity.as_ref().and_then(IdentityHandle::load);
        let roots = identity
            .and_then(|identity| CertificateChain::from_pem(&identity.bundle().to_pem()).ok())
            .map(|roots| roots.to_pem_blocks())
            .unwrap_or_default();
        let roots = roots.iter().filter_map(|pem| {
            let root = CertificateChain::from_pem(pem).ok()?.leaf().ok()?;
            Some(certificate(&root, now))
        });
        let roots: Vec<_> = roots.collect();
        json(
            &serde_json::json!({"certificates": [{"ca_cert": roots, "cert_chain": [certificate(&leaf, now)]}]}),
        )
    }

    fn server_info(&self) -> Page {
        let uptime = format!("{}s", self.uptime().as_secs());
        let node = self.bootstrap.node.clone().unwrap_or_default();
        let node = Descriptors::load()
            .and_then(|descriptors| descriptors.to_json(&node, Names::Snake))
            .unwrap_or_default();
        json(&serde_json::json!({
            "version": format!("tanbark-proxy/{}", self.version),
            "state": self.state(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": "disabled",
            "command_line_options": {"concurrency": self.workers, "mode": "Serve"},
            "node": node,
        }))
    }

    fn logging(&self, query: &str) -> Page {
        let mut loggers = self.loggers.lock();
        let changed = match loggers.changed(query) {
            Ok(changed) => changed,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        };
        if !query.is_empty() {
            if (self.set_log_level)(&changed.directives()).is_none() {
                let why = "error: the log does not take these levels\n";
                return text(StatusCode::INTERNAL_SERVER_ERROR, why);
            }
            *loggers = changed;
        }
        text(StatusCode::OK, loggers.list())
    }
}

/// One line for each: since when, what and why.
fn refused(refusals: &[Refusal]) -> String {
    let line = |refusal: &Refusal| {
        let Refusal { why, since } = refusal;
        format!("refused since {}: {why}\n", rfc3339(*since))
    };
    refusals.iter().map(line).collect()
}

/// As Envoy shows one.
fn certificate(leaf: &PeerCertificate, now: SystemTime) -> serde_json::Value {
    let left = leaf
        .not_after_time()
        .duration_since(now)
        .unwrap_or_default();
    let named = |key: &str, name: String| serde_json::json!({ key: name });
    let dns = leaf.dns_sans.iter().map(|name| named("dns", name.clone()));
    let uris = leaf.uri_sans.iter().map(|name| named("uri", name.clone()));
    let ips = leaf.ip_sans.iter();
    let ips = ips.map(|ip| named("ip_address", ip.to_string()));
    serde_json::json!({
        "path": "<inline>",
        "serial_number": leaf.serial,
        "subject_alt_names": dns.chain(uris).chain(ips).collect::<Vec<_>>(),
        "days_until_expiration": (left.as_secs() / 86_400).to_string(),
        "valid_from": rfc3339(leaf.not_before_time()),
        "expiration_time": rfc3339(leaf.not_after_time()),
    })
}

/// The agent's port is open to all of the cluster, but only the pod itself may end or drain its
/// proxy. Port 15000 is bound to loopback unless the operator says otherwise.
fn may_ask(door: Door, path: &str, peer: SocketAddr) -> bool {
    let changes = door == Door::Agent && matches!(path, "/drain" | "/quitquitquit");
    !changes || peer.ip().to_canonical().is_loopback()
}

const HELP: &str = "\
admin commands are:
  /: this list
  /certs: the workload's certificate
  /clusters: upstream cluster status (?format=json)
  /config_dump: the configuration that is in force (?include_eds, ?resource=, ?mask=, ?name_regex=)
  /contention: lock contention (not traced)
  /drain_listeners (POST): drain listeners
  /healthcheck/fail (POST): fail readiness
  /healthcheck/ok (POST): no longer fail readiness
  /help: this list
  /hot_restart_version: there is no restart in place
  /init_dump: what a proxy that is not ready is waiting for
  /listeners: listener addresses (?format=json)
  /logging (POST): show and set log levels (?level=, ?<logger>=, ?paths=<logger>:<level>,…)
  /memory: memory in use
  /quitquitquit (POST): exit
  /ready: readiness
  /reset_counters (POST): reset all counters
  /refusals: what of the control plane's configuration is not obeyed, since when and why
  /runtime: runtime values (there are none)
  /server_info: version, state, uptime
  /stats: statistics (?filter=regex&usedonly&format=json|prometheus)
  /stats/prometheus: statistics for Prometheus
";

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
