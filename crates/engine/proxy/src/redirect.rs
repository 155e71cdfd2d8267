//! Where a redirect leads: pure. Follows `envoy.config.route.v3.RedirectAction`.

use proxy_config::route::{PathMatch, Redirect, RedirectPath, RedirectScheme, RouteMatch};

use crate::route::{split_path, starts_with, without_port};

/// What of a request a redirect keeps.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub scheme: &'a str,
    pub authority: &'a str,
    /// Path with query.
    pub path: &'a str,
}

impl<'a> Request<'a> {
    pub fn of(request: &'a crate::request::Request) -> Self {
        Self {
            scheme: request.scheme,
            authority: request.authority.to_str().unwrap_or_default(),
            path: request.path(),
        }
    }
}

/// The value of `location`.
pub fn location(redirect: &Redirect, matches: &RouteMatch, request: &Request<'_>) -> String {
    let scheme = match &redirect.scheme {
        RedirectScheme::Keep => request.scheme,
        RedirectScheme::Https => "https",
        RedirectScheme::To(scheme) => scheme,
    };
    let original_host = without_port(request.authority);
    let original_port = request
        .authority
        .get(original_host.len()..)
        .unwrap_or_default();
    let host = redirect.host.as_deref().unwrap_or(original_host);
    let port = match redirect.port {
        Some(port) => format!(":{port}"),
        // A port given by the client is kept only together with its host, and not the default of a
        // scheme that changes.
        None if redirect.host.is_some()
            || (scheme != request.scheme && is_default_port(request.scheme, original_port)) =>
        {
            String::new()
        }
        None => original_port.to_owned(),
    };
    format!(
        "{scheme}://{host}{port}{}",
        path(redirect, matches, request.path)
    )
}

fn is_default_port(scheme: &str, port: &str) -> bool {
    matches!((scheme, port), ("http", ":80") | ("https", ":443"))
}

/// The path of `location`, with its query.
pub fn path(redirect: &Redirect, matches: &RouteMatch, original: &str) -> String {
    let (path, query) = split_path(original);
    let new = match &redirect.path {
        RedirectPath::Keep => path.to_owned(),
        RedirectPath::Replace(new) if new.contains('?') => return new.to_string(),
        RedirectPath::Replace(new) => new.to_string(),
        RedirectPath::Regex(rewrite) => rewrite.apply(path),
        RedirectPath::Prefix(new) => {
            let matched = match &matches.path {
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix)
                    if starts_with(path, prefix, !matches.case_sensitive) =>
                {
                    prefix.len()
                }
                _ => path.len(),
            };
            format!("{new}{}", path.get(matched..).unwrap_or_default())
        }
    };
    if query.is_empty() || redirect.strip_query {
        new
    } else {
        format!("{new}?{query}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;

    use super::*;

    fn to(change: impl FnOnce(&mut Redirect)) -> String {
        let mut redirect = Redirect {
            host: None,
            port: None,
            scheme: RedirectScheme::Keep,
            path: RedirectPath::Keep,
            status: StatusCode::MOVED_PERMANENTLY,
            strip_query: false,
        };
        change(&mut redirect);
        let matches = RouteMatch {
            path: PathMatch::Prefix("/old".into()),
            case_sensitive: true,
            headers: Arc::from([]),
            query: Arc::from([]),
            runtime_fraction: None,
            grpc_only: false,
            metadata: Arc::from([]),
            tls: None,
        };
        location(
            &redirect,
            &matches,
            &Request {
                scheme: "http",
                authority: "a.test:8080",
                path: "/old/x?q=1",
            },
        )
    }

    #[test]
    fn parts_that_are_not_replaced_are_kept() {
        assert_eq!(to(|_| ()), "http://a.test:8080/old/x?q=1");
        assert_eq!(
            to(|r| r.scheme = RedirectScheme::Https),
            "https://a.test:8080/old/x?q=1"
        );
        assert_eq!(
            to(|r| r.host = Some("b.test".into())),
            "http://b.test/old/x?q=1"
        );
        assert_eq!(to(|r| r.port = Some(80)), "http://a.test:80/old/x?q=1");
        assert_eq!(to(|r| r.port = Some(443)), "http://a.test:443/old/x?q=1");
        assert_eq!(
            to(|r| r.path = RedirectPath::Prefix("/new".into())),
            "http://a.test:8080/new/x?q=1"
        );
        assert_eq!(
            to(|r| r.path = RedirectPath::Replace("/n?z".into())),
            "http://a.test:8080/n?z"
        );
        assert_eq!(to(|r| r.strip_query = true), "http://a.test:8080/old/x");
    }
}
