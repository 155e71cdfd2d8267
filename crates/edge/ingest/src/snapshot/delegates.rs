//! A route that delegates is replaced by the routes of the VirtualService that it names (reference row TM-017).
//!
//! Each of the delegate's routes must lie within the root's match; where no pair of matches fits together, that route is left
//! out. What the delegate's route leaves open (rewrite, timeout, retries, fault, mirrors, CORS, headers) it takes from the root.

use std::sync::Arc;

use mesh_model::VirtualService;
use mesh_model::matching::StringMatch;
use mesh_model::object::{Labels, Text};
use mesh_model::virtual_service::{HeaderChanges, Headers, HttpAction, HttpMatch, HttpRoute};
use wire_kube::kinds::Kind;

use super::Store;
use crate::Domain;

pub(super) fn merged(store: &Store, root: &Arc<VirtualService>) -> Arc<VirtualService> {
    let delegates = |route: &Arc<HttpRoute>| matches!(route.action, HttpAction::Delegate { .. });
    if !root.http.iter().any(delegates) {
        return root.clone();
    }
    let mut http: Vec<Arc<HttpRoute>> = Vec::new();
    for route in root.http.iter() {
        match &route.action {
            HttpAction::Delegate { namespace, name } => {
                // A delegate that does not exist is reported by analysis; its requests find no route.
                let Some(Domain::VirtualService(delegate)) =
                    store.good(Kind::VirtualService, namespace, name)
                else {
                    continue;
                };
                if delegate.hosts.is_empty() && delegate.export_to.includes(root.meta.namespace()) {
                    http.extend(
                        delegate
                            .http
                            .iter()
                            .filter_map(|inner| together(route, inner))
                            .map(Arc::new),
                    );
                }
            }
            _ => http.push(route.clone()),
        }
    }
    Arc::new(VirtualService {
        http: http.into(),
        ..(**root).clone()
    })
}

/// Does a delegate's route lie, at least in part, within what its root hands over?
pub fn reaches(root: &HttpRoute, inner: &HttpRoute) -> bool {
    together(root, inner).is_some()
}

/// A delegate's route under its root's match; `None` when it lies outside of it.
fn together(root: &HttpRoute, inner: &HttpRoute) -> Option<HttpRoute> {
    let matches: Vec<HttpMatch> = match (root.matches.is_empty(), inner.matches.is_empty()) {
        (true, _) => inner.matches.to_vec(),
        (false, true) => root.matches.to_vec(),
        (false, false) => {
            let pairs = inner
                .matches
                .iter()
                .flat_map(|m| root.matches.iter().map(move |r| (r, m)));
            pairs.filter_map(|(r, m)| both(r, m)).collect()
        }
    };
    if matches.is_empty() && !(root.matches.is_empty() && inner.matches.is_empty()) {
        return None;
    }
    Some(HttpRoute {
        name: joined(&root.name, &inner.name),
        matches: matches.into(),
        action: inner.action.clone(),
        headers: Headers {
            request: changes(&root.headers.request, &inner.headers.request),
            response: changes(&root.headers.response, &inner.headers.response),
        },
        rewrite: inner.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: inner.timeout.or(root.timeout),
        retries: inner.retries.clone().or_else(|| root.retries.clone()),
        fault: inner.fault.clone().or_else(|| root.fault.clone()),
        mirrors: if inner.mirrors.is_empty() {
            root.mirrors.clone()
        } else {
            inner.mirrors.clone()
        },
        cors: inner.cors.clone().or_else(|| root.cors.clone()),
    })
}

fn joined(root: &Option<Text>, inner: &Option<Text>) -> Option<Text> {
    match (root, inner) {
        (Some(root), Some(inner)) => Some(format!("{root}-{inner}").into()),
        (one, other) => one.clone().or_else(|| other.clone()),
    }
}

