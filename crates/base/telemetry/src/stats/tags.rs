//! Tags out of names: Envoy keeps one flat name per statistic and finds labels in it with regular
//! expressions.
//!
//! A rule's first group is what leaves the name, its second (else the first) is the label's value.
//! All rules look at the original name. [`TagRules::istio`] are those of Istio's bootstrap,
//! [`TagRules::envoy`] Envoy's defaults (tag
//! `envoy.cluster_name`, so label `envoy_cluster_name`). Envoy's patterns use look-ahead for a dot, which is rewritten
//! to an equal pattern without it.

use regex::Regex;

use super::StringMatch;
use crate::Error;

/// Label pairs in rule order, names as Prometheus wants them.
pub(super) type Tags = Vec<(String, String)>;

/// An ordered list of tag rules.
#[derive(Debug, Clone, Default)]
pub struct TagRules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    label: String,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Fixed(String),
    Pattern {
        regex: Regex,
        /// A text that every matching name starts with: spares most names the search.
        start: &'static str,
    },
}

/// Literal starts of the rules of Istio and Envoy.
const STARTS: [&str; 12] = [
    "^cluster",
    "^listener_manager",
    "^listener",
    "^http",
    "^tcp",
    "^udp",
    "^server",
    "^mongo",
    "^vhost",
    "^auth.clientssl",
    "^ratelimit",
    "^redis",
];

const ISTIO: [(&str, &str); 16] = [
    ("cluster_name", r"^cluster(\.(.+);)"),
    (
        "http_conn_manager_prefix",
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    ),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "listener_address",
        r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "mongo_prefix",
        r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$",
    ),
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
];

const ENVOY: [(&str, &str); 17] = [
    ("envoy.response_code", r"_rq(_(\d{3}))$"),
    ("envoy.response_code_class", r"_rq_(\d)xx$"),
    (
        "envoy.grpc_bridge_method",
        r"^cluster(?=\.).*?\.grpc(?=\.).*\.((.*?)\.)\w+?$",
    ),
    (
        "envoy.http_user_agent",
        r"^http(?=\.).*?\.user_agent\.((.*?)\.)\w+?$",
    ),
    (
        "envoy.virtual_cluster",
        r"^vhost(?=\.).*?\.vcluster\.((.*?)\.)\w+?$",
    ),
    (
        "envoy.ssl_cipher",
        r"^listener(?=\.).*?\.ssl\.cipher(\.(.*?))$",
    ),
    (
        "envoy.ssl_cipher_suite",
        r"^cluster(?=\.).*?\.ssl\.ciphers(\.(.*?))$",
    ),
    (
        "envoy.grpc_bridge_service",
        r"^cluster(?=\.).*?\.grpc\.((.*?)\.)",
    ),
    ("envoy.tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("envoy.ratelimit_prefix", r"^ratelimit\.((.*?)\.)\w+?$"),
    ("envoy.cluster_name", r"^cluster\.(([^\.]+)\.).*"),
    (
        "envoy.http_conn_manager_prefix",
        r"^listener(?=\.).*?\.http\.((.*?)\.)",
    ),
    ("envoy.http_conn_manager_prefix", r"^http\.((.*?)\.)"),
    (
        "envoy.listener_address",
        r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("envoy.virtual_host", r"^vhost\.((.*?)\.)"),
    (
        "envoy.rds_route_config",
        r"^http(?=\.).*?\.rds\.((.*?)\.)\w+?$",
    ),
    ("envoy.worker_id", r"^listener_manager\.((worker_\d+)\.)"),
];

impl TagRules {
    /// No tags.
    pub fn none() -> Self {
        Self::default()
    }

    /// The rules of Istio's bootstrap.
    pub fn istio() -> Self {
        Self::of(&ISTIO)
    }

    /// Envoy's default rules for what an Istio proxy has (`use_all_default_tags`).
    pub fn envoy() -> Self {
        Self::of(&ENVOY)
    }

    fn of(rules: &[(&str, &str)]) -> Self {
        let mut all = Self::default();
        for (name, pattern) in rules {
            // The constants are covered by a test; a rule that did not compile would be missing
            // there.
            let _ = all.push_regex(name, pattern);
        }
        all
    }

    /// Appends a rule as a bootstrap's `stats_tags` gives it.
    ///
    /// # Errors
    /// The pattern is not a regular expression that can be searched in linear time.
    pub fn push_regex(&mut self, name: &str, pattern: &str) -> Result<(), Error> {
        let rewritten = pattern
            .replace(r"(?=\.).*?", r"(?:\..*?)?")
            .replace(r"(?=\.).*", r"(?:\..*)?");
        let regex = Regex::new(&rewritten).map_err(|error| Error::Regex {
            pattern: pattern.to_string(),
            problem: error.to_string(),
        })?;
        let start = STARTS
            .iter()
            .find(|start| pattern.starts_with(**start))
            .map_or("", |start| &start[1..]);
        let start = if start.contains('.') { "" } else { start };
        self.0.push(Rule {
            label: prometheus_name(name),
            value: Value::Pattern { regex, start },
        });
        Ok(())
    }

    /// Appends a tag that every statistic has.
    pub fn push_fixed(&mut self, name: &str, value: &str) {
        self.0.push(Rule {
            label: prometheus_name(name),
            value: Value::Fixed(value.to_string()),
        });
    }

    /// Appends the rules of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The name without its tags, and the tags.
    pub(super) fn extract(&self, name: &str) -> (String, Tags) {
        let mut tags = Tags::new();
        let mut removed: Vec<std::ops::Range<usize>> = Vec::new();
        for Rule { label, value } in &self.0 {
            let (regex, start) = match value {
                Value::Fixed(value) => {
                    tags.push((label.clone(), value.clone()));
                    continue;
                }
                Value::Pattern { regex, start } => (regex, start),
            };
            // A label occurs once: Envoy's two rules of one name never both apply.
            if !name.starts_with(start) || tags.iter().any(|(known, _)| known == label) {
                continue;
            }
            let Some(captures) = regex.captures(name) else {
                continue;
            };
            let Some(whole) = captures.get(1) else {
                continue;
            };
            tags.push((
                label.clone(),
                captures.get(2).unwrap_or(whole).as_str().to_string(),
            ));
            removed.push(whole.range());
        }
        let kept = name
            .char_indices()
            .filter(|(at, _)| !removed.iter().any(|range| range.contains(at)));
        (kept.map(|(_, letter)| letter).collect(), tags)
    }
}

/// Letters, digits and underscores; anything else becomes an underscore.
pub(crate) fn prometheus_name(name: &str) -> String {
    let digit_first = name.starts_with(|first: char| first.is_ascii_digit());
    let letters = name.chars().map(|letter| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    });
    digit_first
        .then_some('_')
        .into_iter()
        .chain(letters)
        .collect()
}

/// Histogram buckets by name: Envoy's `histogram_bucket_settings`, Istio's `statsHistogramBuckets`
/// annotation.
#[derive(Debug, Clone, Default)]
pub struct BucketSettings(Vec<(StringMatch, Vec<f64>)>);

/// Envoy's default bounds, also those of Istio's metrics.
pub const DEFAULT_BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0,
    60000.0, 300000.0, 600000.0, 1800000.0, 3600000.0,
];

