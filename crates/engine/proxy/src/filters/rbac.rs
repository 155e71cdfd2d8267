//! Authorization: which requests and connections may pass, by Envoy's role-based access control.
//!
//! [`decide`] is a pure function of rules and facts; the HTTP filter below and `network` share it.
//! A matcher that cannot be evaluated here (unsupported, or about HTTP on a plain connection) has
//! the value "unknown" through all `and`, `or` and `not`: an ALLOW policy matches only what
//! certainly matches, a DENY policy all that possibly does. Shadow rules are counted and told by
//! dynamic metadata, from which Istio's dry run is read, and never decide. Follows
//! `envoy.extensions.filters.http.rbac.v3`.

use std::{net::IpAddr, sync::Arc};

use http::StatusCode;
use proxy_config::{
    filter::{
        PerRouteConfig,
        rbac::{Action, Permission, Policy, Principal, Rbac, Rules},
    },
    matcher::{CidrSet, HeaderView, MetadataMatcher, StringMatcher},
    metadata::{Metadata, Value},
};
use telemetry::{
    record::{Address, TlsInfo},
    stats::{Counter, Scope, Store},
};

use crate::{
    chain::ConnectionFacts,
    filters::flow::{Flow, Run, note, per_route},
    local_reply::LocalReply,
    request::Request,
    route::split_path,
};

/// The filter's dynamic metadata.
const HTTP_NAMESPACE: &str = "envoy.filters.http.rbac";
const NETWORK_NAMESPACE: &str = "envoy.filters.network.rbac";
/// What Istio's authentication filters leave in the filter state.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";
const LOCAL_PRINCIPAL: &str = "io.istio.local_principal";

/// What rules can look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// `None`: a plain connection.
    pub head: Option<HeaderView<'a>>,
    pub connection: &'a ConnectionFacts,
    /// The client's address, after X-Forwarded-For and PROXY protocol.
    pub remote: IpAddr,
    pub tls: Option<&'a TlsInfo>,
    pub metadata: &'a Metadata,
}

/// What rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'r> {
    pub allowed: bool,
    /// The first policy that matched, whatever follows from it.
    pub policy: Option<&'r Arc<str>>,
}

/// What one filter keeps across requests and workers: counters and the keys of its metadata.
pub struct State {
    allowed: Counter,
    denied: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
    enforced: Keys,
    shadow: Keys,
    /// Keeps the series alive.
    _scope: Scope,
}

struct Keys {
    policy: Arc<str>,
    result: Arc<str>,
    is_allowed: Value,
    is_denied: Value,
}

impl State {
    /// `prefix`: `http.<name>.` or, for connections, the filter's own.
    pub fn new(stats: &Store, prefix: &str, config: &Rbac) -> Self {
        let scope = stats.scope(&format!("{prefix}rbac."));
        let (own, shadow) = (
            &*config.rules_stat_prefix,
            &*config.shadow_rules_stat_prefix,
        );
        // Envoy puts a dot between prefix and name here, but none into the metadata's keys.
        let counter = |prefix: &str, name: &str| match prefix.trim_end_matches('.') {
            "" => scope.counter(name),
            prefix => scope.counter(&format!("{prefix}.{name}")),
        };
        Self {
            allowed: counter(own, "allowed"),
            denied: counter(own, "denied"),
            shadow_allowed: counter(shadow, "shadow_allowed"),
            shadow_denied: counter(shadow, "shadow_denied"),
            enforced: Keys::new(&format!("{own}enforced")),
            shadow: Keys::new(&format!("{shadow}shadow")),
            _scope: scope,
        }
    }

    /// Evaluates both rule sets, counts, and notes what they say. `Err`: refused, with the name of
    /// the policy.
    fn judge(
        &self,
        config: &Rbac,
        facts: &Facts<'_>,
        notes: &mut Notes,
    ) -> Result<(), Option<Arc<str>>> {
        if let Some(rules) = &config.shadow_rules {
            let decision = decide(rules, facts);
            if decision.allowed {
                self.shadow_allowed.inc()
            } else {
                self.shadow_denied.inc()
            }
            notes.decision(&self.shadow, &decision);
        }
        let Some(rules) = &config.rules else {
            return Ok(());
        };
        let decision = decide(rules, facts);
        if rules.action == Action::Log {
            notes.log_hint = Some(decision.policy.is_some());
        }
        if decision.allowed {
            self.allowed.inc();
            Ok(())
        } else {
            self.denied.inc();
            if notes.tell_enforced {
                notes.decision(&self.enforced, &decision);
            }
            Err(decision.policy.cloned())
        }
    }

