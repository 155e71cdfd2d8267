//! Small values that several kinds share: exportTo, selectors, patterns, percentages, addresses,
//! protocols.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::matching::{Millionths, StringMatch};
use mesh_model::mesh_config::ExportToDefault;
use mesh_model::object::{ExportTo, Labels, Selector, Text};
use mesh_model::port::{Port, Protocol};
use serde_json::Value;
use telemetry::access_log::{Environment, Format};
use wire_kube::istio::selector::{PolicyTargetReference, WorkloadSelector};
use wire_kube::istio::virtual_service as vs;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::re2;

/// `None` for the empty string.
pub fn text(value: &str) -> Option<Text> {
    (!value.is_empty()).then(|| value.into())
}

pub fn texts(values: &[String]) -> Arc<[Text]> {
    values.iter().map(|v| Text::from(v.as_str())).collect()
}

pub fn labels(map: &BTreeMap<String, String>) -> Labels {
    map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

/// `None` and an empty selector both mean every workload.
pub fn selector(cx: &mut Cx, value: Option<WorkloadSelector>) -> Option<Selector> {
    let WorkloadSelector { match_labels } = value?;
    cx.within("selector", |cx| {
        cx.within("matchLabels", |cx| checked_labels(cx, &match_labels))
    })
}

/// Labels that select; wildcards and empty keys are refused.
pub fn checked_labels(cx: &mut Cx, map: &BTreeMap<String, String>) -> Option<Selector> {
    for (key, value) in map {
        if key.is_empty() {
            cx.error("a label must have a name");
        }
        if key.contains('*') || value.contains('*') {
            cx.within(key, |cx| {
                cx.error(format!(
                    "{value:?}: wildcards are not supported in label selectors"
                ))
            });
        }
    }
    (!map.is_empty()).then(|| Selector(labels(map)))
}

/// A policy that is bound to objects of Gateway API or to services is not for sidecars; such
/// targets are not supported yet. True when the policy has targets, so that it must not be taken
/// for one of its whole namespace.
pub fn has_targets(
    cx: &mut Cx,
    one: &Option<PolicyTargetReference>,
    many: &[PolicyTargetReference],
) -> bool {
    for (field, is_set) in [
        ("targetRef", one.is_some()),
        ("targetRefs", !many.is_empty()),
    ] {
        if is_set {
            let message = "targets are not supported yet: this object is not used at all";
            cx.within(field, |cx| {
                cx.report(Severity::Warning, code::UNSUPPORTED_FIELD, message)
            });
        }
    }
    one.is_some() || !many.is_empty()
}

/// `exportTo` (standing in `field`), or the mesh's default.
pub fn export_to(
    cx: &mut Cx,
    field: &str,
    values: &[String],
    default: &ExportToDefault,
) -> ExportTo {
    let own = cx.namespace().clone();
    if values.is_empty() {
        return default.for_namespace(&own);
    }
    let is_repeated = |(i, v): (usize, &String)| values.iter().take(i).any(|before| before == v);
    if values.iter().enumerate().any(is_repeated) {
        cx.error_at(field, "the same namespace is listed twice");
    }
    let has = |special: &str| values.iter().any(|v| v == special);
    if (has("*") || has("~")) && values.len() > 1 {
        cx.error_at(field, "`*` and `~` must stand alone");
    }
    let is_known = |v: &&String| matches!(v.as_str(), "*" | "." | "~") || is_dns_label(v);
    for value in values.iter().filter(|v| !is_known(v)) {
        cx.error_at(
            field,
            format!("{value:?} is neither a namespace nor one of `*`, `.`, `~`"),
        );
    }
    if has("*") {
        return ExportTo::All;
    }
    if has("~") {
        if matches!(cx.kind(), "VirtualService" | "DestinationRule") {
            cx.error_at(field, "`~` (nobody) would leave this object without effect: leave it out, or name namespaces");
        }
        return ExportTo::None;
    }
    let named = values.iter().map(|v| match v.as_str() {
        "." => own.clone(),
        name => name.into(),
    });
    ExportTo::Namespaces(named.collect())
}

pub fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// One of exact, prefix, regex; none, an empty prefix, or a regex `*`, means that the value is
/// there.
pub fn string_match(cx: &mut Cx, value: vs::StringMatch) -> Option<StringMatch> {
    let vs::StringMatch {
        exact,
        prefix,
        regex,
    } = value;
    match (exact, prefix, regex) {
        (None, None, None) => Some(StringMatch::Present),
        (Some(exact), None, None) => Some(StringMatch::Exact(exact.into())),
        // Every value begins so, and Envoy refuses a prefix without a letter.
        (None, Some(prefix), None) if prefix.is_empty() => Some(StringMatch::Present),
        (None, Some(prefix), None) => Some(StringMatch::Prefix(prefix.into())),
        (None, None, Some(regex)) if regex == "*" => Some(StringMatch::Present),
        (None, None, Some(regex)) => {
            check_regex(cx, "regex", &regex);
            Some(StringMatch::Regex(regex.into()))
        }
        _ => {
            cx.error("only one of exact, prefix and regex may be set");
            None
        }
    }
}

/// RE2's syntax and at most 1024 characters. The answer is the number of groups.
pub fn check_regex(cx: &mut Cx, field: &str, regex: &str) -> Option<usize> {
    if regex.is_empty() {
        cx.error_at(field, "a regular expression must not be empty");
        return None;
    }
    if regex.len() > 1024 {
        cx.error_at(
            field,
            format!(
                "{} characters: a regular expression must have at most 1024",
                regex.len()
            ),
        );
        return None;
    }
    re2::groups_of(regex)
        .map_err(|why| cx.error_at(field, format!("{regex:?} {why}")))
        .ok()
}

/// An expression (CEL) as the proxies evaluate it: one that they cannot would cost a proxy the
/// listener that it stands in.
pub fn check_expression(cx: &mut Cx, field: &str, text: &str) {
    if let Err(e) = telemetry::cel::Expression::parse(text) {
        cx.error_at(field, e.to_string());
    }
}

/// A line of an access log, or a value that is put together like one.
pub fn check_log_format(cx: &mut Cx, field: &str, text: &str) {
    if let Err(e) = Format::parse(text, &Environment::default(), false) {
        cx.error_at(field, e.to_string());
    }
}

/// The value of a header that is set or added: Envoy reads it as it reads formats of access logs
/// (`%REQ(:path)%`), so a percent sign of its own is written twice.
pub fn check_header_value(cx: &mut Cx, value: &str) {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        cx.error("a header's value holds no line breaks or other control characters");
    }
    if let Err(e) = Format::parse(value, &Environment::default(), false) {
        let e = e.to_string();
        let what = e.strip_prefix("access log format: ").unwrap_or(&e);
        cx.error(format!(
            "{what}; write `%%` for a percent sign that is meant as such"
        ));
    }
}

