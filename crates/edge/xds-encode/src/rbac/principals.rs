//! The `from` part of a rule and the conditions about the source: who may.
#![allow(
    deprecated,
    reason = "metadata matchers in the form that every proxy of the field reads"
)]

use ipnet::IpNet;
use mesh_model::{
    authorization_policy::{Condition, ConditionKey, Source, ValuePattern, Values},
    object::Text,
};
use wire_envoy::pb::{
    matcher::StringMatcher,
    rbac::{Principal, principal},
};

use super::{Part, Scope, matchers, permissions};
use crate::wire;

/// In policies it stands for the mesh's own trust domain, whatever that is.
const DEFAULT_DOMAIN: &str = "cluster.local";

type Rebuild = fn(Text) -> ValuePattern;

pub(super) fn any() -> Principal {
    of(principal::Identifier::Any(true))
}

fn of(identifier: principal::Identifier) -> Principal {
    Principal {
        identifier: Some(identifier),
    }
}

fn one_of(ids: Vec<Principal>) -> Principal {
    of(principal::Identifier::OrIds(principal::Set { ids }))
}

fn all_of(ids: Vec<Principal>) -> Principal {
    of(principal::Identifier::AndIds(principal::Set { ids }))
}

fn not(id: Principal) -> Principal {
    of(principal::Identifier::NotId(Box::new(id)))
}

fn both(wanted: Vec<Principal>, unwanted: Vec<Principal>) -> Vec<Principal> {
    let wanted = (!wanted.is_empty()).then(|| one_of(wanted));
    let unwanted = (!unwanted.is_empty()).then(|| not(one_of(unwanted)));
    wanted.into_iter().chain(unwanted).collect()
}

fn values(values: &Values, matcher: impl Fn(&ValuePattern) -> Vec<Principal>) -> Vec<Principal> {
    both(
        values.any_of.iter().flat_map(&matcher).collect(),
        values.none_of.iter().flat_map(&matcher).collect(),
    )
}

/// As `values`, but a single alternative stands by itself: what Istio does for parts of a token.
fn token(values: &Values, matcher: impl Fn(&ValuePattern) -> Principal) -> Vec<Principal> {
    let list = |patterns: &[ValuePattern]| match patterns {
        [] => None,
        [single] => Some(matcher(single)),
        several => Some(one_of(several.iter().map(&matcher).collect())),
    };
    list(&values.any_of)
        .into_iter()
        .chain(list(&values.none_of).map(not))
        .collect()
}

