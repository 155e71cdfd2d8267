//! Matchers that several resources share: strings, headers, query parameters, metadata, URI
//! templates.

use proxy_config::matcher::{
    FullRegex, HeaderMatcher, HeaderTest, MetadataMatcher, QueryMatcher, RegexRewrite,
    StringMatcher, StringPattern, UriTemplate, ValueMatcher,
};
use wire_envoy::pb::{
    self,
    envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
    matcher::{
        double_matcher, list_matcher, path_matcher, regex_matcher, string_matcher::MatchPattern,
        value_matcher,
    },
    route::{
        header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
    },
};

use crate::{
    context::Cx,
    extension,
    judgement::take,
    reject::{Refusal, Within, each},
    scalar,
};

pub(crate) fn regex(value: pb::matcher::RegexMatcher) -> Result<FullRegex, Refusal> {
    FullRegex::parse(&pattern(value)?).map_err(|e| Refusal::at("regex", e.to_string()))
}

/// RE2's own limits are not ours, so the engine's settings decide nothing.
fn pattern(value: pb::matcher::RegexMatcher) -> Result<String, Refusal> {
    let pb::matcher::RegexMatcher { regex, engine_type } = value;
    if let Some(regex_matcher::EngineType::GoogleRe2(pb::matcher::regex_matcher::GoogleRe2 {
        max_program_size: _,
    })) = engine_type
    {}
    if regex.is_empty() {
        Err(Refusal::missing("regex"))
    } else {
        Ok(regex)
    }
}

pub(crate) fn rewrite(
    value: pb::matcher::RegexMatchAndSubstitute,
) -> Result<RegexRewrite, Refusal> {
    let pb::matcher::RegexMatchAndSubstitute {
        pattern: regex,
        substitution,
    } = value;
    let regex = pattern(regex.ok_or_else(|| Refusal::missing("pattern"))?).within("pattern")?;
    RegexRewrite::parse(&regex, &substitution).map_err(|e| Refusal::at("pattern", e.to_string()))
}

pub(crate) fn string(value: pb::matcher::StringMatcher) -> Result<StringMatcher, Refusal> {
    let pb::matcher::StringMatcher {
        ignore_case,
        match_pattern,
    } = value;
    let pattern = match match_pattern.ok_or_else(|| Refusal::missing("match_pattern"))? {
        MatchPattern::Exact(text) => StringPattern::Exact(text.into()),
        MatchPattern::Prefix(text) => StringPattern::Prefix(text.into()),
        MatchPattern::Suffix(text) => StringPattern::Suffix(text.into()),
        MatchPattern::Contains(text) => StringPattern::Contains(text.into()),
        MatchPattern::SafeRegex(pattern) => {
            StringPattern::Regex(regex(pattern).within("safe_regex")?)
        }
        MatchPattern::Custom(_) => {
            return Err(Refusal::at(
                "custom",
                "custom string matchers are not supported",
            ));
        }
    };
    Ok(StringMatcher {
        pattern,
        ignore_case,
    })
}

pub(crate) fn path(value: pb::matcher::PathMatcher) -> Result<StringMatcher, Refusal> {
    match value.rule {
        Some(path_matcher::Rule::Path(matcher)) => string(matcher).within("path"),
        None => Err(Refusal::missing("path")),
    }
}

pub(crate) fn headers<C: FromIterator<HeaderMatcher>>(
    field: &'static str,
    values: Vec<pb::route::HeaderMatcher>,
) -> Result<C, Refusal> {
    each(field, values, header)
}

pub(crate) fn header(value: pb::route::HeaderMatcher) -> Result<HeaderMatcher, Refusal> {
    let pb::route::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = value;
    let plain = |pattern| {
        HeaderTest::String(StringMatcher {
            pattern,
            ignore_case: false,
        })
    };
    let test = match header_match_specifier {
        None => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(wanted)) => HeaderTest::Present(wanted),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            HeaderTest::String(string(matcher).within("string_match")?)
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => plain(StringPattern::Exact(text.into())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => plain(StringPattern::Prefix(text.into())),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => plain(StringPattern::Suffix(text.into())),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            plain(StringPattern::Contains(text.into()))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(pattern)) => plain(StringPattern::Regex(
            regex(pattern).within("safe_regex_match")?,
        )),
        Some(HeaderMatchSpecifier::RangeMatch(pb::kind::Int64Range { start, end })) => {
            HeaderTest::Range { start, end }
        }
    };
    Ok(HeaderMatcher {
        name: scalar::header_key("name", &name)?,
        test,
        invert: invert_match,
        missing_as_empty: treat_missing_header_as_empty,
    })
}

pub(crate) fn query(value: pb::route::QueryParameterMatcher) -> Result<QueryMatcher, Refusal> {
    let pb::route::QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = value;
    let value = match query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            Some(string(matcher).within("string_match")?)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(Refusal::at(
                "present_match",
                "matching on absence is not supported",
            ));
        }
    };
    Ok(QueryMatcher {
        name: name.into(),
        value,
    })
}