impl BucketSettings {
    /// Adds bounds (ascending, positive) for the names that match; the first match counts.
    pub fn push(&mut self, names: StringMatch, bounds: Vec<f64>) {
        self.0.push((names, bounds));
    }

    /// The bounds for a histogram's full name.
    pub fn bounds(&self, name: &str) -> &[f64] {
        self.0
            .iter()
            .find(|(names, _)| names.matches(name))
            .map_or(&DEFAULT_BUCKETS, |(_, bounds)| bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extracted(rules: &TagRules, name: &str) -> String {
        let (name, tags) = rules.extract(name);
        let tags: Vec<String> = tags
            .into_iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        format!("{name} {}", tags.join(" "))
    }

    #[test]
    fn every_rule_compiles() {
        assert_eq!(
            (TagRules::istio().0.len(), TagRules::envoy().0.len()),
            (ISTIO.len(), ENVOY.len())
        );
        assert!(TagRules::none().push_regex("x", "(").is_err());
    }

    #[test]
    fn istio_tags() {
        let rules = TagRules::istio();
        for (name, want) in [
            (
                "cluster.outbound|80||a.b.svc.cluster.local;.upstream_rq_total",
                "cluster.upstream_rq_total cluster_name=outbound|80||a.b.svc.cluster.local",
            ),
            (
                "cluster.xds-grpc;.upstream_rq_200",
                "cluster.upstream_rq cluster_name=xds-grpc response_code=200",
            ),
            (
                "cluster.x;.upstream_rq_5xx",
                "cluster.upstream_rq cluster_name=x response_code_class=5xx",
            ),
            (
                "http.inbound_0.0.0.0_9080;.rbac.allowed",
                "http.rbac http_conn_manager_prefix=inbound_0.0.0.0_9080 authz_enforce_result=allowed",
            ),
            (
                "listener.0.0.0.0_15006.downstream_cx_active",
                "listener.downstream_cx_active listener_address=0.0.0.0_15006",
            ),
            (
                "listener.[__]_80.http.0.0.0.0_80.downstream_rq_2xx",
                "listener.http.downstream_rq response_code_class=2xx http_conn_manager_listener_prefix=0.0.0.0_80 listener_address=[__]_80",
            ),
            (
                "server.worker_0.watchdog_miss",
                "server.watchdog_miss thread_name=worker_0",
            ),
            ("server.live", "server.live "),
        ] {
            assert_eq!(extracted(&rules, name), want);
        }
    }

    #[test]
    fn envoy_tags() {
        let rules = TagRules::envoy();
        for (name, want) in [
            (
                "cluster.a.upstream_rq_200",
                "cluster.upstream_rq envoy_response_code=200 envoy_cluster_name=a",
            ),
            (
                "cluster.a.upstream_rq_2xx",
                "cluster.upstream_rq_xx envoy_response_code_class=2 envoy_cluster_name=a",
            ),
            (
                "http.admin.downstream_cx_total",
                "http.downstream_cx_total envoy_http_conn_manager_prefix=admin",
            ),
            (
                "listener.127.0.0.1_3012.http.http_prefix.downstream_rq_5xx",
                "listener.http.downstream_rq_xx envoy_response_code_class=5 envoy_http_conn_manager_prefix=http_prefix envoy_listener_address=127.0.0.1_3012",
            ),
            (
                "cluster.a.grpc.s.m.total",
                "cluster.grpc.total envoy_grpc_bridge_method=m envoy_grpc_bridge_service=s envoy_cluster_name=a",
            ),
        ] {
            assert_eq!(extracted(&rules, name), want);
        }
    }
}