    /// Judges a plain connection. `Err`: the `connection_termination_details` to close it with.
    pub fn judge_connection(
        &self,
        config: &Rbac,
        facts: &Facts<'_>,
        metadata: &mut Metadata,
    ) -> Result<(), String> {
        let mut notes = Notes::default();
        let verdict = self.judge(config, facts, &mut notes);
        notes.write(NETWORK_NAMESPACE, metadata);
        verdict.map_err(|policy| details(policy.as_deref()))
    }
}

impl Keys {
    fn new(prefix: &str) -> Self {
        Self {
            policy: format!("{prefix}_effective_policy_id").into(),
            result: format!("{prefix}_engine_result").into(),
            is_allowed: Value::String("allowed".into()),
            is_denied: Value::String("denied".into()),
        }
    }
}

/// Dynamic metadata to be set.
#[derive(Default)]
struct Notes {
    fields: Vec<(Arc<str>, Value)>,
    /// The HTTP filter tells of refusals, too (what passes says nothing, as every request would pay
    /// for it).
    tell_enforced: bool,
    /// `envoy.common: access_log_hint`, from LOG rules.
    log_hint: Option<bool>,
}

impl Notes {
    fn decision(&mut self, keys: &Keys, decision: &Decision<'_>) {
        if let Some(policy) = decision.policy {
            self.fields
                .push((keys.policy.clone(), Value::String(policy.clone())));
        }
        let result = if decision.allowed {
            &keys.is_allowed
        } else {
            &keys.is_denied
        };
        self.fields.push((keys.result.clone(), result.clone()));
    }

    fn write(self, namespace: &str, metadata: &mut Metadata) {
        if !self.fields.is_empty() {
            note(metadata, namespace, self.fields);
        }
        if let Some(hint) = self.log_hint {
            note(
                metadata,
                "envoy.common",
                [(Arc::from("access_log_hint"), Value::Bool(hint))],
            );
        }
    }
}

/// The HTTP filter.
pub fn on_request(run: Run<'_>, config: &Rbac, state: &State, request: &mut Request) -> Flow {
    let of_route = match per_route(request, run.name) {
        Some(PerRouteConfig::Rbac(None)) => return Flow::Continue,
        Some(PerRouteConfig::Rbac(Some(config))) => Some(config.clone()),
        _ => None,
    };
    let config = of_route.as_deref().unwrap_or(config);
    let mut notes = Notes {
        tell_enforced: true,
        ..Notes::default()
    };
    let verdict = state.judge(config, &facts(request), &mut notes);
    notes.write(HTTP_NAMESPACE, &mut request.metadata);
    match verdict {
        Ok(()) => Flow::Continue,
        Err(policy) => Flow::Respond(LocalReply::new(
            request,
            StatusCode::FORBIDDEN,
            "RBAC: access denied",
            details(policy.as_deref()),
        )),
    }
}

fn facts(request: &Request) -> Facts<'_> {
    let connection = &request.downstream.facts;
    let remote = match &request.record.downstream_remote {
        Some(Address::Socket(address)) => address.ip(),
        _ => connection.source.ip(),
    };
    let tls = request.downstream.tls.as_ref().map(|tls| &*tls.info);
    Facts {
        head: Some(request.view()),
        connection,
        remote,
        tls,
        metadata: &request.metadata,
    }
}

/// Envoy's response code details. White space would break a log line into other columns.
fn details(policy: Option<&str>) -> String {
    let name: String = policy
        .unwrap_or("none")
        .chars()
        .map(|c| if c.is_ascii_whitespace() { '_' } else { c })
        .collect();
    format!("rbac_access_denied_matched_policy[{name}]")
}

/// Evaluates rules.
pub fn decide<'r>(rules: &'r Rules, facts: &Facts<'_>) -> Decision<'r> {
    let matched = rules
        .policies
        .iter()
        .find(|policy| match is_match(policy, facts) {
            Truth::Yes => true,
            Truth::No => false,
            Truth::Unknown => rules.action != Action::Allow,
        });
    let allowed = match rules.action {
        Action::Allow => matched.is_some(),
        Action::Deny => matched.is_none(),
        Action::Log => true,
    };
    Decision {
        allowed,
        policy: matched.map(|policy| &policy.name),
    }
}

/// Kleene's three values, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Unknown,
    Yes,
}

impl Truth {
    fn all(values: impl IntoIterator<Item = Truth>) -> Self {
        values.into_iter().min().unwrap_or(Self::Yes)
    }

