//! What the feed knows about itself, for readiness, metrics and the admin pages. Written by the
//! feed, read from anywhere.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::PeerCertificate;
use parking_lot::Mutex;
use tokio::sync::watch;
use wire_envoy::pb::Any;
use xds_protocol::Rejection;

/// Shared by the feed and its readers.
pub struct Status {
    readiness: watch::Sender<Readiness>,
    /// Counts certificates.
    renewals: watch::Sender<u64>,
    state: Mutex<State>,
}

/// What must be there before traffic should come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// The workload has its certificate, or needs none.
    pub identity: bool,
    /// Clusters and listeners have been received and nothing of the first configuration is waiting
    /// any more.
    pub configuration: bool,
}

/// How one resource type stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TypeState {
    pub version: String,
    pub updates: u64,
    pub rejected: u64,
    pub last_rejection: Option<String>,
    pub last_updated: Option<SystemTime>,
    pub resources: BTreeMap<String, ResourceState>,
    /// What cannot be obeyed of the newest versions, by resource.
    pub refusals: BTreeMap<String, Refusal>,
}

/// What of a resource is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind and name of the resource, the field, what is wrong with it and what it costs.
    pub why: String,
    /// When it was refused first with these words.
    pub since: SystemTime,
}

/// One resource as the control plane sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceState {
    pub version: String,
    pub updated: SystemTime,
    pub body: Any,
}

/// How the connection to the control plane stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionState {
    pub connected: bool,
    pub identifier: String,
    pub attempts: u64,
    pub failures: u64,
    pub last_error: Option<String>,
    pub since: Option<Instant>,
}

#[derive(Default)]
struct State {
    types: BTreeMap<String, TypeState>,
    connection: ConnectionState,
    certificate: Option<Arc<PeerCertificate>>,
    certificate_requests: u64,
    certificate_failures: u64,
    last_certificate_error: Option<String>,
    /// Of the merged page.
    scrapes: u64,
    /// Scrapes in which the application's metrics could not be read.
    scrape_failures: u64,
    /// From the start to readiness.
    startup: Option<Duration>,
}

impl TypeState {
    /// A response was applied, but for what is in `rejected`.
    pub(crate) fn delivered(
        &mut self,
        version: String,
        wall: SystemTime,
        removed: &[String],
        rejected: &[Rejection],
    ) {
        self.updates += 1;
        self.last_updated = Some(wall);
        for name in removed {
            self.resources.remove(name);
            self.refusals.remove(name);
        }
        if rejected.is_empty() {
            self.version = version;
        } else {
            self.rejected += 1;
        }
    }

    /// A resource's newest version is obeyed whole, or not for this reason.
    pub(crate) fn judged(&mut self, name: &str, refused: Option<&str>, wall: SystemTime) {
        let Some(why) = refused else {
            self.refusals.remove(name);
            return;
        };
        self.last_rejection = Some(format!("{name}: {why}"));
        let known = self.refusals.get(name).filter(|known| known.why == why);
        let since = known.map_or(wall, |known| known.since);
        let why = why.to_owned();
        self.refusals
            .insert(name.to_owned(), Refusal { why, since });
    }
}

impl Readiness {
    pub fn is_ready(&self) -> bool {
        self.identity && self.configuration
    }
}

impl Default for Status {
    fn default() -> Self {
        Self {
            readiness: watch::Sender::new(Readiness::default()),
            renewals: watch::Sender::new(0),
            state: Mutex::default(),
        }
    }
}

impl Status {
    /// Follows readiness; once ready it stays so, whatever the control plane does.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Resolves whenever the workload has a new certificate (after it was published).
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    pub fn is_ready(&self) -> bool {
        self.readiness.borrow().is_ready()
    }

    pub fn types(&self) -> BTreeMap<String, TypeState> {
        self.state.lock().types.clone()
    }

    /// What is refused now, in the order of types and names.
    pub fn refusals(&self) -> Vec<Refusal> {
        let state = self.state.lock();
        let types = state.types.values();
        types.flat_map(|t| t.refusals.values().cloned()).collect()
    }

    pub(crate) fn has_refusals(&self, types: &[&str]) -> bool {
        let state = self.state.lock();
        let mut refused = types.iter().filter_map(|t| state.types.get(*t));
        refused.any(|t| !t.refusals.is_empty())
    }

    pub fn connection(&self) -> ConnectionState {
        self.state.lock().connection.clone()
    }

    /// The workload's current certificate.
    pub fn certificate(&self) -> Option<Arc<PeerCertificate>> {
        self.state.lock().certificate.clone()
    }

