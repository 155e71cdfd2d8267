//! AuthorizationPolicy: who may call what (reference rows SEC-050 … SEC-060).
//!
//! A mistake here must never widen access: an empty source or operation, a condition without values, an unknown field are
//! errors, since each would otherwise match more than its author meant.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::AuthorizationPolicy;
use mesh_model::authorization_policy::{
    Condition, ConditionKey, Operation, PolicyAction, PortSet, Ranges, Rule, Source, ValuePattern,
    Values,
};
use mesh_model::object::Text;
use wire_kube::istio::authorization_policy as wire;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{has_targets, network, selector};

pub fn parse(cx: &mut Cx, spec: wire::AuthorizationPolicy) -> Option<AuthorizationPolicy> {
    let wire::AuthorizationPolicy {
        selector: who,
        target_ref,
        target_refs,
        rules,
        action,
        provider,
    } = spec;
    let targeted = has_targets(cx, &target_ref, &target_refs);
    if targeted && who.is_some() {
        cx.error("only one of selector and targetRefs may be set");
    }
    let selector = selector(cx, who);
    let action = policy_action(cx, action, provider);
    if matches!(
        action,
        PolicyAction::Deny | PolicyAction::Audit | PolicyAction::Custom { .. }
    ) && rules.is_empty()
    {
        cx.warning(
            "a policy without rules matches nothing: with DENY, AUDIT and CUSTOM it has no effect",
        );
    }
    let rules = cx.collect("rules", rules, rule);
    if action == PolicyAction::Deny && rules.iter().any(is_http_only) {
        cx.within("rules", |cx| {
            cx.warning("a DENY rule with nothing but HTTP attributes denies every connection to TCP ports in its scope: name the ports that it is for");
        });
    }
    let dry_run = match cx.meta.annotations.value("istio.io/dry-run") {
        None => false,
        Some(text) => text.parse().unwrap_or_else(|_| {
            cx.error(format!(
                "annotation istio.io/dry-run: {text:?} is neither true nor false"
            ));
            false
        }),
    };
    if targeted {
        return None;
    }
    Some(AuthorizationPolicy {
        meta: cx.meta.clone(),
        selector,
        action,
        rules: rules.into(),
        dry_run,
    })
}

fn policy_action(
    cx: &mut Cx,
    action: wire::Action,
    provider: Option<wire::Provider>,
) -> PolicyAction {
    if action != wire::Action::Custom && provider.is_some() {
        cx.error_at("provider", "belongs to action CUSTOM");
    }
    match action {
        wire::Action::Allow => PolicyAction::Allow,
        wire::Action::Deny => PolicyAction::Deny,
        wire::Action::Audit => PolicyAction::Audit,
        wire::Action::Custom => {
            let name = provider
                .map(|wire::Provider { name }| name)
                .unwrap_or_default();
            if name.is_empty() {
                cx.error_at("provider", "action CUSTOM needs provider.name");
            }
            cx.within("action", |cx| {
                cx.report(
                    Severity::Warning,
                    code::UNSUPPORTED_FIELD,
                    "action CUSTOM is not supported yet: whatever the rules match is denied",
                );
            });
            PolicyAction::Custom {
                provider: name.into(),
            }
        }
    }
}

fn rule(cx: &mut Cx, value: wire::Rule) -> Option<Rule> {
    let wire::Rule { from, to, when } = value;
    let from = cx.collect(
        "from",
        from,
        |cx, wire::From { source: value }| match value {
            Some(value) => Some(cx.within("source", |cx| source(cx, value))),
            None => {
                cx.error_at("source", "is needed");
                None
            }
        },
    );
    let to = cx.collect("to", to, |cx, wire::To { operation: value }| match value {
        Some(value) => Some(cx.within("operation", |cx| operation(cx, value))),
        None => {
            cx.error_at("operation", "is needed");
            None
        }
    });
    let when = cx.collect("when", when, condition);
    Some(Rule {
        from: from.into(),
        to: to.into(),
        when: when.into(),
    })
}

