//! Matchers and fractions that several resources share.
//!
//! The matching functions are pure and live here, beside the data, because routes, authorization,
//! CORS and SAN checks must agree on them (`envoy.type.matcher.v3`,
//! `envoy.config.route.v3.HeaderMatcher`).

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use regex::Regex;

use crate::metadata::Value;

/// A compiled regular expression that must match the whole string (RE2 full match in Envoy). Equal
/// when the patterns are equal.
#[derive(Debug, Clone)]
pub struct FullRegex {
    pattern: Arc<str>,
    compiled: Regex,
}

impl FullRegex {
    /// Compiled programs above this size are refused, as a pattern comes from configuration.
    const SIZE_LIMIT_BYTES: usize = 1 << 20;

    pub fn parse(pattern: &str) -> Result<Self, regex::Error> {
        let compiled = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(Self::SIZE_LIMIT_BYTES)
            .build()?;
        Ok(Self {
            pattern: pattern.into(),
            compiled,
        })
    }
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

/// A regex search-and-replace (`RegexMatchAndSubstitute`); `\1` in the substitution is already
/// turned into `${1}`.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    pattern: Arc<str>,
    compiled: Regex,
    substitution: Arc<str>,
}

impl RegexRewrite {
    /// `substitution` in RE2 syntax: `\0`…`\9` are groups, `\\` is a backslash.
    pub fn parse(pattern: &str, substitution: &str) -> Result<Self, regex::Error> {
        let compiled = regex::RegexBuilder::new(pattern)
            .size_limit(FullRegex::SIZE_LIMIT_BYTES)
            .build()?;
        let mut out = String::with_capacity(substitution.len());
        let mut chars = substitution.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(d) if d.is_ascii_digit() => {
                        out.push_str("${");
                        out.push(d);
                        out.push('}');
                    }
                    Some(other) => out.push(other),
                    None => out.push('\\'),
                },
                '$' => out.push_str("$$"),
                other => out.push(other),
            }
        }
        Ok(Self {
            pattern: pattern.into(),
            compiled,
            substitution: out.into(),
        })
    }
    /// Replaces every match.
    pub fn apply(&self, text: &str) -> String {
        self.compiled
            .replace_all(text, &*self.substitution)
            .into_owned()
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.substitution == other.substitution
    }
}

/// `envoy.type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct StringMatcher {
    pub pattern: StringPattern,
    /// Applies to all patterns but the regular expression.
    pub ignore_case: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum StringPattern {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Contains(Arc<str>),
    Regex(FullRegex),
}

impl StringMatcher {
    pub fn exact(text: impl Into<Arc<str>>) -> Self {
        Self {
            pattern: StringPattern::Exact(text.into()),
            ignore_case: false,
        }
    }

    pub fn is_match(&self, text: &str) -> bool {
        let fold = self.ignore_case;
        match &self.pattern {
            StringPattern::Exact(p) if fold => text.eq_ignore_ascii_case(p),
            StringPattern::Exact(p) => text == &**p,
            StringPattern::Prefix(p) => starts_with(text, p, fold),
            StringPattern::Suffix(p) => ends_with(text, p, fold),
            StringPattern::Contains(p) if fold => {
                text.to_ascii_lowercase().contains(&p.to_ascii_lowercase())
            }
            StringPattern::Contains(p) => text.contains(&**p),
            StringPattern::Regex(r) => r.is_match(text),
        }
    }
}

fn starts_with(text: &str, prefix: &str, ignore_case: bool) -> bool {
    match text.as_bytes().get(..prefix.len()) {
        Some(head) if ignore_case => head.eq_ignore_ascii_case(prefix.as_bytes()),
        Some(head) => head == prefix.as_bytes(),
        None => false,
    }
}

fn ends_with(text: &str, suffix: &str, ignore_case: bool) -> bool {
    match text
        .len()
        .checked_sub(suffix.len())
        .and_then(|at| text.as_bytes().get(at..))
    {
        Some(tail) if ignore_case => tail.eq_ignore_ascii_case(suffix.as_bytes()),
        Some(tail) => tail == suffix.as_bytes(),
        None => false,
    }
}