impl Scope<'_> {
    /// `None`: matches nobody on this traffic.
    pub(super) fn principal(&self, from: Option<&Source>, when: &[Condition]) -> Option<Principal> {
        let mut parts = Vec::new();
        if let Some(source) = from {
            let Source {
                principals,
                request_principals,
                namespaces,
                service_accounts,
                trust_domains,
                ip_blocks,
                remote_ip_blocks,
            } = source;
            parts.extend(
                values(service_accounts, |account| {
                    vec![self.service_account(account)]
                })
                .into_iter()
                .map(Part::Is),
            );
            parts.extend(
                values(principals, |name| self.peer(name))
                    .into_iter()
                    .map(Part::Is),
            );
            parts.extend(
                token(request_principals, request_principal)
                    .into_iter()
                    .map(|part| self.http_only(part)),
            );
            parts.extend(
                values(namespaces, |name| vec![namespace(name)])
                    .into_iter()
                    .map(Part::Is),
            );
            parts.extend(
                values(trust_domains, |name| vec![trust_domain(name)])
                    .into_iter()
                    .map(Part::Is),
            );
            let remote = |net: &IpNet| of(principal::Identifier::RemoteIp(wire::range(net)));
            let direct = |net: &IpNet| of(principal::Identifier::DirectRemoteIp(wire::range(net)));
            parts.extend(
                both(
                    remote_ip_blocks.any_of.iter().map(remote).collect(),
                    remote_ip_blocks.none_of.iter().map(remote).collect(),
                )
                .into_iter()
                .map(Part::Is),
            );
            parts.extend(
                both(
                    ip_blocks.any_of.iter().map(direct).collect(),
                    ip_blocks.none_of.iter().map(direct).collect(),
                )
                .into_iter()
                .map(Part::Is),
            );
        }
        parts.extend(when.iter().flat_map(|condition| self.condition(condition)));
        let mut ids = self.applicable(parts)?;
        if ids.is_empty() {
            ids.push(any());
        }
        Some(all_of(ids))
    }

    /// Conditions about the source; those about the destination are permissions.
    fn condition(&self, condition: &Condition) -> Vec<Part<Principal>> {
        let wanted = &condition.values;
        let http =
            |parts: Vec<Principal>| parts.into_iter().map(|part| self.http_only(part)).collect();
        let every = |parts: Vec<Principal>| parts.into_iter().map(Part::Is).collect();
        match &condition.key {
            ConditionKey::RequestHeader(name) => http(values(wanted, |value| {
                vec![of(principal::Identifier::Header(
                    permissions::header_matcher(name, value),
                ))]
            })),
            ConditionKey::SourceIp => every(values(wanted, |value| {
                permissions::range(value)
                    .map(|range| of(principal::Identifier::DirectRemoteIp(range)))
                    .into_iter()
                    .collect()
            })),
            ConditionKey::RemoteIp => every(values(wanted, |value| {
                permissions::range(value)
                    .map(|range| of(principal::Identifier::RemoteIp(range)))
                    .into_iter()
                    .collect()
            })),
            ConditionKey::SourceNamespace => every(values(wanted, |name| vec![namespace(name)])),
            ConditionKey::SourceServiceAccount => every(values(wanted, |account| {
                vec![self.service_account(account)]
            })),
            ConditionKey::SourceTrustDomain => {
                every(values(wanted, |name| vec![trust_domain(name)]))
            }
            ConditionKey::SourcePrincipal => every(values(wanted, |name| self.peer(name))),
            ConditionKey::RequestPrincipal => http(token(wanted, request_principal)),
            ConditionKey::RequestAudiences => {
                http(token(wanted, |value| claim(&["aud".into()], value)))
            }
            ConditionKey::RequestPresenter => {
                http(token(wanted, |value| claim(&["azp".into()], value)))
            }
            ConditionKey::RequestClaim(path) => http(token(wanted, |value| claim(path, value))),
            ConditionKey::DestinationIp
            | ConditionKey::DestinationPort
            | ConditionKey::ConnectionSni
            | ConditionKey::EnvoyFilterMetadata { .. } => Vec::new(),
        }
    }

    /// A certificate's SPIFFE id without its scheme; the mesh's own trust domain stands for its aliases too (row SEC-053).
    fn peer(&self, name: &ValuePattern) -> Vec<Principal> {
        self.in_every_domain(name)
            .iter()
            .map(|name| {
                authenticated(match name {
                    ValuePattern::Present => matchers::something(),
                    name => matchers::text_with_prefix(name, "spiffe://"),
                })
            })
            .collect()
    }

    /// The name, and what it means in the mesh's other trust domains. (pilot's
    /// `ReplaceTrustDomainAliases`.)
    fn in_every_domain(&self, name: &ValuePattern) -> Vec<ValuePattern> {
        let domains: Vec<&str> = std::iter::once(&self.mesh.trust_domain)
            .chain(self.mesh.trust_domain_aliases.iter())
            .map(|domain| domain.as_str())
            .collect();
        let (text, rebuild): (&Text, Rebuild) = match name {
            ValuePattern::Exact(text) => (text, ValuePattern::Exact),
            ValuePattern::Prefix(text) => (text, ValuePattern::Prefix),
            ValuePattern::Suffix(text) => return suffix_in_every_domain(name, text, &domains),
            ValuePattern::Present | ValuePattern::Template(_) => return vec![name.clone()],
        };
        match text.split_once('/') {
            Some((domain, path)) if domain == DEFAULT_DOMAIN || domains.contains(&domain) => {
                let everywhere = domains.iter().map(|domain| format!("{domain}/{path}"));
                everywhere.map(|id| rebuild(id.into())).collect()
            }
            _ => vec![name.clone()],
        }
    }

    /// `namespace/name`, or a name in the policy's own namespace.
    fn service_account(&self, account: &ValuePattern) -> Principal {
        let ValuePattern::Exact(text) = account else {
            return authenticated(wire::pattern(format!(
                "spiffe://.+/ns/.+/(.+/|)sa/{}(/.+)?",
                matchers::expression(account)
            )));
        };
        let (namespace, name) = text.split_once('/').unwrap_or((self.namespace, text));
        let (namespace, name) = (matchers::escaped(namespace), matchers::escaped(name));
        authenticated(wire::pattern(format!(
            "spiffe://.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?"
        )))
    }
}

