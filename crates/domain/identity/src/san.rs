//! Which names of a certificate are accepted: Envoy's `SubjectAltNameMatcher`.

use std::hash::{Hash, Hasher};

use regex::Regex;

use crate::{IdentityError, PeerCertificate};

/// One accepted name. A certificate passes when any of its names passes any matcher of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub pattern: SanPattern,
    pub ignore_case: bool,
}

/// Which of the certificate's names are looked at. `Any` is Envoy's older, untyped list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    Any,
    Uri,
    Dns,
    Email,
    Ip,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SanPattern {
    /// For DNS names a certificate's wildcard (`*.example.com`) stands for one label.
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Matches the whole name.
    Regex(SanRegex),
}

/// A compiled regular expression; compared by its text.
#[derive(Debug, Clone)]
pub struct SanRegex {
    source: String,
    whole: Regex,
}

impl SanMatcher {
    pub fn new(kind: SanKind, pattern: SanPattern) -> Self {
        Self {
            kind,
            pattern,
            ignore_case: false,
        }
    }

    pub fn uri_exact(uri: impl Into<String>) -> Self {
        Self::new(SanKind::Uri, SanPattern::Exact(uri.into()))
    }

    pub fn uri_prefix(prefix: impl Into<String>) -> Self {
        Self::new(SanKind::Uri, SanPattern::Prefix(prefix.into()))
    }

    pub fn dns_exact(name: impl Into<String>) -> Self {
        Self::new(SanKind::Dns, SanPattern::Exact(name.into()))
    }

    pub fn matches(&self, certificate: &PeerCertificate) -> bool {
        let any = |names: &[String]| names.iter().any(|name| self.matches_text(name));
        let uri = || any(&certificate.uri_sans);
        let dns = || {
            certificate
                .dns_sans
                .iter()
                .any(|name| self.matches_dns(name))
        };
        let email = || any(&certificate.email_sans);
        let ip = || {
            certificate
                .ip_sans
                .iter()
                .any(|address| self.matches_text(&address.to_string()))
        };
        match self.kind {
            SanKind::Uri => uri(),
            SanKind::Dns => dns(),
            SanKind::Email => email(),
            SanKind::Ip => ip(),
            SanKind::Any => uri() || dns() || email() || ip(),
        }
    }

    /// Names of hosts have no case (RFC 4343).
    fn matches_dns(&self, name: &str) -> bool {
        match &self.pattern {
            SanPattern::Exact(wanted) => dns_name_matches(name, wanted),
            _ => self.matches_text(name),
        }
    }

    fn matches_text(&self, name: &str) -> bool {
        let lowered;
        let name = if self.ignore_case {
            lowered = name.to_ascii_lowercase();
            &lowered
        } else {
            name
        };
        let fold = |pattern: &str| {
            if self.ignore_case {
                pattern.to_ascii_lowercase()
            } else {
                pattern.to_owned()
            }
        };
        match &self.pattern {
            SanPattern::Exact(p) => name == fold(p),
            SanPattern::Prefix(p) => name.starts_with(&fold(p)),
            SanPattern::Suffix(p) => name.ends_with(&fold(p)),
            SanPattern::Contains(p) => name.contains(&fold(p)),
            SanPattern::Regex(p) => p.whole.is_match(name),
        }
    }
}

/// Whether a certificate's DNS name covers a host; `*.a.b` covers exactly one label more than `a.b`
/// (RFC 6125 §6.4.3).
pub(crate) fn dns_name_matches(certificate_name: &str, host: &str) -> bool {
    if certificate_name.eq_ignore_ascii_case(host) {
        return true;
    }
    match (certificate_name.strip_prefix("*."), host.split_once('.')) {
        (Some(parent), Some((label, rest))) => {
            !label.is_empty() && parent.contains('.') && parent.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

impl SanRegex {
    pub fn parse(source: &str) -> Result<Self, IdentityError> {
        let whole = Regex::new(&format!("^(?:{source})$"))
            .map_err(|e| IdentityError::Settings(format!("name pattern {source:?}: {e}")))?;
        Ok(Self {
            source: source.to_owned(),
            whole,
        })
    }
}

impl PartialEq for SanRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for SanRegex {}

impl Hash for SanRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}