    /// Why the last attempt to get a certificate failed; `None` after a success.
    pub fn last_certificate_error(&self) -> Option<String> {
        self.state.lock().last_certificate_error.clone()
    }

    pub(crate) fn identity_is_not_needed(&self) {
        self.readiness
            .send_if_modified(|r| !std::mem::replace(&mut r.identity, true));
    }

    pub(crate) fn configuration_is_live(&self) {
        self.readiness
            .send_if_modified(|r| !std::mem::replace(&mut r.configuration, true));
    }

    /// The merged page was asked for; `failed`: without the application's part.
    pub(crate) fn scraped(&self, failed: bool) {
        let mut state = self.state.lock();
        state.scrapes += 1;
        state.scrape_failures += u64::from(failed);
    }

    /// The proxy became ready so long after its start; the first call counts.
    pub(crate) fn started_within(&self, took: Duration) {
        self.state.lock().startup.get_or_insert(took);
    }

    pub(crate) fn certificate_requested(&self) {
        self.state.lock().certificate_requests += 1;
    }

    pub(crate) fn certificate_failed(&self, why: &str) {
        let mut state = self.state.lock();
        state.certificate_failures += 1;
        state.last_certificate_error = Some(why.to_owned());
    }

    pub(crate) fn certificate_obtained(&self, leaf: Arc<PeerCertificate>) {
        let mut state = self.state.lock();
        state.certificate = Some(leaf);
        state.last_certificate_error = None;
        drop(state);
        self.identity_is_not_needed();
        self.renewals.send_modify(|count| *count += 1);
    }

    pub(crate) fn connecting(&self) {
        self.state.lock().connection.attempts += 1;
    }

    pub(crate) fn connected(&self, now: Instant) {
        let connection = &mut self.state.lock().connection;
        (
            connection.connected,
            connection.since,
            connection.last_error,
        ) = (true, Some(now), None);
    }

    pub(crate) fn identified(&self, identifier: &str) {
        identifier.clone_into(&mut self.state.lock().connection.identifier);
    }

    pub(crate) fn disconnected(&self, why: &str) {
        let connection = &mut self.state.lock().connection;
        connection.connected = false;
        connection.since = None;
        connection.failures += 1;
        connection.last_error = Some(why.to_owned());
    }

    pub(crate) fn with_type(&self, type_url: &str, change: impl FnOnce(&mut TypeState)) {
        change(
            self.state
                .lock()
                .types
                .entry(type_url.to_owned())
                .or_default(),
        );
    }

    /// The agent's own metrics, under the names that Istio's agent has, in Prometheus' text format.
    pub fn prometheus(&self, now: SystemTime) -> String {
        let state = self.state.lock();
        let mut text = String::new();
        let mut metric = |kind: &str, name: &str, labels: &str, value: f64| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name}{labels} {value}");
        };
        if let Some(leaf) = &state.certificate {
            let left = leaf
                .not_after_time()
                .duration_since(now)
                .map_or(0.0, |d| d.as_secs_f64());
            metric(
                "gauge",
                "istio_agent_cert_expiry_seconds",
                "{resource_name=\"default\"}",
                left,
            );
        }
        let csr = "{request_type=\"csr\"}";
        let application = "{type=\"application\"}";
        let responses = state.types.values().map(|kind| kind.updates).sum();
        let counters: [(&str, &str, u64); 8] = [
            ("num_outgoing_requests", csr, state.certificate_requests),
            (
                "num_failed_outgoing_requests",
                csr,
                state.certificate_failures,
            ),
            ("pilot_xds_connect_attempts", "", state.connection.attempts),
            ("pilot_xds_connect_failures", "", state.connection.failures),
            ("istiod_connection_failures", "", state.connection.failures),
            ("xds_proxy_responses", "", responses),
            ("scrapes_total", "", state.scrapes),
            ("scrape_failures_total", application, state.scrape_failures),
        ];
        for (name, labels, value) in counters {
            metric(
                "counter",
                &format!("istio_agent_{name}"),
                labels,
                value as f64,
            );
        }
        if let Some(took) = state.startup {
            metric(
                "gauge",
                "istio_agent_startup_duration_seconds",
                "",
                took.as_secs_f64(),
            );
        }
        for (name, what) in [
            ("updates", "istio_agent_xds_updates"),
            ("rejected", "istio_agent_xds_rejects"),
        ] {
            let _ = writeln!(text, "# TYPE {what} counter");
            for (type_url, kind) in &state.types {
                let short = type_url.rsplit('.').next().unwrap_or(type_url);
                let value = if name == "updates" {
                    kind.updates
                } else {
                    kind.rejected
                };
                let _ = writeln!(text, "{what}{{type=\"{short}\"}} {value}");
            }
        }
        text
    }
}
