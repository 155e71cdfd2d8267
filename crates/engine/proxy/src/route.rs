//! Which route takes a request.
//!
//! Pure: a table prepared once ([`LiveRouteTable`]), the facts of a request, and a random number
//! for fractions and weights. A virtual host is found by hashing, never by walking all of them; its
//! routes are tried in order and the first match wins. Precedence of domains: exact, longest
//! `*.suffix`, longest `prefix.*`, `*`. Follows `envoy.config.route.v3`.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use proxy_config::{
    ClusterName, RouteTable,
    matcher::{HeaderView, QueryMatcher},
    metadata::Metadata,
    route::{PathMatch, Route, RouteMatch, Target, TlsContextMatch, VirtualHost},
};

#[cfg(test)]
mod tests;

type Domains = HashMap<Box<str>, usize, RandomState>;

/// A route table with an index over its domains.
pub struct LiveRouteTable {
    pub config: Arc<RouteTable>,
    exact: Domains,
    /// By what follows the `*`.
    suffixes: Wildcards,
    /// By what precedes the `*`.
    prefixes: Wildcards,
    any: Option<usize>,
}

#[derive(Default)]
struct Wildcards {
    domains: Domains,
    /// Which lengths occur, longest first.
    lengths: Vec<usize>,
}

/// What routes can look at.
#[derive(Debug, Clone, Copy)]
pub struct RouteFacts<'a> {
    pub head: HeaderView<'a>,
    /// Dynamic metadata, for routing by claims.
    pub metadata: &'a Metadata,
    pub is_connect: bool,
    pub is_grpc: bool,
    /// A client certificate was presented; it was validated.
    pub certificate: (bool, bool),
    /// Decides `runtime_fraction`.
    pub random: u64,
}

/// The route of a request.
#[derive(Debug, Clone)]
pub struct Matched {
    pub table: Arc<RouteTable>,
    pub virtual_host: Arc<VirtualHost>,
    pub route: Arc<Route>,
}

impl LiveRouteTable {
    pub fn new(config: Arc<RouteTable>) -> Self {
        let mut table = Self {
            exact: Domains::default(),
            suffixes: Wildcards::default(),
            prefixes: Wildcards::default(),
            any: None,
            config: config.clone(),
        };
        for (at, host) in config.virtual_hosts.iter().enumerate() {
            for domain in host.domains.iter() {
                match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
                    (Some(""), _) => table.any = table.any.or(Some(at)),
                    (Some(suffix), _) => table.suffixes.insert(suffix, at),
                    (None, Some(prefix)) => table.prefixes.insert(prefix, at),
                    (None, None) => {
                        table.exact.entry(domain.as_ref().into()).or_insert(at);
                    }
                }
            }
        }
        table.suffixes.sort();
        table.prefixes.sort();
        table
    }

    /// The virtual host for an authority, which may have a port.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = if self.config.ignore_port_in_host {
            without_port(authority)
        } else {
            authority
        };
        let host = lower_case(host);
        let at = self
            .exact
            .get(&*host)
            .copied()
            .or_else(|| {
                self.suffixes
                    .find(host.len(), |length| host.get(host.len() - length..))
            })
            .or_else(|| self.prefixes.find(host.len(), |length| host.get(..length)))
            .or(self.any)?;
        self.config.virtual_hosts.get(at)
    }
}

impl Wildcards {
    fn insert(&mut self, text: &str, at: usize) {
        self.domains.entry(text.into()).or_insert(at);
        self.lengths.push(text.len());
    }

    fn sort(&mut self) {
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }

    /// The longest that fits; a wildcard stands for at least one character.
    fn find<'h>(
        &self,
        host_length: usize,
        part: impl Fn(usize) -> Option<&'h str>,
    ) -> Option<usize> {
        let fitting = self.lengths.iter().filter(|length| **length < host_length);
        fitting
            .filter_map(|length| part(*length))
            .find_map(|part| self.domains.get(part).copied())
    }
}

/// The route of a request; `None`: 404.
pub fn match_route(table: &LiveRouteTable, facts: &RouteFacts<'_>) -> Option<Matched> {
    let virtual_host = table.virtual_host(facts.head.authority)?;
    let route = virtual_host
        .routes
        .iter()
        .find(|route| is_match(&route.matches, facts))?;
    Some(Matched {
        table: table.config.clone(),
        virtual_host: virtual_host.clone(),
        route: route.clone(),
    })
}