fn source(cx: &mut Cx, value: wire::RuleSource) -> Source {
    if value == wire::RuleSource::default() {
        cx.error("at least one field is needed: an empty source would match everybody");
    }
    #[rustfmt::skip]
    let wire::RuleSource {
        principals, not_principals, request_principals, not_request_principals, namespaces,
        not_namespaces, service_accounts, not_service_accounts, ip_blocks, not_ip_blocks,
        remote_ip_blocks, not_remote_ip_blocks, trust_domains, not_trust_domains,
    } = value;
    let mixes = !service_accounts.is_empty() || !not_service_accounts.is_empty();
    if mixes
        && !(principals.is_empty()
            && not_principals.is_empty()
            && namespaces.is_empty()
            && not_namespaces.is_empty())
    {
        cx.error("serviceAccounts cannot stand beside principals and namespaces");
    }
    Source {
        principals: values(
            cx,
            ("principals", &principals),
            ("notPrincipals", &not_principals),
            pattern,
        ),
        request_principals: values(
            cx,
            ("requestPrincipals", &request_principals),
            ("notRequestPrincipals", &not_request_principals),
            pattern,
        ),
        namespaces: values(
            cx,
            ("namespaces", &namespaces),
            ("notNamespaces", &not_namespaces),
            pattern,
        ),
        service_accounts: values(
            cx,
            ("serviceAccounts", &service_accounts),
            ("notServiceAccounts", &not_service_accounts),
            account,
        ),
        trust_domains: values(
            cx,
            ("trustDomains", &trust_domains),
            ("notTrustDomains", &not_trust_domains),
            pattern,
        ),
        ip_blocks: ranges(
            cx,
            ("ipBlocks", &ip_blocks),
            ("notIpBlocks", &not_ip_blocks),
        ),
        remote_ip_blocks: ranges(
            cx,
            ("remoteIpBlocks", &remote_ip_blocks),
            ("notRemoteIpBlocks", &not_remote_ip_blocks),
        ),
    }
}

fn operation(cx: &mut Cx, value: wire::Operation) -> Operation {
    if value == wire::Operation::default() {
        cx.error("at least one field is needed: an empty operation would match everything");
    }
    let wire::Operation {
        hosts,
        not_hosts,
        ports,
        not_ports,
        methods,
        not_methods,
        paths,
        not_paths,
    } = value;
    Operation {
        hosts: values(cx, ("hosts", &hosts), ("notHosts", &not_hosts), pattern),
        ports: PortSet {
            any_of: ports_of(cx, "ports", &ports),
            none_of: ports_of(cx, "notPorts", &not_ports),
        },
        methods: values(
            cx,
            ("methods", &methods),
            ("notMethods", &not_methods),
            pattern,
        ),
        paths: values(
            cx,
            ("paths", &paths),
            ("notPaths", &not_paths),
            path_pattern,
        ),
    }
}

/// Nothing in the rule can be told from a TCP connection.
fn is_http_only(rule: &Rule) -> bool {
    let set = |values: &Values| !values.any_of.is_empty() || !values.none_of.is_empty();
    let source = |s: &Source| {
        let by_connection = set(&s.principals)
            || set(&s.namespaces)
            || set(&s.service_accounts)
            || set(&s.trust_domains);
        let by_address =
            s.ip_blocks != Ranges::default() || s.remote_ip_blocks != Ranges::default();
        set(&s.request_principals) && !by_connection && !by_address
    };
    let operation = |o: &Operation| o.ports == PortSet::default();
    let condition = |c: &Condition| {
        matches!(
            c.key,
            ConditionKey::RequestHeader(_)
                | ConditionKey::RequestPrincipal
                | ConditionKey::RequestAudiences
                | ConditionKey::RequestPresenter
                | ConditionKey::RequestClaim(_)
        )
    };
    let something = !rule.from.is_empty() || !rule.to.is_empty() || !rule.when.is_empty();
    something
        && rule.from.iter().all(source)
        && rule.to.iter().all(operation)
        && rule.when.iter().all(condition)
}

type Field<'a> = (&'a str, &'a [String]);

fn values(
    cx: &mut Cx,
    any_of: Field,
    none_of: Field,
    read: fn(&mut Cx, &str) -> Option<ValuePattern>,
) -> Values {
    let mut side = |(field, items): Field| -> Arc<[ValuePattern]> {
        cx.collect(field, items, |cx, item| read(cx, item)).into()
    };
    Values {
        any_of: side(any_of),
        none_of: side(none_of),
    }
}

fn ranges(cx: &mut Cx, any_of: Field, none_of: Field) -> Ranges {
    let mut side = |(field, items): Field| -> Arc<[IpNet]> {
        cx.collect(field, items, |cx, item| network(cx, item))
            .into()
    };
    Ranges {
        any_of: side(any_of),
        none_of: side(none_of),
    }
}

fn ports_of(cx: &mut Cx, field: &str, items: &[String]) -> Arc<[u16]> {
    cx.collect(field, items, |cx, item| match item.parse::<u16>() {
        Ok(port) if port > 0 => Some(port),
        _ => {
            cx.error(format!("{item:?} is not a port from 1 to 65535"));
            None
        }
    })
    .into()
}

/// `exact`, `prefix*`, `*suffix`, `*`.
fn pattern(cx: &mut Cx, value: &str) -> Option<ValuePattern> {
    if value.is_empty() {
        cx.error("a value must not be empty");
        return None;
    }
    Some(match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => ValuePattern::Present,
        (Some(suffix), _) => ValuePattern::Suffix(suffix.into()),
        (None, Some(prefix)) => ValuePattern::Prefix(prefix.into()),
        (None, None) => ValuePattern::Exact(value.into()),
    })
}

