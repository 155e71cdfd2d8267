//! What a proxy tells about the same traffic, ours beside a stock Envoy with the same bootstrap: each operator of the access log in each of
//! its forms, response flags and details in each situation, names and values of statistics, and the pages of the admin port.

mod bootstrap;
mod operators;
mod requests;
mod running;
mod upstream;

use std::{collections::BTreeMap, time::Duration};

use bootstrap::SEPARATOR;
use operators::{OPERATORS, Rule};
use requests::{SITUATIONS, Situation};
use running::{Both, Program, Running, both};
use serde_json::Value;
use testkit::eventually;

/// Port numbers differ from run to run, and so do `127.0.0.1:PORT`s.
fn without_ports(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("127.0.0.1:") {
        out.push_str(before);
        out.push_str("127.0.0.1:PORT");
        rest = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    out + rest
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Whether `ours` is what the rule wants where Envoy says `theirs`.
fn agrees(rule: Rule, theirs: &Value, ours: &Value) -> bool {
    match rule {
        Rule::Same => without_ports(&theirs.to_string()) == without_ports(&ours.to_string()),
        Rule::SameKind => kind(theirs) == kind(ours),
        Rule::Any => theirs.is_null() || ours.is_null() || kind(theirs) == kind(ours),
    }
}

/// One line of a form as operator → value.
fn values(form: &str, line: &str) -> BTreeMap<String, Value> {
    match form {
        "text" => OPERATORS
            .iter()
            .zip(line.split(SEPARATOR))
            .map(|((operator, _), text)| ((*operator).to_owned(), Value::from(text)))
            .collect(),
        _ => serde_json::from_str(line).unwrap_or_else(|error| panic!("{form}: {error}: {line}")),
    }
}

/// Where the lines of one situation disagree.
fn disagreements(situation: &Situation, theirs: &Running, ours: &Running) -> Vec<String> {
    let mut found = Vec::new();
    for form in bootstrap::FORMS {
        let file = format!("{}.{form}", situation.listener);
        let lines = [theirs, ours].map(|proxy| proxy.last_line(&file));
        let [theirs, ours] = lines.map(|line| values(form, &line));
        for (operator, rule) in OPERATORS {
            if situation.differs.contains(operator) {
                continue;
            }
            let value = |of: &BTreeMap<String, Value>| of.get(*operator).cloned();
            let (theirs, ours) = (value(&theirs), value(&ours));
            let agreed = match (&theirs, &ours) {
                (Some(theirs), Some(ours)) => agrees(*rule, theirs, ours),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => *rule == Rule::Any,
            };
            if !agreed {
                found.push(format!(
                    "{}: {form}: %{operator}%: Envoy {theirs:?}, ours {ours:?}",
                    situation.name
                ));
            }
        }
        if form == "json" {
            let keys = [&theirs, &ours].map(|values| values.keys().cloned().collect::<Vec<_>>());
            assert_eq!(keys[0], keys[1], "{}: keys", situation.name);
        }
    }
    found
}

#[test]
fn every_operator_says_what_envoys_says_in_every_situation() {
    let Both { envoy, ours } = both();
    let mut found = Vec::new();
    for situation in SITUATIONS {
        for proxy in [&envoy, &ours] {
            proxy.play(situation);
        }
        found.extend(disagreements(situation, &envoy, &ours));
    }
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
}

/// Statistics that dashboards and alerts are made of, after the same requests.
const STATISTICS: &[&str] = &[
    "cluster.up_stats.upstream_rq_total",
    "cluster.up_stats.upstream_rq_completed",
    "cluster.up_stats.upstream_rq_200",
    "cluster.up_stats.upstream_rq_2xx",
    "cluster.up_stats.upstream_rq_500",
    "cluster.up_stats.upstream_rq_502",
    "cluster.up_stats.upstream_rq_503",
    "cluster.up_stats.upstream_rq_504",
    "cluster.up_stats.upstream_rq_5xx",
    "cluster.up_stats.upstream_rq_retry",
    "cluster.up_stats.upstream_rq_retry_limit_exceeded",
    "cluster.up_stats.upstream_rq_retry_success",
    "cluster.up_stats.upstream_rq_timeout",
    "cluster.up_stats.upstream_rq_per_try_timeout",
    "cluster.up_stats.upstream_rq_rx_reset",
    "cluster.up_stats.membership_total",
    "cluster.up_stats.membership_healthy",
    "cluster.full.upstream_rq_pending_overflow",
    "cluster.full.upstream_rq_503",
    "cluster.empty.upstream_cx_none_healthy",
    "cluster.empty.upstream_rq_503",
    "cluster.refused.upstream_cx_connect_fail",
    "cluster.refused.upstream_rq_503",
    "cluster.tlsup.ssl.handshake",
    "cluster.tlsup.upstream_rq_200",
    "cluster.tcpup.upstream_cx_total",
    "cluster.tcpup.upstream_cx_rx_bytes_total",
    "cluster.tcpup.upstream_cx_tx_bytes_total",
    "http.http.downstream_rq_total",
    "http.http.downstream_rq_completed",
    "http.http.downstream_rq_2xx",
    "http.http.downstream_rq_3xx",
    "http.http.downstream_rq_4xx",
    "http.http.downstream_rq_5xx",
    "http.http.downstream_rq_active",
    "http.http.no_route",
    "http.http.no_cluster",
    "http.http.rq_direct_response",
    "http.http.rbac.denied",
    "http.http.limit.http_local_rate_limit.rate_limited",
    "http.http.fault.aborts_injected",
    "http.http.fault.delays_injected",
    "http.https.downstream_cx_ssl_total",
    "http.https.downstream_rq_2xx",
    "tcp.tcp.downstream_cx_total",
    "tcp.tcp.downstream_cx_rx_bytes_total",
    "tcp.tcp.downstream_cx_tx_bytes_total",
    "tcp.tcprefused.downstream_cx_total",
    "listener_manager.total_listeners_active",
    "cluster_manager.active_clusters",
    "server.live",
    "server.state",
];

/// Distributions that must have values in both.
const DISTRIBUTIONS: &[&str] = &[
    "cluster.up_stats.upstream_rq_time",
    "cluster.up_stats.upstream_cx_connect_ms",
    "cluster.tcpup.upstream_cx_length_ms",
    "http.http.downstream_rq_time",
    "http.http.downstream_cx_length_ms",
];

fn statistics(page: &str) -> BTreeMap<&str, &str> {
    page.lines()
        .filter_map(|line| line.split_once(": "))
        .collect()
}

#[test]
fn statistics_have_envoys_names_and_values() {
    let Both { envoy, ours } = both();
    for situation in SITUATIONS {
        for proxy in [&envoy, &ours] {
            proxy.play(situation);
        }
    }
    for proxy in [&envoy, &ours] {
        // Envoy adds its workers' distributions up every five seconds.
        eventually("distributions", Duration::from_secs(20), || {
            let page = proxy.get("/stats").body;
            let all = statistics(&page);
            let has_values = |name: &&&str| all.get(**name).is_some_and(|v| v.contains("P50("));
            let without = DISTRIBUTIONS.iter().filter(|name| !has_values(name));
            let without: Vec<&&str> = without.collect();
            if without.is_empty() {
                Ok(())
            } else {
                Err(format!("{without:?}"))
            }
        });
    }
    let pages = [&envoy, &ours].map(|proxy| proxy.get("/stats"));
    let [theirs, ours_all] = [&pages[0], &pages[1]].map(|page| statistics(&page.body));
    let mut found = Vec::new();
    for name in STATISTICS {
        let (theirs, ours) = (theirs.get(name), ours_all.get(name));
        if theirs != ours {
            found.push(format!("{name}: Envoy {theirs:?}, ours {ours:?}"));
        }
    }
    // Each listener's answers by class.
    let answers = |proxy: &Running, of: &BTreeMap<&str, &str>| -> Vec<Option<String>> {
        ["completed", "2xx", "3xx", "4xx", "5xx"]
            .map(|class| {
                let name = format!(
                    "listener.127.0.0.1_{}.http.http.downstream_rq_{class}",
                    proxy.ports.http
                );
                of.get(name.as_str()).map(|value| (*value).to_owned())
            })
            .to_vec()
    };
    let (of_envoy, of_ours) = (answers(&envoy, &theirs), answers(&ours, &ours_all));
    if of_envoy != of_ours {
        found.push(format!(
            "listener answers: Envoy {of_envoy:?}, ours {of_ours:?}"
        ));
    }
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
}

/// Keys of objects, all the way down, lists by their first element.
fn shape(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let at = format!("{at}.{key}");
                found.push(at.clone());
                shape(value, &at, found);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                shape(first, &format!("{at}[]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn admin_pages_are_answered_like_envoys() {
    let Both { envoy, ours } = both();
    for (method, page) in [
        ("GET", "/ready"),
        ("GET", "/listeners"),
        ("GET", "/nosuch"),
        ("GET", "/logging"),
        ("GET", "/reset_counters"),
        ("GET", "/quitquitquit"),
        ("GET", "/config_dump?mask=x"),
        ("GET", "/config_dump?resource=x"),
        ("GET", "/config_dump?name_regex=("),
        ("GET", "/stats?filter=("),
        ("GET", "/stats?format=x"),
        ("GET", "/runtime"),
        ("GET", "/init_dump"),
        ("GET", "/hot_restart_version"),
        ("GET", "/memory"),
        ("GET", "/certs"),
        ("GET", "/server_info"),
        ("GET", "/clusters"),
        ("GET", "/clusters?format=json"),
        ("GET", "/listeners?format=json"),
        ("GET", "/stats?format=json"),
        ("GET", "/stats/prometheus"),
        ("POST", "/logging?level=info"),
        ("POST", "/logging?paths=http:debug,upstream:trace"),
        ("POST", "/logging?level=loud"),
        ("POST", "/reset_counters"),
        ("POST", "/healthcheck/fail"),
        ("GET", "/ready"),
        ("POST", "/healthcheck/ok"),
    ] {
        let [theirs, ours] = [&envoy, &ours].map(|proxy| proxy.ask(method, page));
        assert_eq!(
            (theirs.status, theirs.json()),
            (ours.status, ours.json()),
            "{method} {page}: {} and {}",
            theirs.body,
            ours.body
        );
        if page == "/ready" || theirs.status == 405 {
            assert_eq!(theirs.body, ours.body, "{method} {page}");
        }
    }
    for page in [
        "/clusters?format=json",
        "/listeners?format=json",
        "/certs",
        "/memory",
    ] {
        let [theirs, ours] = [&envoy, &ours].map(|proxy| {
            let page: Value = serde_json::from_str(&proxy.get(page).body).expect("JSON");
            let mut found = Vec::new();
            shape(&page, "", &mut found);
            found
        });
        // Ours may be without what we do not count; it says nothing that Envoy would not.
        let unknown: Vec<&String> = ours.iter().filter(|path| !theirs.contains(path)).collect();
        assert!(
            unknown.is_empty(),
            "{page}: {unknown:?} are not in {theirs:?}"
        );
    }
    let sections = |proxy: &Running| -> Vec<String> {
        let dump: Value = serde_json::from_str(&proxy.get("/config_dump").body).expect("JSON");
        let configs = dump["configs"].as_array().cloned().unwrap_or_default();
        configs
            .iter()
            .filter_map(|section| section["@type"].as_str().map(str::to_owned))
            .collect()
    };
    let (theirs, mine) = (sections(&envoy), sections(&ours));
    assert!(
        theirs.iter().all(|section| mine.contains(section)),
        "{theirs:?} {mine:?}"
    );
    for proxy in [&envoy, &ours] {
        let dump = proxy.get("/config_dump").body;
        assert!(
            dump.contains("[redacted]") && !dump.contains("PRIVATE KEY"),
            "a private key is shown"
        );
    }
}

/// Prometheus' own linter, where it is installed.
#[test]
fn the_exposition_is_well_formed() {
    let Both { envoy: _, ours } = both();
    for situation in SITUATIONS {
        ours.play(situation);
    }
    let page = ours.get("/stats/prometheus").body;
    let mut types = BTreeMap::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a type");
            assert!(
                types.insert(name, kind).is_none(),
                "{name} is declared twice"
            );
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| {
                let base = name.strip_suffix(suffix)?;
                (types.get(base) == Some(&"histogram")).then_some(base)
            })
            .unwrap_or(name);
        assert!(types.contains_key(base), "{line} has no type");
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line} has no number");
    }
    assert!(types.len() > 50, "{types:?}");
    Program::promtool_agrees(&page);
}
