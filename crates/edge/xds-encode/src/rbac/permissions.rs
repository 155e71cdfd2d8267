//! The `to` part of a rule and the conditions about the destination: what may be done.
#![allow(
    deprecated,
    reason = "metadata matchers in the form that every proxy of the field reads"
)]

use ipnet::IpNet;
use mesh_model::authorization_policy::{Condition, ConditionKey, Operation, ValuePattern, Values};
use wire_envoy::pb::{
    core::CidrRange,
    envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
    matcher::{PathMatcher, path_matcher},
    rbac::{Permission, permission},
    route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
};

use super::{Part, Scope, matchers};
use crate::{routes::header_is, wire};

pub(super) fn any() -> Permission {
    of(permission::Rule::Any(true))
}

fn of(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn one_of(rules: Vec<Permission>) -> Permission {
    of(permission::Rule::OrRules(permission::Set { rules }))
}

fn none_of(rules: Vec<Permission>) -> Permission {
    of(permission::Rule::NotRule(Box::new(one_of(rules))))
}

/// One entry for the wanted values and one for the unwanted ones, where there are any.
fn both(wanted: Vec<Permission>, unwanted: Vec<Permission>) -> Vec<Permission> {
    let wanted = (!wanted.is_empty()).then(|| one_of(wanted));
    let unwanted = (!unwanted.is_empty()).then(|| none_of(unwanted));
    wanted.into_iter().chain(unwanted).collect()
}

fn values(values: &Values, matcher: impl Fn(&ValuePattern) -> Permission) -> Vec<Permission> {
    both(
        values.any_of.iter().map(&matcher).collect(),
        values.none_of.iter().map(&matcher).collect(),
    )
}

impl Scope<'_> {
    /// `None`: matches nothing on this traffic.
    pub(super) fn permission(
        &self,
        to: Option<&Operation>,
        when: &[Condition],
    ) -> Option<Permission> {
        let mut parts = Vec::new();
        if let Some(Operation {
            hosts,
            ports,
            methods,
            paths,
        }) = to
        {
            parts.extend(
                values(hosts, host)
                    .into_iter()
                    .map(|part| self.http_only(part)),
            );
            parts.extend(
                values(methods, |method| header(":method", method))
                    .into_iter()
                    .map(|part| self.http_only(part)),
            );
            parts.extend(
                values(paths, path)
                    .into_iter()
                    .map(|part| self.http_only(part)),
            );
            let port = |port: &u16| of(permission::Rule::DestinationPort((*port).into()));
            parts.extend(
                both(
                    ports.any_of.iter().map(port).collect(),
                    ports.none_of.iter().map(port).collect(),
                )
                .into_iter()
                .map(Part::Is),
            );
        }
        parts.extend(when.iter().flat_map(condition).map(Part::Is));
        let mut rules = self.applicable(parts)?;
        if rules.is_empty() {
            rules.push(any());
        }
        Some(of(permission::Rule::AndRules(permission::Set { rules })))
    }
}

/// Conditions about the destination; those about the source are principals.
fn condition(condition: &Condition) -> Vec<Permission> {
    match &condition.key {
        ConditionKey::DestinationIp => addresses(&condition.values),
        ConditionKey::DestinationPort => ports(&condition.values),
        ConditionKey::ConnectionSni => values(&condition.values, |name| {
            of(permission::Rule::RequestedServerName(matchers::text(name)))
        }),
        ConditionKey::EnvoyFilterMetadata { filter, path } => {
            let path: Vec<&str> = path.iter().map(|key| &**key).collect();
            filter_metadata(filter, &path, &condition.values)
        }
        _ => Vec::new(),
    }
}

fn addresses(wanted: &Values) -> Vec<Permission> {
    let destination =
        |value: &ValuePattern| range(value).map(|range| of(permission::Rule::DestinationIp(range)));
    both(
        wanted.any_of.iter().filter_map(destination).collect(),
        wanted.none_of.iter().filter_map(destination).collect(),
    )
}

fn ports(wanted: &Values) -> Vec<Permission> {
    let port = |value: &ValuePattern| match value {
        ValuePattern::Exact(text) => text
            .parse::<u16>()
            .ok()
            .map(|port| of(permission::Rule::DestinationPort(port.into()))),
        _ => None,
    };
    both(
        wanted.any_of.iter().filter_map(port).collect(),
        wanted.none_of.iter().filter_map(port).collect(),
    )
}

/// `[value]` means a list that has the value.
fn filter_metadata(filter: &str, path: &[&str], wanted: &Values) -> Vec<Permission> {
    let entry = |value: &ValuePattern| {
        let matcher = match value {
            ValuePattern::Exact(text) => match text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'))
            {
                Some(inner) => matchers::list_value(wire::exact(inner)),
                None => matchers::string_value(wire::exact(&**text)),
            },
            other => matchers::string_value(matchers::text(other)),
        };
        of(permission::Rule::Metadata(matchers::metadata(
            filter, path, matcher,
        )))
    };
    let list = |patterns: &[ValuePattern]| match patterns {
        [] => None,
        [single] => Some(entry(single)),
        several => Some(one_of(several.iter().map(entry).collect())),
    };
    let unwanted = list(&wanted.none_of).map(|part| of(permission::Rule::NotRule(Box::new(part))));
    list(&wanted.any_of).into_iter().chain(unwanted).collect()
}

fn host(value: &ValuePattern) -> Permission {
    let mut matcher = header_matcher(":authority", value);
    if let Some(HeaderMatchSpecifier::StringMatch(text)) = &mut matcher.header_match_specifier {
        text.ignore_case = true;
    }
    of(permission::Rule::Header(matcher))
}

fn header(name: &str, value: &ValuePattern) -> Permission {
    of(permission::Rule::Header(header_matcher(name, value)))
}

/// A header's value; `*` only asks for the header.
pub(super) fn header_matcher(name: &str, value: &ValuePattern) -> HeaderMatcher {
    match value {
        ValuePattern::Present => HeaderMatcher {
            name: name.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..Default::default()
        },
        value => header_is(name, matchers::text(value)),
    }
}

fn path(value: &ValuePattern) -> Permission {
    if let ValuePattern::Template(template) = value {
        let config = UriTemplateMatchConfig {
            path_template: template.replace("{**}", "**").replace("{*}", "*"),
        };
        return of(permission::Rule::UriTemplate(wire::typed_extension(
            "uri-template",
            &config,
        )));
    }
    of(permission::Rule::UrlPath(PathMatcher {
        rule: Some(path_matcher::Rule::Path(matchers::text(value))),
    }))
}

/// An address or range written as text.
pub(super) fn range(value: &ValuePattern) -> Option<CidrRange> {
    let ValuePattern::Exact(text) = value else {
        return None;
    };
    let net = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))?;
    Some(wire::range(&net))
}
