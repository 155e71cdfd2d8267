//! SPIFFE ids: `spiffe://<trust domain>/<path>`, and the form a mesh gives to workloads, `/ns/<namespace>/sa/<service account>`.
//!
//! Parsing follows the SPIFFE-ID standard: the trust domain is lower-case letters, digits, `.`, `-`
//! and `_` (at most 255 bytes), path segments are letters, digits, `.`, `-` and `_`, never empty,
//! `.` or `..`; no query, fragment, port or user; at most 2048 bytes.

use std::{fmt, sync::Arc};

use crate::IdentityError;

#[cfg(test)]
mod tests;

const SCHEME: &str = "spiffe://";
/// Longest SPIFFE id (SPIFFE-ID 2.3).
const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain (SPIFFE-ID 2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The root of a mesh's names, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE id; comparison is by its exact text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

/// A Kubernetes service account: its namespace and name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccountName {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl TrustDomain {
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let refuse = |why| Err(IdentityError::TrustDomain(text.to_owned(), why));
        if text.is_empty() {
            return refuse("must not be empty");
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return refuse("is longer than 255 bytes");
        }
        if !text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        {
            return refuse("may only hold lower-case letters, digits, '.', '-' and '_'");
        }
        Ok(Self(text.into()))
    }

    /// As MeshConfig's `trustDomain` is read: an `@` stands for a dot (Istio's rule for
    /// account-like trust domains).
    pub fn parse_mesh_config(text: &str) -> Result<Self, IdentityError> {
        Self::parse(&text.replace('@', "."))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text that every id of this trust domain begins with: `spiffe://<td>/`.
    pub fn id_prefix(&self) -> String {
        format!("{SCHEME}{}/", self.0)
    }
}

impl SpiffeId {
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let refuse = |why| Err(IdentityError::SpiffeId(text.to_owned(), why));
        if text.len() > MAX_ID_BYTES {
            return refuse("is longer than 2048 bytes");
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return refuse("must begin with spiffe://");
        };
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let trust_domain = TrustDomain::parse(domain)?;
        for segment in path.split('/').skip(1) {
            if segment.is_empty() || segment == "." || segment == ".." {
                return refuse("path segments must not be empty, '.' or '..'");
            }
            if !segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            {
                return refuse("path segments may only hold letters, digits, '.', '-' and '_'");
            }
        }
        Ok(Self {
            text: text.into(),
            trust_domain,
        })
    }

    /// `spiffe://<td>/ns/<ns>/sa/<sa>`. Cannot fail: the parts were checked when they were made.
    pub fn workload(trust_domain: &TrustDomain, account: &ServiceAccountName) -> Self {
        let text = format!(
            "{SCHEME}{}/ns/{}/sa/{}",
            trust_domain.0, account.namespace, account.name
        );
        Self {
            text: text.into(),
            trust_domain: trust_domain.clone(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The part after the trust domain, with its leading slash; empty for the id of a trust domain
    /// itself.
    pub fn path(&self) -> &str {
        self.text
            .get(SCHEME.len() + self.trust_domain.0.len()..)
            .unwrap_or("")
    }

    /// The text without `spiffe://`, as Istio writes principals (`cluster.local/ns/default/sa/reviews`).
    pub fn principal(&self) -> &str {
        self.text.get(SCHEME.len()..).unwrap_or("")
    }

    /// The namespace, when the id has the workload form.
    pub fn namespace(&self) -> Option<&str> {
        self.workload_parts().map(|(namespace, _)| namespace)
    }

    /// The service account, when the id has the workload form.
    pub fn service_account(&self) -> Option<ServiceAccountName> {
        let (namespace, name) = self.workload_parts()?;
        ServiceAccountName::new(namespace, name).ok()
    }

    fn workload_parts(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().strip_prefix('/')?.split('/');
        match (
            segments.next()?,
            segments.next()?,
            segments.next()?,
            segments.next()?,
            segments.next(),
        ) {
            ("ns", namespace, "sa", name, None) => Some((namespace, name)),
            _ => None,
        }
    }
}

impl ServiceAccountName {
    pub fn new(namespace: &str, name: &str) -> Result<Self, IdentityError> {
        let whole = || format!("{namespace}/{name}");
        if !is_dns(namespace, 63, false) {
            return Err(IdentityError::ServiceAccount(
                whole(),
                "the namespace must be a DNS label",
            ));
        }
        if !is_dns(name, 253, true) {
            return Err(IdentityError::ServiceAccount(
                whole(),
                "the name must be a DNS name",
            ));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// `<namespace>/<name>`, as in `CA_TRUSTED_NODE_ACCOUNTS`.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(IdentityError::ServiceAccount(
                text.to_owned(),
                "must be <namespace>/<name>",
            )),
        }
    }

    /// A token's subject, `system:serviceaccount:<namespace>:<name>`.
    pub fn parse_subject(text: &str) -> Result<Self, IdentityError> {
        match text
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
        {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(IdentityError::ServiceAccount(
                text.to_owned(),
                "must be system:serviceaccount:<namespace>:<name>",
            )),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// RFC 1123 label, or with `dots` a series of them.
fn is_dns(text: &str, max_bytes: usize, dots: bool) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    text.len() <= max_bytes
        && if dots {
            text.split('.').all(is_label)
        } else {
            is_label(text)
        }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, Istio's default.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ServiceAccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceAccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
