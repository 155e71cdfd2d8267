//! What consistent hashing looks at: one number from a request, as the route's hash policies say.
//! Follows Envoy's `HashPolicy`.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderValue, header::SET_COOKIE};
use proxy_config::{
    cluster::Balancer,
    hash_policy::{HashPolicy, HashSource},
};
use telemetry::record::Address;
use xxhash_rust::xxh64::xxh64;

use crate::{downstream::Downstream, request::Request, route::split_path};

/// Cookies that were made up for a request, to be set with its response.
#[derive(Clone, Default)]
struct NewCookies(Vec<HeaderValue>);

/// The hash of a request; `None` when no policy applies, and any host will do, or the cluster does
/// not hash. May make up cookies.
pub fn of(policies: &[HashPolicy], request: &mut Request) -> Option<u64> {
    let is_hashed = |balancer: &Balancer| {
        matches!(
            balancer,
            Balancer::RingHash { .. } | Balancer::Maglev { .. }
        )
    };
    if !request
        .cluster
        .as_ref()
        .is_some_and(|cluster| is_hashed(&cluster.balancer))
    {
        return None;
    }
    let mut hash: Option<u64> = None;
    for policy in policies {
        if let Some(next) = of_source(&policy.source, request) {
            hash = Some(combined(hash, next));
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

/// Policies are combined in order, so that swapping two values gives another hash.
fn combined(hash: Option<u64>, next: u64) -> u64 {
    hash.map_or(next, |hash| hash.rotate_left(1) ^ next)
}

fn of_source(source: &HashSource, request: &mut Request) -> Option<u64> {
    match source {
        HashSource::Header(name) => header(&request.head.headers, name),
        HashSource::Cookie {
            name,
            ttl,
            path,
            attributes,
        } => {
            if let Some(value) =
                cookie(&request.head.headers, name).filter(|value| !value.is_empty())
            {
                return Some(xxh64(value.as_bytes(), 0));
            }
            let value = made_up(&request.downstream);
            let header = set_cookie(name, &value, (*ttl)?, path, attributes)?;
            let hash = xxh64(value.as_bytes(), 0);
            match request.head.extensions.get_mut::<NewCookies>() {
                Some(cookies) => cookies.0.push(header),
                None => drop(request.head.extensions.insert(NewCookies(vec![header]))),
            }
            Some(hash)
        }
        // The client as the connection manager sees it, after X-Forwarded-For.
        HashSource::SourceIp => match &request.record.downstream_remote {
            Some(Address::Socket(address)) => Some(of_ip(address.ip())),
            _ => Some(of_ip(request.downstream.facts.source.ip())),
        },
        HashSource::QueryParameter(name) => {
            let (_, query) = split_path(request.path());
            let pairs = query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs
                .into_iter()
                .find(|(key, _)| *key == &**name)
                .map(|(_, value)| xxh64(value.as_bytes(), 0))
        }
        HashSource::FilterState(_) => None,
    }
}

fn of_ip(ip: std::net::IpAddr) -> u64 {
    xxh64(ip.to_canonical().to_string().as_bytes(), 0)
}

/// The same for all requests of a connection, so that those that run at once get the same cookie.
fn made_up(connection: &Downstream) -> String {
    let ends = format!(
        "{}{}",
        connection.facts.source, connection.facts.destination
    );
    format!("{:016x}", xxh64(ends.as_bytes(), 0))
}

/// `ttl` of zero: until the browser is closed.
fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    path: &str,
    attributes: &[(std::sync::Arc<str>, std::sync::Arc<str>)],
) -> Option<HeaderValue> {
    let mut cookie = format!("{name}=\"{value}\"");
    if ttl.as_secs() > 0 {
        let _ = write!(cookie, "; Max-Age={}", ttl.as_secs());
    }
    if !path.is_empty() {
        let _ = write!(cookie, "; Path={path}");
    }
    for (key, value) in attributes {
        let _ = if value.is_empty() {
            write!(cookie, "; {key}")
        } else {
            write!(cookie, "; {key}={value}")
        };
    }
    cookie.push_str("; HttpOnly");
    HeaderValue::from_str(&cookie).ok()
}

/// Tells the client the cookies that were made up for its request.
pub fn set_cookies(request: &Request, response: &mut HeaderMap) {
    for cookie in request
        .head
        .extensions
        .get::<NewCookies>()
        .iter()
        .flat_map(|cookies| &cookies.0)
    {
        response.append(SET_COOKIE, cookie.clone());
    }
}

/// Several values are hashed in the order of their bytes.
fn header(headers: &HeaderMap, name: &http::HeaderName) -> Option<u64> {
    let mut values: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    values.sort_unstable();
    let (first, rest) = values.split_first()?;
    Some(
        rest.iter()
            .fold(xxh64(first, 0), |seed, value| xxh64(value, seed)),
    )
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
}

/// The hash of a TCP connection.
pub fn of_connection(policy: &HashPolicy, connection: &Downstream) -> Option<u64> {
    match &policy.source {
        HashSource::SourceIp => Some(of_ip(connection.facts.source.ip())),
        HashSource::Header(_)
        | HashSource::Cookie { .. }
        | HashSource::QueryParameter(_)
        | HashSource::FilterState(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn a_cookie_is_made_up_as_envoys_is() {
        let attributes = [
            ("SameSite".into(), "Lax".into()),
            ("Secure".into(), "".into()),
        ];
        let hour = set_cookie("c", "00ff", Duration::from_secs(3600), "/p", &attributes).unwrap();
        assert_eq!(
            hour,
            "c=\"00ff\"; Max-Age=3600; Path=/p; SameSite=Lax; Secure; HttpOnly"
        );
        assert_eq!(
            set_cookie("c", "1", Duration::ZERO, "", &[]).unwrap(),
            "c=\"1\"; HttpOnly"
        );
        assert!(set_cookie("c\n", "1", Duration::ZERO, "", &[]).is_none());
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; user=\"x\""));
        headers.append("cookie", HeaderValue::from_static("b=2"));
        assert_eq!(
            ["a", "user", "b", "c"].map(|name| cookie(&headers, name)),
            [Some("1"), Some("x"), Some("2"), None]
        );
    }

    #[test]
    fn values_of_one_header_are_hashed_whatever_their_order() {
        let name = HeaderName::from_static("x-user");
        let hash = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            header(&headers, &name)
        };
        assert_eq!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_eq!((hash(&["a"]), hash(&[])), (Some(xxh64(b"a", 0)), None));
        assert_ne!(combined(Some(1), 2), combined(Some(2), 1));
    }
}