/// A path may have `{*}` for one segment and `{**}` for any number.
fn path_pattern(cx: &mut Cx, value: &str) -> Option<ValuePattern> {
    if !value.contains("{*}") && !value.contains("{**}") {
        return pattern(cx, value);
    }
    let segments: Vec<&str> = value.split('/').collect();
    let malformed = segments
        .iter()
        .any(|s| s.contains(['{', '}', '*']) && !matches!(*s, "{*}" | "{**}"));
    let globs = segments.iter().filter(|s| **s == "{**}").count();
    if !value.starts_with('/') || malformed {
        cx.error(format!("{value:?}: in a path template `{{*}}` and `{{**}}` must be whole segments, without other wildcards"));
    } else if globs > 1 {
        cx.error(format!(
            "{value:?}: `{{**}}` may stand once in a path template"
        ));
    }
    Some(ValuePattern::Template(value.into()))
}

/// `namespace/account`, or an account of the policy's own namespace.
fn account(cx: &mut Cx, value: &str) -> Option<ValuePattern> {
    let full = match value.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            value.to_owned()
        }
        None if !value.is_empty() => format!("{}/{value}", cx.namespace()),
        _ => {
            cx.error(format!(
                "{value:?} is not a service account: write name or namespace/name"
            ));
            return None;
        }
    };
    if full.contains('*') {
        cx.error(format!(
            "{value:?}: wildcards are not supported in service accounts"
        ));
    }
    Some(ValuePattern::Exact(full.into()))
}

fn condition(cx: &mut Cx, value: wire::Condition) -> Option<Condition> {
    let wire::Condition {
        key,
        values: any_of,
        not_values,
    } = value;
    if any_of.is_empty() && not_values.is_empty() {
        cx.error("one of values and notValues is needed");
    }
    let Some(parsed) = condition_key(&key) else {
        cx.error_at("key", format!("{key:?} is not a condition that is known"));
        return None;
    };
    let (any, none) = (
        ("values", any_of.as_slice()),
        ("notValues", not_values.as_slice()),
    );
    match parsed {
        ConditionKey::SourceIp | ConditionKey::RemoteIp | ConditionKey::DestinationIp => {
            ranges(cx, any, none);
        }
        ConditionKey::DestinationPort => {
            ports_of(cx, any.0, any.1);
            ports_of(cx, none.0, none.1);
        }
        _ => {}
    }
    let read = match parsed {
        ConditionKey::SourceServiceAccount => account,
        ConditionKey::SourceIp
        | ConditionKey::RemoteIp
        | ConditionKey::DestinationIp
        | ConditionKey::DestinationPort => exact,
        // Keys of filters may hold lists, written [value].
        _ => pattern,
    };
    Some(Condition {
        key: parsed,
        values: values(cx, any, none, read),
    })
}

fn exact(_: &mut Cx, value: &str) -> Option<ValuePattern> {
    Some(ValuePattern::Exact(value.into()))
}

fn condition_key(key: &str) -> Option<ConditionKey> {
    Some(match key {
        "source.ip" => ConditionKey::SourceIp,
        "remote.ip" => ConditionKey::RemoteIp,
        "source.namespace" => ConditionKey::SourceNamespace,
        "source.serviceAccount" => ConditionKey::SourceServiceAccount,
        "source.trustDomain" => ConditionKey::SourceTrustDomain,
        "source.principal" => ConditionKey::SourcePrincipal,
        "request.auth.principal" => ConditionKey::RequestPrincipal,
        "request.auth.audiences" => ConditionKey::RequestAudiences,
        "request.auth.presenter" => ConditionKey::RequestPresenter,
        "destination.ip" => ConditionKey::DestinationIp,
        "destination.port" => ConditionKey::DestinationPort,
        "connection.sni" => ConditionKey::ConnectionSni,
        other => return bracketed_key(other),
    })
}

fn bracketed_key(key: &str) -> Option<ConditionKey> {
    if let Some(name) = key
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return (!name.is_empty())
            .then(|| ConditionKey::RequestHeader(name.to_ascii_lowercase().into()));
    }
    if let Some(rest) = key.strip_prefix("request.auth.claims") {
        return brackets(rest).map(ConditionKey::RequestClaim);
    }
    let rest = key.strip_prefix("experimental.")?;
    let (filter, path) = rest.split_once('[')?;
    (!filter.is_empty() && path.ends_with(']')).then(|| ConditionKey::EnvoyFilterMetadata {
        filter: filter.into(),
        path: Arc::new([Text::from(path.trim_end_matches(']'))]),
    })
}

/// `[a][b]` → a, b.
fn brackets(text: &str) -> Option<Arc<[Text]>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let parts: Vec<Text> = inner.split("][").map(Text::from).collect();
    parts
        .iter()
        .all(|p| !p.is_empty() && !p.contains(['[', ']']))
        .then(|| parts.into())
}
