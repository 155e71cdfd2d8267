//! Values of policies as Envoy's string and metadata matchers.

use mesh_model::{authorization_policy::ValuePattern, object::Text};
use wire_envoy::pb::matcher::{
    ListMatcher, MetadataMatcher, OrMatcher, StringMatcher, ValueMatcher, list_matcher,
    metadata_matcher::{PathSegment, path_segment::Segment},
    value_matcher::MatchPattern,
};

use crate::wire;

const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// Something is there.
pub(super) fn something() -> StringMatcher {
    wire::pattern(".+")
}

pub(super) fn text(pattern: &ValuePattern) -> StringMatcher {
    text_with_prefix(pattern, "")
}

/// Values that stand for the end of a longer text that begins with `head`.
pub(super) fn text_with_prefix(pattern: &ValuePattern, head: &str) -> StringMatcher {
    match pattern {
        ValuePattern::Exact(text) | ValuePattern::Template(text) => {
            wire::exact(format!("{head}{text}"))
        }
        ValuePattern::Prefix(text) => wire::prefix(format!("{head}{text}")),
        ValuePattern::Suffix(text) if head.is_empty() => wire::suffix(&**text),
        ValuePattern::Suffix(text) => wire::pattern(format!("{head}.*{}", escaped(text))),
        ValuePattern::Present => something(),
    }
}

/// A pattern as a regular expression.
pub(super) fn expression(pattern: &ValuePattern) -> String {
    match pattern {
        ValuePattern::Exact(text) | ValuePattern::Template(text) => escaped(text),
        ValuePattern::Prefix(text) => format!("{}.*", escaped(text)),
        ValuePattern::Suffix(text) => format!(".*{}", escaped(text)),
        ValuePattern::Present => ".*".to_owned(),
    }
}

pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(
            letter,
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$'
        ) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

pub(super) fn string_value(matcher: StringMatcher) -> ValueMatcher {
    ValueMatcher {
        match_pattern: Some(MatchPattern::StringMatch(matcher)),
    }
}

/// A list that has a matching entry.
pub(super) fn list_value(matcher: StringMatcher) -> ValueMatcher {
    let one = list_matcher::MatchPattern::OneOf(Box::new(string_value(matcher)));
    ValueMatcher {
        match_pattern: Some(MatchPattern::ListMatch(Box::new(ListMatcher {
            match_pattern: Some(one),
        }))),
    }
}

/// The value itself, or a list that has it.
pub(super) fn list_or_string(matcher: StringMatcher) -> ValueMatcher {
    let either = OrMatcher {
        value_matchers: vec![list_value(matcher.clone()), string_value(matcher)],
    };
    ValueMatcher {
        match_pattern: Some(MatchPattern::OrMatch(either)),
    }
}

pub(super) fn metadata(filter: &str, path: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &&str| PathSegment {
        segment: Some(Segment::Key((*key).to_owned())),
    };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        ..Default::default()
    }
}

/// A claim of the verified token.
pub(super) fn claim(path: &[Text], value: ValueMatcher) -> MetadataMatcher {
    let path: Vec<&str> = std::iter::once("payload")
        .chain(path.iter().map(|key| &**key))
        .collect();
    metadata(JWT_FILTER, &path, value)
}
