//! What consistent hashing looks at: one number from a request, as the route's hash policies say. Follows Envoy's `HashPolicy`.

use http::HeaderMap;
use proxy_config::cluster::{HashPolicy, HashSource};
use xxhash_rust::xxh64::xxh64;

use crate::{exchange::Exchange, route::split_path};

/// The hash of a request; `None` when no policy applies, and any host will do.
pub fn of(policies: &[HashPolicy], x: &Exchange) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for policy in policies {
        if let Some(next) = of_source(&policy.source, x) {
            // Policies are combined in order, so that swapping two values gives another hash.
            hash = Some(hash.map_or(next, |hash| hash.rotate_left(1) ^ next));
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

fn of_source(source: &HashSource, x: &Exchange) -> Option<u64> {
    match source {
        HashSource::Header(name) => header(&x.head.headers, name),
        HashSource::Cookie { name, .. } => cookie(&x.head.headers, name).map(|value| xxh64(value.as_bytes(), 0)),
        HashSource::SourceIp => Some(xxh64(x.connection.facts.source.ip().to_canonical().to_string().as_bytes(), 0)),
        HashSource::QueryParameter(name) => {
            let (_, query) = split_path(x.path());
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.into_iter().find(|(key, _)| *key == &**name).map(|(_, value)| xxh64(value.as_bytes(), 0))
        }
        HashSource::FilterState(_) => None,
    }
}

/// Several values are hashed in the order of their bytes.
fn header(headers: &HeaderMap, name: &http::HeaderName) -> Option<u64> {
    let mut values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    values.sort_unstable();
    let (first, rest) = values.split_first()?;
    Some(rest.iter().fold(xxh64(first, 0), |seed, value| xxh64(value, seed)))
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(http::header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
}

/// The hash of a TCP connection.
pub fn of_connection(policy: &HashPolicy, connection: &crate::connection::Connection) -> Option<u64> {
    match &policy.source {
        HashSource::SourceIp => Some(xxh64(connection.facts.source.ip().to_canonical().to_string().as_bytes(), 0)),
        HashSource::Header(_) | HashSource::Cookie { .. } | HashSource::QueryParameter(_) | HashSource::FilterState(_) => None,
    }
}