/// `envoy.config.route.v3.HeaderMatcher`. Pseudo headers (`:authority`, `:method`, `:path`,
/// `:scheme`) are matched by `name` too.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatcher {
    pub name: HeaderKey,
    pub test: HeaderTest,
    /// The result is inverted.
    pub invert: bool,
    /// A missing header counts as an empty one (for `test` other than presence).
    pub missing_as_empty: bool,
}

/// The header that a matcher, a format or a header operation names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    Name(HeaderName),
    Authority,
    Method,
    Path,
    Scheme,
    Protocol,
    /// `:status`, in responses only.
    Status,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HeaderTest {
    /// `true`: must be there; `false`: must not.
    Present(bool),
    String(StringMatcher),
    /// Half-open range of a decimal integer.
    Range {
        start: i64,
        end: i64,
    },
}

/// What header matchers can look at: one request's (or response's) head.
#[derive(Debug, Clone, Copy)]
pub struct HeaderView<'a> {
    pub headers: &'a HeaderMap,
    pub authority: &'a str,
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    pub scheme: &'a str,
    pub protocol: &'a str,
    pub status: Option<u16>,
}

impl HeaderView<'_> {
    /// All values of a header joined by `,`, as Envoy's matcher sees them; `None` when absent.
    pub fn value(&self, key: &HeaderKey) -> Option<std::borrow::Cow<'_, str>> {
        let some = |s| Some(std::borrow::Cow::Borrowed(s));
        match key {
            HeaderKey::Authority => some(self.authority),
            HeaderKey::Method => some(self.method),
            HeaderKey::Path => some(self.path),
            HeaderKey::Scheme => some(self.scheme),
            HeaderKey::Protocol => (!self.protocol.is_empty()).then_some(self.protocol.into()),
            HeaderKey::Status => self.status.map(|s| s.to_string().into()),
            HeaderKey::Name(name) => {
                let mut values = self.headers.get_all(name).iter();
                let first = String::from_utf8_lossy(values.next()?.as_bytes());
                Some(values.fold(first, |joined, next| {
                    (joined.into_owned() + "," + &String::from_utf8_lossy(next.as_bytes())).into()
                }))
            }
        }
    }
}

impl HeaderMatcher {
    /// A header that came more than once matches when one of its values does, as in Envoy.
    pub fn is_match(&self, view: &HeaderView<'_>) -> bool {
        let found = match &self.name {
            HeaderKey::Name(name) => {
                let mut values = view.headers.get_all(name).iter().peekable();
                let is_there = values.peek().is_some();
                self.test(is_there, || {
                    values.any(|value| self.is_value(&String::from_utf8_lossy(value.as_bytes())))
                })
            }
            pseudo => {
                let value = view.value(pseudo);
                let is_value = || value.as_deref().is_some_and(|value| self.is_value(value));
                self.test(value.is_some(), is_value)
            }
        };
        found.is_some_and(|matched| matched != self.invert)
    }

    /// `None`: an absent header never matches, whether inverted or not, unless it is to be treated
    /// as empty.
    fn test(&self, is_there: bool, is_value: impl FnOnce() -> bool) -> Option<bool> {
        match (&self.test, is_there) {
            (HeaderTest::Present(wanted), found) => Some(found == *wanted),
            (_, true) => Some(is_value()),
            (_, false) => self.missing_as_empty.then(|| self.is_value("")),
        }
    }

    fn is_value(&self, value: &str) -> bool {
        match &self.test {
            HeaderTest::Present(wanted) => *wanted,
            HeaderTest::String(matcher) => matcher.is_match(value),
            HeaderTest::Range { start, end } => {
                value.parse::<i64>().is_ok_and(|n| n >= *start && n < *end)
            }
        }
    }
}

/// `envoy.config.route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatcher {
    pub name: Arc<str>,
    /// `None`: only presence counts.
    pub value: Option<StringMatcher>,
}

/// A path pattern of `envoy.extensions.path.match.uri_template.v3` (`/a/{*}/b/{**}`), kept as its
/// compiled form.
#[derive(Debug, Clone, PartialEq)]
pub struct UriTemplate(pub FullRegex);

/// `envoy.type.matcher.v3.MetadataMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatcher {
    pub filter: Arc<str>,
    pub path: Arc<[Arc<str>]>,
    pub value: ValueMatcher,
    pub invert: bool,
}

