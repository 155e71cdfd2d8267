//! Which statistics are shown: Envoy's `stats_matcher` and Istio's defaults for it.

use regex::Regex;

use crate::Error;

/// One pattern over a full name.
#[derive(Debug, Clone)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Matches the whole name, as Envoy's.
    Regex(Regex),
}

/// Regular expressions are equal when their patterns are.
impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Suffix(a), Self::Suffix(b))
            | (Self::Contains(a), Self::Contains(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl StringMatch {
    /// A pattern that must match the whole text.
    ///
    /// # Errors
    /// The pattern is not a regular expression, or is too large.
    pub fn regex(pattern: &str) -> Result<Self, Error> {
        full_regex(pattern).map(Self::Regex)
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn full_regex(pattern: &str) -> Result<Regex, Error> {
    let problem = |error: regex::Error| Error::Regex {
        pattern: pattern.to_string(),
        problem: error.to_string(),
    };
    // The first compilation refuses what would become something else inside the group, such as
    // `a)|(b`.
    Regex::new(pattern).map_err(problem)?;
    Regex::new(&format!("^(?:{pattern})$")).map_err(problem)
}

/// What to show.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// All but these.
    Exclude(Vec<StringMatch>),
    /// Only these.
    Include(Vec<StringMatch>),
}

impl Matcher {
    /// Shows everything.
    pub fn all() -> Self {
        Self::Exclude(Vec::new())
    }

    /// Istio's default inclusions (bootstrap template, OBS-002). `extra` are those of
    /// `proxyStatsMatcher` or of the
    /// `sidecar.istio.io/statsInclusion*` annotations. Normally the bootstrap says all of this itself.
    pub fn istio(extra: Vec<StringMatch>) -> Self {
        const PREFIXES: [&str; 8] = [
            "reporter=",
            "cluster_manager",
            "listener_manager",
            "server",
            "cluster.xds-grpc",
            "wasm",
            "component",
            "istio",
        ];
        const SUFFIXES: [&str; 5] = [
            "rbac.allowed",
            "rbac.denied",
            "shadow_allowed",
            "shadow_denied",
            "downstream_cx_active",
        ];
        let mut patterns = extra;
        patterns.extend(PREFIXES.map(|prefix| StringMatch::Prefix(prefix.to_string())));
        patterns.extend(SUFFIXES.map(|suffix| StringMatch::Suffix(suffix.to_string())));
        patterns.extend(StringMatch::regex(r"vhost\..*\.route\..*").ok());
        Self::Include(patterns)
    }

    /// Whether the statistic is shown.
    pub fn shows(&self, name: &str) -> bool {
        match self {
            Self::Exclude(patterns) => !patterns.iter().any(|pattern| pattern.matches(name)),
            Self::Include(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_defaults_show_little() {
        let matcher = Matcher::istio(vec![StringMatch::Prefix("cluster.outbound|80||a".into())]);
        for shown in [
            "cluster_manager.cds.update_success",
            "cluster.xds-grpc.upstream_cx_active",
            "http.inbound_0.0.0.0_80;.rbac.allowed",
            "listener.0.0.0.0_15006.downstream_cx_active",
            "vhost.a.route.b.upstream_rq_200",
            "cluster.outbound|80||a;.upstream_rq_total",
        ] {
            assert!(matcher.shows(shown), "{shown}");
        }
        for hidden in [
            "cluster.outbound|80||b;.upstream_rq_total",
            "http.x.downstream_rq_total",
            "xvhost.a.route.b",
        ] {
            assert!(!matcher.shows(hidden), "{hidden}");
        }
        assert!(Matcher::all().shows("anything"));
    }

    #[test]
    fn a_regex_matches_whole_names_and_a_bad_one_is_named() {
        let regex = StringMatch::regex("a|bc").unwrap();
        assert!(regex.matches("bc") && !regex.matches("bcd") && !regex.matches("xa"));
        assert!(
            StringMatch::regex("a)|(b")
                .unwrap_err()
                .to_string()
                .contains("a)|(b")
        );
    }
}
