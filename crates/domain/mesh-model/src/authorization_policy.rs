//! AuthorizationPolicy: who may call what (rows SEC-050 … SEC-060).

use std::sync::Arc;

use ipnet::IpNet;

use crate::object::{Meta, Selector, Text};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    pub meta: Meta,
    pub selector: Option<Selector>,
    pub action: PolicyAction,
    /// No rules: matches nothing. A rule without fields matches everything.
    pub rules: Arc<[Rule]>,
    /// `istio.io/dry-run`.
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyAction {
    Allow,
    Deny,
    Audit,
    /// Not supported yet: everything that the rules match is denied, and the reader reports it.
    Custom {
        provider: Text,
    },
}

/// From, to and when must all hold; within each, one entry must.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    pub from: Arc<[Source]>,
    pub to: Arc<[Operation]>,
    pub when: Arc<[Condition]>,
}

/// Fields are ANDed, values in a list ORed; an empty list does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    pub principals: Values,
    pub request_principals: Values,
    pub namespaces: Values,
    /// `ns/sa`.
    pub service_accounts: Values,
    pub trust_domains: Values,
    pub ip_blocks: Ranges,
    pub remote_ip_blocks: Ranges,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    pub hosts: Values,
    pub ports: PortSet,
    pub methods: Values,
    pub paths: Values,
}

/// `values` and `notValues` of the same field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    pub any_of: Arc<[ValuePattern]>,
    pub none_of: Arc<[ValuePattern]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges {
    pub any_of: Arc<[IpNet]>,
    pub none_of: Arc<[IpNet]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortSet {
    pub any_of: Arc<[u16]>,
    pub none_of: Arc<[u16]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValuePattern {
    Exact(Text),
    /// `prefix*`
    Prefix(Text),
    /// `*suffix`
    Suffix(Text),
    /// `*`
    Present,
    /// `/a/{*}/b/{**}`, paths only.
    Template(Text),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub key: ConditionKey,
    pub values: Values,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionKey {
    RequestHeader(Text),
    SourceIp,
    RemoteIp,
    SourceNamespace,
    SourceServiceAccount,
    SourceTrustDomain,
    SourcePrincipal,
    RequestPrincipal,
    RequestAudiences,
    RequestPresenter,
    /// `request.auth.claims[a][b]`
    RequestClaim(Arc<[Text]>),
    DestinationIp,
    DestinationPort,
    ConnectionSni,
    /// `experimental.envoy.filters.<filter>[key]`
    EnvoyFilterMetadata {
        filter: Text,
        path: Arc<[Text]>,
    },
}
