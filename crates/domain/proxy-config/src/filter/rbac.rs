//! Role-based access control, network and HTTP (`envoy.extensions.filters.{network,http}.rbac.v3`).

use std::sync::Arc;

use crate::matcher::{CidrSet, HeaderMatcher, MetadataMatcher, StringMatcher, UriTemplate};

#[derive(Debug, Clone, PartialEq)]
pub struct Rbac {
    /// `None`: not enforced.
    pub rules: Option<Rules>,
    /// Evaluated and counted, never enforced.
    pub shadow_rules: Option<Rules>,
    /// Prefix of dynamic metadata keys and statistics of the shadow rules (`istio_dry_run_allow_`).
    pub shadow_rules_stat_prefix: Arc<str>,
    pub rules_stat_prefix: Arc<str>,
    /// Network filter: statistics prefix `<prefix>.rbac.`.
    pub stat_prefix: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub action: Action,
    /// Ordered by name, as Envoy evaluates them; the first that matches names itself.
    pub policies: Arc<[Policy]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Allowed only if a policy matches.
    Allow,
    /// Denied if a policy matches.
    Deny,
    /// Always allowed; a match is marked.
    Log,
}

/// Matches when one permission and one principal match.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub name: Arc<str>,
    pub permissions: Arc<[Permission]>,
    pub principals: Arc<[Principal]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    Any,
    And(Arc<[Permission]>),
    Or(Arc<[Permission]>),
    Not(Box<Permission>),
    Header(HeaderMatcher),
    /// Path without query.
    UrlPath(StringMatcher),
    UriTemplate(UriTemplate),
    DestinationIp(CidrSet),
    DestinationPort(u16),
    /// Half-open.
    DestinationPortRange {
        start: u32,
        end: u32,
    },
    Metadata(MetadataMatcher),
    RequestedServerName(StringMatcher),
    /// A matcher that this proxy cannot evaluate: it never matches in an ALLOW policy and always in
    /// a DENY policy.
    Unsupported(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    Any,
    And(Arc<[Principal]>),
    Or(Arc<[Principal]>),
    Not(Box<Principal>),
    /// `None`: any authenticated peer. Compared with each URI SAN, then each DNS SAN, then the
    /// subject.
    Authenticated(Option<StringMatcher>),
    /// The TCP peer.
    DirectRemoteIp(CidrSet),
    /// After X-Forwarded-For or PROXY protocol.
    RemoteIp(CidrSet),
    SourceIp(CidrSet),
    Header(HeaderMatcher),
    UrlPath(StringMatcher),
    Metadata(MetadataMatcher),
    /// Filter state (`io.istio.peer_principal`) as string.
    FilterState {
        key: Arc<str>,
        matcher: StringMatcher,
    },
    Unsupported(Arc<str>),
}