    fn any(values: impl IntoIterator<Item = Truth>) -> Self {
        values.into_iter().max().unwrap_or(Self::No)
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

fn is_match(policy: &Policy, facts: &Facts<'_>) -> Truth {
    // The cheaper side first would differ by policy; most policies are told apart by who is asking.
    match Truth::any(policy.principals.iter().map(|p| principal(p, facts))) {
        Truth::No => Truth::No,
        who => who.min(Truth::any(
            policy.permissions.iter().map(|p| permission(p, facts)),
        )),
    }
}

fn permission(wanted: &Permission, facts: &Facts<'_>) -> Truth {
    let destination = facts.connection.destination;
    match wanted {
        Permission::Any => Truth::Yes,
        Permission::And(all) => Truth::all(all.iter().map(|p| permission(p, facts))),
        Permission::Or(any) => Truth::any(any.iter().map(|p| permission(p, facts))),
        Permission::Not(inner) => permission(inner, facts).not(),
        Permission::Header(header) => of_head(facts, |head| header.is_match(head)),
        Permission::UrlPath(path) => of_head(facts, |head| path.is_match(split_path(head.path).0)),
        Permission::UriTemplate(template) => {
            of_head(facts, |head| template.0.is_match(split_path(head.path).0))
        }
        Permission::DestinationIp(set) => contains(set, destination.ip()),
        Permission::DestinationPort(port) => (*port == destination.port()).into(),
        Permission::DestinationPortRange { start, end } => {
            (*start..*end).contains(&destination.port().into()).into()
        }
        Permission::Metadata(matcher) => metadata(matcher, facts),
        Permission::RequestedServerName(name) => name
            .is_match(facts.connection.server_name.as_deref().unwrap_or_default())
            .into(),
        Permission::Unsupported(_) => Truth::Unknown,
    }
}

fn principal(wanted: &Principal, facts: &Facts<'_>) -> Truth {
    match wanted {
        Principal::Any => Truth::Yes,
        Principal::And(all) => Truth::all(all.iter().map(|p| principal(p, facts))),
        Principal::Or(any) => Truth::any(any.iter().map(|p| principal(p, facts))),
        Principal::Not(inner) => principal(inner, facts).not(),
        Principal::Authenticated(name) => is_authenticated(name.as_ref(), facts.tls).into(),
        Principal::DirectRemoteIp(set) => contains(set, facts.connection.direct_source.ip()),
        Principal::RemoteIp(set) => contains(set, facts.remote),
        Principal::SourceIp(set) => contains(set, facts.connection.source.ip()),
        Principal::Header(header) => of_head(facts, |head| header.is_match(head)),
        Principal::UrlPath(path) => of_head(facts, |head| path.is_match(split_path(head.path).0)),
        Principal::Metadata(matcher) => metadata(matcher, facts),
        Principal::FilterState { key, matcher } => filter_state(key, matcher, facts.tls),
        Principal::Unsupported(_) => Truth::Unknown,
    }
}

/// A connection without requests says nothing about them.
fn of_head(facts: &Facts<'_>, test: impl FnOnce(&HeaderView<'_>) -> bool) -> Truth {
    facts
        .head
        .as_ref()
        .map_or(Truth::Unknown, |head| test(head).into())
}

fn contains(set: &CidrSet, ip: IpAddr) -> Truth {
    set.contains(ip.to_canonical()).into()
}

fn metadata(matcher: &MetadataMatcher, facts: &Facts<'_>) -> Truth {
    (matcher
        .value
        .is_match(facts.metadata.lookup(&matcher.filter, &matcher.path))
        != matcher.invert)
        .into()
}

/// Only a certificate that was verified names anyone.
fn is_authenticated(name: Option<&StringMatcher>, tls: Option<&TlsInfo>) -> bool {
    let Some(tls) = tls.filter(|tls| tls.mutual) else {
        return false;
    };
    let Some(name) = name else { return true };
    let mut sans = tls.peer_uri_sans.iter().chain(&tls.peer_dns_sans);
    sans.any(|san| name.is_match(san))
        || name.is_match(tls.peer_subject.as_deref().unwrap_or_default())
}

fn filter_state(key: &str, matcher: &StringMatcher, tls: Option<&TlsInfo>) -> Truth {
    let tls = tls.filter(|tls| tls.mutual);
    let names = match key {
        PEER_PRINCIPAL => tls.map(|tls| &tls.peer_uri_sans),
        LOCAL_PRINCIPAL => tls.map(|tls| &tls.local_uri_sans),
        _ => return Truth::Unknown,
    };
    names
        .and_then(|names| names.first())
        .is_some_and(|name| matcher.is_match(name))
        .into()
}

#[cfg(test)]
mod tests;