/// `*bar/ns/…`: where it means one of the mesh's trust domains, it means the same identity in the
/// others too. `*/ns/…` means every domain as it is.
fn suffix_in_every_domain(name: &ValuePattern, text: &str, domains: &[&str]) -> Vec<ValuePattern> {
    let mut found = vec![name.clone()];
    if let Some((end, path)) = text.split_once('/')
        && !end.is_empty()
        && domains.iter().any(|domain| domain.ends_with(end))
    {
        let others = domains.iter().filter(|domain| !domain.ends_with(end));
        found.extend(others.map(|domain| ValuePattern::Exact(format!("{domain}/{path}").into())));
    }
    found
}

fn authenticated(name: StringMatcher) -> Principal {
    of(principal::Identifier::Authenticated(
        principal::Authenticated {
            principal_name: Some(name),
        },
    ))
}

fn namespace(name: &ValuePattern) -> Principal {
    authenticated(wire::pattern(format!(
        ".*/ns/{}/.*",
        matchers::expression(name)
    )))
}

fn trust_domain(name: &ValuePattern) -> Principal {
    authenticated(match name {
        ValuePattern::Exact(domain) => wire::prefix(format!("spiffe://{domain}/")),
        other => wire::pattern(format!(
            "spiffe://{}/.*",
            matchers::expression(other).replace(".*", "[^/]*")
        )),
    })
}

/// `issuer/subject` of a verified token.
fn request_principal(value: &ValuePattern) -> Principal {
    let claims = |issuer: StringMatcher, subject: StringMatcher| {
        let claim = |name: &str, matcher| {
            of(principal::Identifier::Metadata(matchers::claim(
                &[name.into()],
                matchers::string_value(matcher),
            )))
        };
        all_of(vec![claim("iss", issuer), claim("sub", subject)])
    };
    match value {
        ValuePattern::Present => claims(matchers::something(), matchers::something()),
        ValuePattern::Exact(text) | ValuePattern::Template(text) => {
            let (issuer, subject) = text.rsplit_once('/').unwrap_or(("", text));
            claims(wire::exact(issuer), wire::exact(subject))
        }
        ValuePattern::Prefix(text) => match text.rsplit_once('/') {
            Some((issuer, subject)) => claims(
                wire::exact(issuer),
                if subject.is_empty() {
                    matchers::something()
                } else {
                    wire::prefix(subject)
                },
            ),
            None => claims(wire::prefix(&**text), matchers::something()),
        },
        ValuePattern::Suffix(text) => match text.rsplit_once('/') {
            Some((issuer, subject)) => claims(wire::suffix(issuer), wire::exact(subject)),
            None => claims(matchers::something(), wire::suffix(&**text)),
        },
    }
}

fn claim(path: &[Text], value: &ValuePattern) -> Principal {
    of(principal::Identifier::Metadata(matchers::claim(
        path,
        matchers::list_or_string(matchers::text(value)),
    )))
}