pub(crate) fn metadata(value: pb::matcher::MetadataMatcher) -> Result<MetadataMatcher, Refusal> {
    use pb::matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    let pb::matcher::MetadataMatcher {
        filter,
        path,
        value,
        invert,
    } = value;
    let path = each("path", path, |PathSegment { segment }| match segment {
        Some(Segment::Key(key)) => Ok(key.into()),
        None => Err(Refusal::missing("key")),
    })?;
    let value = value_matcher(value.ok_or_else(|| Refusal::missing("value"))?).within("value")?;
    Ok(MetadataMatcher {
        filter: filter.into(),
        path,
        value,
        invert,
    })
}

fn value_matcher(value: pb::matcher::ValueMatcher) -> Result<ValueMatcher, Refusal> {
    use value_matcher::MatchPattern as Pattern;
    Ok(
        match value
            .match_pattern
            .ok_or_else(|| Refusal::missing("match_pattern"))?
        {
            Pattern::NullMatch(pb::matcher::value_matcher::NullMatch {}) => ValueMatcher::Null,
            Pattern::BoolMatch(wanted) => ValueMatcher::Bool(wanted),
            Pattern::PresentMatch(wanted) => ValueMatcher::Present(wanted),
            Pattern::StringMatch(matcher) => {
                ValueMatcher::String(string(matcher).within("string_match")?)
            }
            Pattern::DoubleMatch(matcher) => match matcher.match_pattern {
                Some(double_matcher::MatchPattern::Exact(number)) => ValueMatcher::Number(number),
                Some(double_matcher::MatchPattern::Range(_)) => {
                    return Err(Refusal::at(
                        "double_match.range",
                        "number ranges are not supported",
                    ));
                }
                None => return Err(Refusal::missing("double_match")),
            },
            Pattern::ListMatch(matcher) => match matcher.match_pattern {
                Some(list_matcher::MatchPattern::OneOf(inner)) => ValueMatcher::AnyOf(Box::new(
                    value_matcher(*inner).within("list_match.one_of")?,
                )),
                None => return Err(Refusal::missing("list_match")),
            },
            Pattern::OrMatch(matcher) => ValueMatcher::Or(each(
                "or_match.value_matchers",
                matcher.value_matchers,
                value_matcher,
            )?),
        },
    )
}

/// `UriTemplateMatchConfig` in the place of a path matcher.
pub(crate) fn uri_template(
    cx: &mut Cx,
    value: pb::core::TypedExtensionConfig,
) -> Result<UriTemplate, Refusal> {
    let (_, extension) = extension::typed(value)?;
    let message: UriTemplateMatchConfig = extension.message(cx)?;
    take!(cx, message => UriTemplateMatchConfig { read { path_template } });
    let pattern = template_pattern(&path_template).within("path_template")?;
    FullRegex::parse(&pattern)
        .map(UriTemplate)
        .map_err(|e| Refusal::at("path_template", e.to_string()))
}

/// `*` is one path segment, `**` the rest (last only), `{name}` and `{name=pattern}` are the same
/// with a name.
fn template_pattern(template: &str) -> Result<String, Refusal> {
    if !template.starts_with('/') {
        return Err(Refusal::new("a template must start with /"));
    }
    let mut out = String::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**") {
            if !after.is_empty() && !after.starts_with('}') {
                return Err(Refusal::new("** must be the last operator"));
            }
            out.push_str("[^?]*");
            rest = after;
        } else if let Some(after) = rest.strip_prefix('*') {
            out.push_str("[^/?]+");
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (inside, after) = after
                .split_once('}')
                .ok_or_else(|| Refusal::new("{ without }"))?;
            match inside.split_once('=') {
                None if inside == "*" || !inside.starts_with('*') => out.push_str("[^/?]+"),
                None if inside == "**" => out.push_str("[^?]*"),
                None => return Err(Refusal::new(format!("{{{inside}}} is no variable"))),
                Some((_, pattern)) => {
                    out.push_str(template_pattern(&format!("/{pattern}"))?.trim_start_matches('/'))
                }
            }
            rest = after;
        } else {
            out.push_str(&regex::escape(first.encode_utf8(&mut [0; 4])));
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        FullRegex::parse(&template_pattern(template).expect("a template"))
            .expect("a pattern")
            .is_match(path)
    }

    #[test]
    fn templates_match_one_segment_or_the_rest() {
        assert!(matches("/a/*/b", "/a/x/b"));
        assert!(!matches("/a/*/b", "/a/x/y/b"));
        assert!(matches("/a/**", "/a/x/y"));
        assert!(matches("/a/{id}/c", "/a/7/c"));
        assert!(matches("/{path=v1/*}/c", "/v1/7/c"));
        assert!(matches("/a.b/*", "/a.b/c"));
        assert!(!matches("/a.b/*", "/axb/c"));
        assert!(template_pattern("/**/a").is_err());
    }

    #[test]
    fn a_header_matcher_without_a_test_asks_for_presence() {
        let matcher = header(pb::route::HeaderMatcher {
            name: "Host".to_owned(),
            ..Default::default()
        })
        .expect("decoded");
        assert_eq!(matcher.test, HeaderTest::Present(true));
        assert_eq!(matcher.name, proxy_config::matcher::HeaderKey::Authority);
        assert!(
            header(pb::route::HeaderMatcher {
                name: "a b".to_owned(),
                ..Default::default()
            })
            .is_err()
        );
    }
}