/// `envoy.type.matcher.v3.ValueMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatcher {
    Null,
    Bool(bool),
    Number(f64),
    String(StringMatcher),
    Present(bool),
    /// One element of a list matches.
    AnyOf(Box<ValueMatcher>),
    Or(Arc<[ValueMatcher]>),
}

impl ValueMatcher {
    pub fn is_match(&self, value: Option<&Value>) -> bool {
        match self {
            ValueMatcher::Present(wanted) => value.is_some() == *wanted,
            ValueMatcher::Null => matches!(value, Some(Value::Null)),
            ValueMatcher::Bool(b) => value == Some(&Value::Bool(*b)),
            ValueMatcher::Number(n) => value == Some(&Value::Number(*n)),
            ValueMatcher::String(m) => value.and_then(Value::as_str).is_some_and(|s| m.is_match(s)),
            ValueMatcher::AnyOf(m) => {
                value.is_some_and(|v| v.as_list().iter().any(|item| m.is_match(Some(item))))
            }
            ValueMatcher::Or(any) => any.iter().any(|m| m.is_match(value)),
        }
    }
}

/// A set of address ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CidrSet(pub Arc<[IpNet]>);

impl CidrSet {
    pub fn contains(&self, ip: std::net::IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }
}

/// A share of requests: `numerator` out of `denominator` (100, 10,000 or 1,000,000).
/// `FractionalPercent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    pub const NONE: Self = Self {
        numerator: 0,
        denominator: 100,
    };
    pub const ALL: Self = Self {
        numerator: 100,
        denominator: 100,
    };

    /// Values above the whole count as the whole.
    pub fn new(numerator: u32, denominator: u32) -> Self {
        let denominator = denominator.max(1);
        Self {
            numerator: numerator.min(denominator),
            denominator,
        }
    }
    /// `random` is any uniformly distributed number.
    pub fn selects(&self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
    pub fn is_none(&self) -> bool {
        self.numerator == 0
    }
    /// The same share, or `numerator` of the same denominator when that is less.
    pub fn at_most(&self, numerator: u32) -> Self {
        Self {
            numerator: self.numerator.min(numerator),
            ..*self
        }
    }
    /// Between 0.0 and 1.0.
    pub fn ratio(&self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

/// A whole percentage, 0..=100 unless stated otherwise by the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    pub const ZERO: Self = Self(0);
    pub const HUNDRED: Self = Self(100);
    /// `None` above 100.
    pub fn new(percent: u32) -> Option<Self> {
        u8::try_from(percent).ok().filter(|p| *p <= 100).map(Self)
    }
    pub fn value(self) -> u32 {
        self.0.into()
    }
}

/// A limit of zero means "off" in many Envoy fields; this says so in the type.
pub fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(headers: &HeaderMap) -> HeaderView<'_> {
        HeaderView {
            headers,
            authority: "a",
            method: "GET",
            path: "/",
            scheme: "http",
            protocol: "",
            status: None,
        }
    }

    #[test]
    fn an_absent_header_matches_an_inverted_test_only_when_it_counts_as_empty() {
        let name = HeaderKey::Name(HeaderName::from_static("x-skip"));
        let mut matcher = HeaderMatcher {
            name,
            test: HeaderTest::String(StringMatcher::exact("1")),
            invert: true,
            missing_as_empty: false,
        };
        let headers = HeaderMap::new();
        assert!(!matcher.is_match(&view(&headers)));
        matcher.missing_as_empty = true;
        assert!(matcher.is_match(&view(&headers)));
    }

    #[test]
    fn a_substitution_keeps_dollars_and_turns_backslash_digits_into_groups() {
        let rewrite = RegexRewrite::parse("^/(a)/(.*)$", r"/$1/\2/\1").unwrap();
        assert_eq!(rewrite.apply("/a/x"), "/$1/x/a");
    }

    #[test]
    fn a_regex_matches_the_whole_text_only() {
        let regex = FullRegex::parse("v[0-9]+|x").unwrap();
        assert!(regex.is_match("v12") && regex.is_match("x"));
        assert!(!regex.is_match("v12b") && !regex.is_match("ax"));
    }
}
