//! Which statuses count as errors in outlier detection: a matcher over `:status`, as Istio writes
//! it. Other matchers are refused.

use std::ops::Range;

use proxy_config::matcher::{HeaderKey, HeaderMatcher, HeaderTest, StringPattern};
use wire_envoy::pb::envoy::config::common::matcher::v3::{
    HttpHeadersMatch, MatchPredicate, match_predicate::Rule,
};

use super::ErrorStatuses;
use crate::{
    matcher,
    reject::{Refusal, Within},
};

pub(super) fn error_statuses(value: MatchPredicate) -> Result<ErrorStatuses, Refusal> {
    let mut ranges = Vec::new();
    collect(value, &mut ranges)?;
    Ok(ranges.into())
}

fn collect(value: MatchPredicate, ranges: &mut Vec<Range<u16>>) -> Result<(), Refusal> {
    match value.rule.ok_or_else(|| Refusal::missing("rule"))? {
        Rule::OrMatch(set) => {
            for (index, rule) in set.rules.into_iter().enumerate() {
                collect(rule, ranges).within_item("or_match.rules", index)?;
            }
            Ok(())
        }
        Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers }) => {
            let matchers: Vec<HeaderMatcher> =
                matcher::headers("headers", headers).within("http_response_headers_match")?;
            match matchers.as_slice() {
                [one] => {
                    ranges.push(statuses(one).within("http_response_headers_match.headers[0]")?)
                }
                _ => {
                    return Err(Refusal::at(
                        "http_response_headers_match.headers",
                        "one matcher over :status is needed",
                    ));
                }
            }
            Ok(())
        }
        _ => Err(Refusal::new(
            "only or_match and http_response_headers_match over :status are supported",
        )),
    }
}

fn statuses(matcher: &HeaderMatcher) -> Result<Range<u16>, Refusal> {
    let range = match (&matcher.name, &matcher.test) {
        (HeaderKey::Status, HeaderTest::String(text)) if !matcher.invert => match &text.pattern {
            StringPattern::Exact(code) => code
                .parse::<u16>()
                .ok()
                .and_then(|code| Some(code..code.checked_add(1)?)),
            _ => None,
        },
        (HeaderKey::Status, HeaderTest::Range { start, end }) if !matcher.invert => {
            u16::try_from(*start)
                .ok()
                .zip(u16::try_from(*end).ok())
                .map(|(start, end)| start..end)
        }
        _ => None,
    };
    range
        .filter(|r| !r.is_empty())
        .ok_or_else(|| Refusal::new("only :status with an exact code or a range is supported"))
}
