//! What a request's path means.

use std::collections::HashMap;

use crate::store::kinds::{self, Kind};

/// A path of the local API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/version`
    Version,
    /// `/healthz`, `/readyz`, `/livez`
    Health,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources(String, String),
    /// A list or an object.
    Resource(Target),
    /// `/apis/authentication.k8s.io/v1/tokenreviews`
    TokenReview,
    /// `/apis/authorization.k8s.io/v1/subjectaccessreviews`
    SubjectAccessReview,
    /// `/openid/v1/jwks`
    KeySet,
    /// `/tanbark/v1/summary`
    Summary,
    /// `/openapi/v3`
    OpenApi,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`
    OpenApiOf(String, String),
    /// `/apis/authorization.k8s.io/v1/selfsubjectaccessreviews`
    AccessReview,
    /// `/apis/authentication.k8s.io/v1/selfsubjectreviews`
    SelfReview,
}

/// A list, an object, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: &'static Kind,
    /// The version asked for.
    pub version: String,
    /// All namespaces, when absent.
    pub namespace: Option<String>,
    /// The whole list, when absent.
    pub name: Option<String>,
    /// `status`, `log`, `exec`, `scale`, `token`, `proxy`.
    pub part: Option<String>,
    /// What follows `proxy/`.
    pub rest: String,
}

/// Reads a path.
pub fn parse(path: &str) -> Option<Route> {
    let decoded: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decode)
        .collect();
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["version"] => Some(Route::Version),
        ["healthz" | "readyz" | "livez", ..] => Some(Route::Health),
        ["openid", "v1", "jwks"] => Some(Route::KeySet),
        ["tanbark", "v1", "summary"] => Some(Route::Summary),
        ["api"] => Some(Route::CoreVersions),
        ["apis"] => Some(Route::Groups),
        ["apis", "authentication.k8s.io", "v1", "tokenreviews"] => Some(Route::TokenReview),
        ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => Some(Route::SelfReview),
        [
            "apis",
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
        ] => Some(Route::AccessReview),
        ["openapi", "v3"] => Some(Route::OpenApi),
        ["openapi", "v3", "api", version] => {
            Some(Route::OpenApiOf(String::new(), (*version).into()))
        }
        ["openapi", "v3", "apis", group, version] => {
            Some(Route::OpenApiOf((*group).into(), (*version).into()))
        }
        ["apis", "authorization.k8s.io", "v1", "subjectaccessreviews"] => {
            Some(Route::SubjectAccessReview)
        }
        ["apis", group] => Some(Route::Group((*group).into())),
        ["api", version] => Some(Route::Resources(String::new(), (*version).into())),
        ["apis", group, version] => Some(Route::Resources((*group).into(), (*version).into())),
        ["api", version, rest @ ..] => resource("", version, rest, path).map(Route::Resource),
        ["apis", group, version, rest @ ..] => {
            resource(group, version, rest, path).map(Route::Resource)
        }
        _ => None,
    }
}

fn resource(group: &str, version: &str, parts: &[&str], path: &str) -> Option<Target> {
    let (namespace, parts) = match parts {
        ["namespaces", namespace, plural, rest @ ..]
            if !["status", "finalize"].contains(plural) =>
        {
            (Some((*namespace).to_string()), [&[*plural], rest].concat())
        }
        _ => (None, parts.to_vec()),
    };
    let (plural, name, part) = match parts.as_slice() {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, part, ..] => (*plural, Some(*name), Some(*part)),
        [] => return None,
    };
    let kind = kinds::by_plural(group, version, plural)?;
    let rest = match part {
        Some("proxy") => path
            .split_once("/proxy")
            .map(|(_, rest)| rest.to_string())
            .unwrap_or_default(),
        _ => String::new(),
    };
    Some(Target {
        kind,
        version: version.into(),
        namespace,
        name: name.map(String::from),
        part: part.map(String::from),
        rest,
    })
}

/// A query's parameters; of several with one name the last counts, [`all`] has them all.
pub fn query(text: Option<&str>) -> HashMap<String, String> {
    pairs(text).collect()
}

/// All values of one parameter.
pub fn all(text: Option<&str>, name: &str) -> Vec<String> {
    pairs(text)
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value)
        .collect()
}

fn pairs(text: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let parts = text
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (decode(key), decode(&value.replace('+', " "))))
}

/// Undoes percent encoding; what is not encoded rightly stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut result = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = (*byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                result.push(code);
                at += 3;
            }
            None => {
                result.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&result).into_owned()
}

/// Encodes a query's value.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match parse(path) {
            Some(Route::Resource(target)) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_doubled_slash_is_one() {
        // istioctl joins the server's address and the path so.
        assert_eq!(parse("//version"), Some(Route::Version));
    }

    #[test]
    fn paths_name_lists_objects_and_parts() {
        let all = target("/api/v1/pods");
        assert_eq!(
            (all.kind.kind, all.namespace, all.name),
            ("Pod", None, None)
        );
        let one = target("/apis/apps/v1/namespaces/n/deployments/d/scale");
        assert_eq!(
            (
                one.kind.kind,
                one.namespace.as_deref(),
                one.name.as_deref(),
                one.part.as_deref()
            ),
            ("Deployment", Some("n"), Some("d"), Some("scale"))
        );
        let namespace = target("/api/v1/namespaces/n");
        assert_eq!(
            (namespace.kind.kind, namespace.name.as_deref()),
            ("Namespace", Some("n"))
        );
        let proxy = target("/api/v1/namespaces/n/pods/p:15000/proxy/config_dump");
        assert_eq!(
            (proxy.name.as_deref(), proxy.rest.as_str()),
            (Some("p:15000"), "/config_dump")
        );
        assert_eq!(
            parse("/apis/networking.istio.io/v1"),
            Some(Route::Resources("networking.istio.io".into(), "v1".into()))
        );
        assert_eq!(parse("/api/v1/nonsense"), None);
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            query(Some("labelSelector=a%3Db&watch=1"))["labelSelector"],
            "a=b"
        );
        assert_eq!(
            super::all(Some("command=sh&command=-c&command=echo+1"), "command"),
            ["sh", "-c", "echo 1"]
        );
        assert_eq!(decode(&encode("a b/ü&=")), "a b/ü&=");
    }
}