/// The same as JSON.
pub fn check_json_format(cx: &mut Cx, field: &str, value: &Value) {
    if let Err(e) = Format::json(value, &Environment::default(), false) {
        cx.error_at(field, e.to_string());
    }
}

/// A share of 100.
pub fn percent(cx: &mut Cx, value: f64) -> Option<Millionths> {
    let share = Millionths::from_percent(value);
    if share.is_none() {
        cx.error(format!("{value}: a percentage must be from 0 to 100"));
    }
    share
}

/// A whole percentage.
pub fn whole_percent(cx: &mut Cx, field: &str, value: i32) -> u32 {
    match u32::try_from(value) {
        Ok(percent) if percent <= 100 => percent,
        _ => {
            cx.error_at(
                field,
                format!("{value}: a percentage must be from 0 to 100"),
            );
            0
        }
    }
}

/// An address or a range in CIDR form.
pub fn network(cx: &mut Cx, text: &str) -> Option<IpNet> {
    let net = parse_network(text);
    if net.is_none() {
        cx.error(format!(
            "{text:?} is neither an IP address nor a range such as 10.0.0.0/8"
        ));
    }
    net
}

pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The protocol that `appProtocol` declares, else the port's name, else (for ports that never carry
/// HTTP) its number.
pub fn protocol(app_protocol: &str, name: &str, number: u16, transport: &str) -> Protocol {
    if matches!(transport, "UDP" | "SCTP") {
        return Protocol::Udp;
    }
    if !app_protocol.is_empty() {
        return Protocol::parse(app_protocol).unwrap_or(Protocol::Auto);
    }
    if let Some(protocol) = protocol_of_name(name) {
        return protocol;
    }
    match number {
        25 | 53 | 3306 | 27017 => Protocol::Tcp,
        _ => Protocol::Auto,
    }
}

/// `http`, `http-web`, `grpc-web`, `grpc-web-api`, …
fn protocol_of_name(name: &str) -> Option<Protocol> {
    let lower = name.to_ascii_lowercase();
    if lower == "grpc-web" || lower.starts_with("grpc-web-") {
        return Some(Protocol::GrpcWeb);
    }
    let prefix = lower.split('-').next().unwrap_or_default();
    // The long names belong to appProtocol only.
    (!prefix.contains('/'))
        .then(|| Protocol::parse(prefix))
        .flatten()
}

/// A port as Gateway, ServiceEntry and Sidecar declare it. Without a protocol it is found out from
/// the traffic.
pub fn declared_port(cx: &mut Cx, number: u32, protocol: &str, name: &str) -> Option<Port> {
    let number = cx.within("number", |cx| cx.port_number(number));
    let protocol = match (protocol, Protocol::parse(protocol)) {
        ("", _) => Some(Protocol::Auto),
        (_, Some(protocol)) => Some(protocol),
        (written, _) => {
            cx.error_at("protocol", format!("{written:?} is not a protocol: use HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS"));
            None
        }
    };
    Some(Port {
        number: number?,
        name: name.into(),
        protocol: protocol?,
    })
}
