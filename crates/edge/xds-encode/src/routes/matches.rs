//! HTTP match conditions (rows TM-001, TM-002).

use mesh_model::{matching::StringMatch, object::Text, virtual_service::HttpMatch};
use wire_envoy::pb::{
    matcher::{
        ListMatcher, MetadataMatcher, OrMatcher, StringMatcher, ValueMatcher, list_matcher,
        metadata_matcher::PathSegment, metadata_matcher::path_segment::Segment,
        value_matcher::MatchPattern,
    },
    route::{
        HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
    },
};

use super::header_is;
use crate::wire;

/// Header names that stand for claims of the request's token.
const CLAIMS: &str = "@request.auth.claims";

/// `None`: every request.
pub(super) fn encode(matching: Option<&HttpMatch>) -> RouteMatch {
    let everything = || PathSpecifier::Prefix("/".to_owned());
    let Some(matching) = matching else {
        return RouteMatch {
            path_specifier: Some(everything()),
            ..Default::default()
        };
    };
    let path = match &matching.uri {
        None | Some(StringMatch::Present) => everything(),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.to_string()),
        Some(StringMatch::Prefix(path)) => PathSpecifier::Prefix(path.to_string()),
        Some(StringMatch::Regex(path)) => PathSpecifier::SafeRegex(wire::regex(&**path)),
    };
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: Some(wire::boolean(!matching.ignore_uri_case)),
        headers: headers(matching),
        query_parameters: sorted(&matching.query)
            .into_iter()
            .map(|(name, value)| query(name, value))
            .collect(),
        dynamic_metadata: claims(matching),
        ..Default::default()
    }
}

/// Nothing but the path restricts, and the path is any.
pub(super) fn takes_all(matching: &HttpMatch) -> bool {
    let any_path = match &matching.uri {
        None | Some(StringMatch::Present) => true,
        Some(StringMatch::Prefix(path)) => &**path == "/",
        Some(StringMatch::Regex(path)) => &**path == ".*" || &**path == "/.*",
        Some(StringMatch::Exact(_)) => false,
    };
    let parts = [
        &matching.headers,
        &matching.without_headers,
        &matching.query,
    ];
    any_path
        && parts.iter().all(|part| part.is_empty())
        && matching.method.is_none()
        && matching.authority.is_none()
        && matching.scheme.is_none()
}

/// In the order of names: wanted, unwanted, then those that are no headers to the user.
fn headers(matching: &HttpMatch) -> Vec<HeaderMatcher> {
    let plain = |(name, _): &(&Text, &StringMatch)| !name.starts_with(CLAIMS);
    let wanted = sorted(&matching.headers)
        .into_iter()
        .filter(plain)
        .map(|(name, value)| header(name, value));
    let unwanted = sorted(&matching.without_headers)
        .into_iter()
        .filter(plain)
        .map(|(name, value)| without(header(name, value)));
    let special = [
        (":method", &matching.method),
        (":authority", &matching.authority),
        (":scheme", &matching.scheme),
    ];
    let special = special
        .into_iter()
        .filter_map(|(name, value)| Some(header(name, value.as_ref()?)));
    wanted.chain(unwanted).chain(special).collect()
}

fn sorted(list: &[(Text, StringMatch)]) -> Vec<(&Text, &StringMatch)> {
    let mut list: Vec<_> = list.iter().map(|(name, value)| (name, value)).collect();
    list.sort_by_key(|(name, _)| *name);
    list
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    match string(value) {
        None => HeaderMatcher {
            name: name.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..Default::default()
        },
        Some(matcher) => header_is(name, matcher),
    }
}

/// A missing header counts as an empty one, unless only its presence was asked for.
fn without(matcher: HeaderMatcher) -> HeaderMatcher {
    let by_value = matches!(
        matcher.header_match_specifier,
        Some(HeaderMatchSpecifier::StringMatch(_))
    );
    HeaderMatcher {
        invert_match: true,
        treat_missing_header_as_empty: by_value,
        ..matcher
    }
}

fn query(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = string(value).map_or(
        QueryParameterMatchSpecifier::PresentMatch(true),
        QueryParameterMatchSpecifier::StringMatch,
    );
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}

/// `None`: only has to be there.
pub(super) fn string(value: &StringMatch) -> Option<StringMatcher> {
    Some(match value {
        StringMatch::Exact(text) => wire::exact(&**text),
        StringMatch::Prefix(text) => wire::prefix(&**text),
        StringMatch::Regex(text) if &**text == "*" => return None,
        StringMatch::Regex(text) => wire::pattern(&**text),
        StringMatch::Present => return None,
    })
}

/// `@request.auth.claims.group`, `@request.auth.claims[nested][role]`: what the JWT filter wrote about the token.
fn claims(matching: &HttpMatch) -> Vec<MetadataMatcher> {
    let of = |list: &[(Text, StringMatch)], invert: bool| {
        sorted(list)
            .into_iter()
            .filter_map(|(name, value)| claim(name, value, invert))
            .collect::<Vec<_>>()
    };
    let mut found = of(&matching.headers, false);
    found.extend(of(&matching.without_headers, true));
    found
}

fn claim(name: &str, value: &StringMatch, invert: bool) -> Option<MetadataMatcher> {
    let path = name.strip_prefix(CLAIMS)?;
    let keys: Vec<&str> = match path.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => path
            .split(['[', ']'])
            .filter(|key| !key.is_empty())
            .collect(),
    };
    let pattern = |pattern| ValueMatcher {
        match_pattern: Some(pattern),
    };
    let value = match string(value) {
        None => pattern(MatchPattern::PresentMatch(true)),
        Some(matcher) => {
            let text = pattern(MatchPattern::StringMatch(matcher));
            let one = list_matcher::MatchPattern::OneOf(Box::new(text.clone()));
            let list = pattern(MatchPattern::ListMatch(Box::new(ListMatcher {
                match_pattern: Some(one),
            })));
            pattern(MatchPattern::OrMatch(OrMatcher {
                value_matchers: vec![list, text],
            }))
        }
    };
    let path = std::iter::once("payload")
        .chain(keys)
        .map(|key| PathSegment {
            segment: Some(Segment::Key(key.to_owned())),
        })
        .collect();
    Some(MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".to_owned(),
        path,
        value: Some(value),
        invert,
    })
}