/// The cluster of a target; with it, the position of the weighted entry that was drawn. `None`: a
/// header should name it and does not.
pub fn choose_cluster(
    target: &Target,
    headers: &http::HeaderMap,
    random: u64,
) -> Option<(ClusterName, Option<usize>)> {
    match target {
        Target::Cluster(name) => Some((name.clone(), None)),
        Target::ClusterHeader(header) => Some((
            ClusterName::parse(headers.get(header)?.to_str().ok()?).ok()?,
            None,
        )),
        Target::Weighted {
            clusters,
            total_weight,
        } => {
            let drawn = draw(
                clusters.iter().map(|cluster| cluster.weight),
                *total_weight,
                random,
            )?;
            Some((clusters.get(drawn)?.name.clone(), Some(drawn)))
        }
    }
}

/// The position that a random number falls on when each has its weight; `None` when the weights add
/// up to less than `total`.
pub fn draw(weights: impl Iterator<Item = u32>, total: u32, random: u64) -> Option<usize> {
    let mut left = random % u64::from(total.max(1));
    for (at, weight) in weights.enumerate() {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return Some(at),
        }
    }
    None
}

/// The part of an authority before its port: `a:80` → `a`, `[::1]:80` → `[::1]`.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (host.ends_with(']') || !host.contains(':')) =>
        {
            host
        }
        _ => authority,
    }
}

/// Path and query of `:path`, without a fragment.
pub fn split_path(path: &str) -> (&str, &str) {
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    path.split_once('?').unwrap_or((path, ""))
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

fn is_match(route: &RouteMatch, facts: &RouteFacts<'_>) -> bool {
    let (path, query) = split_path(facts.head.path);
    is_path_match(route, path, facts.is_connect)
        && (!route.grpc_only || facts.is_grpc)
        && route
            .headers
            .iter()
            .all(|header| header.is_match(&facts.head))
        && route
            .query
            .iter()
            .all(|wanted| is_query_match(wanted, query))
        && route
            .tls
            .as_ref()
            .is_none_or(|tls| is_tls_match(tls, facts.certificate))
        && route
            .metadata
            .iter()
            .all(|m| m.value.is_match(facts.metadata.lookup(&m.filter, &m.path)) != m.invert)
        && route
            .runtime_fraction
            .is_none_or(|fraction| fraction.selects(facts.random))
}

fn is_path_match(route: &RouteMatch, path: &str, is_connect: bool) -> bool {
    let folds = !route.case_sensitive;
    match &route.path {
        PathMatch::Connect => is_connect,
        // A CONNECT request has no path.
        _ if is_connect => false,
        PathMatch::Prefix(prefix) => starts_with(path, prefix, folds),
        PathMatch::Exact(exact) if folds => path.eq_ignore_ascii_case(exact),
        PathMatch::Exact(exact) => path == &**exact,
        PathMatch::SeparatedPrefix(prefix) => {
            starts_with(path, prefix, folds)
                && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::Template(template) => template.0.is_match(path),
    }
}

/// Whether `text` starts with `prefix`; `folds`: whatever the case.
pub(crate) fn starts_with(text: &str, prefix: &str, folds: bool) -> bool {
    match text.as_bytes().get(..prefix.len()) {
        Some(head) if folds => head.eq_ignore_ascii_case(prefix.as_bytes()),
        Some(head) => head == prefix.as_bytes(),
        None => false,
    }
}

/// The first parameter of this name counts; values are compared as sent, not decoded, as Envoy
/// does.
fn is_query_match(wanted: &QueryMatcher, query: &str) -> bool {
    let mut pairs = query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    match (
        pairs.find(|(name, _)| *name == &*wanted.name),
        &wanted.value,
    ) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some((_, value)), Some(matcher)) => matcher.is_match(value),
    }
}

fn is_tls_match(wanted: &TlsContextMatch, (presented, validated): (bool, bool)) -> bool {
    wanted.presented.is_none_or(|w| w == presented)
        && wanted.validated.is_none_or(|w| w == validated)
}