fn changes(root: &HeaderChanges, inner: &HeaderChanges) -> HeaderChanges {
    let pairs = |root: &Arc<[(Text, Text)]>, inner: &Arc<[(Text, Text)]>| -> Arc<[(Text, Text)]> {
        let kept = root
            .iter()
            .filter(|(name, _)| !inner.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)));
        kept.chain(inner.iter()).cloned().collect()
    };
    HeaderChanges {
        set: pairs(&root.set, &inner.set),
        add: pairs(&root.add, &inner.add),
        remove: root
            .remove
            .iter()
            .chain(inner.remove.iter())
            .cloned()
            .collect(),
    }
}

/// A match that holds when both hold, provided the inner one lies within the root's.
fn both(root: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    if root.ignore_uri_case != inner.ignore_uri_case && root.uri.is_some() && inner.uri.is_some() {
        return None;
    }
    if root.port.is_some() && inner.port.is_some() && root.port != inner.port {
        return None;
    }
    if root.source_namespace.is_some()
        && inner.source_namespace.is_some()
        && root.source_namespace != inner.source_namespace
    {
        return None;
    }
    Some(HttpMatch {
        name: joined(&root.name, &inner.name),
        uri: narrower(&root.uri, &inner.uri)?,
        ignore_uri_case: if inner.uri.is_some() {
            inner.ignore_uri_case
        } else {
            root.ignore_uri_case
        },
        scheme: narrower(&root.scheme, &inner.scheme)?,
        method: narrower(&root.method, &inner.method)?,
        authority: narrower(&root.authority, &inner.authority)?,
        headers: named(&root.headers, &inner.headers)?,
        without_headers: named(&root.without_headers, &inner.without_headers)?,
        query: named(&root.query, &inner.query)?,
        port: inner.port.or(root.port),
        source_labels: labels(&root.source_labels, &inner.source_labels)?,
        source_namespace: inner
            .source_namespace
            .clone()
            .or_else(|| root.source_namespace.clone()),
        gateways: if inner.gateways.is_empty() {
            root.gateways.clone()
        } else {
            inner.gateways.clone()
        },
        stat_prefix: inner
            .stat_prefix
            .clone()
            .or_else(|| root.stat_prefix.clone()),
    })
}

/// The inner condition where it lies within the root's; `None` when it doesn't.
fn narrower(
    root: &Option<StringMatch>,
    inner: &Option<StringMatch>,
) -> Option<Option<StringMatch>> {
    match (root, inner) {
        (root, None) => Some(root.clone()),
        (None, inner) => Some(inner.clone()),
        (Some(root), Some(inner)) => within(root, inner).then(|| Some(inner.clone())),
    }
}

fn within(root: &StringMatch, inner: &StringMatch) -> bool {
    match (root, inner) {
        (StringMatch::Present, _) => true,
        (StringMatch::Exact(root), StringMatch::Exact(inner)) => root == inner,
        (StringMatch::Prefix(root), StringMatch::Exact(inner) | StringMatch::Prefix(inner)) => {
            inner.starts_with(&**root)
        }
        // Whether one expression lies within another is not decidable by looking; only the same one is taken.
        (StringMatch::Regex(root), StringMatch::Regex(inner)) => root == inner,
        _ => false,
    }
}

type Named = Arc<[(Text, StringMatch)]>;

fn named(root: &Named, inner: &Named) -> Option<Named> {
    let mut out: Vec<(Text, StringMatch)> = inner.to_vec();
    for (name, wanted) in root.iter() {
        match inner.iter().find(|(n, _)| n == name) {
            Some((_, own)) if !within(wanted, own) => return None,
            Some(_) => {}
            None => out.push((name.clone(), wanted.clone())),
        }
    }
    Some(out.into())
}

fn labels(root: &Labels, inner: &Labels) -> Option<Labels> {
    let conflict = root
        .iter()
        .any(|(key, value)| inner.value(key).is_some_and(|own| own != value));
    (!conflict).then(|| root.iter().chain(inner.iter()).collect())
}
