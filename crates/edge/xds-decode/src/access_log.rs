//! Access logs: sinks, formats and filters. A sink that is not known is refused unless it only
//! loses a log (see `left_out`).

use std::{sync::Arc, time::Duration};

use proxy_config::{
    access_log::{AccessLog, AccessLogSink},
    matcher::{HeaderKey, HeaderTest, StringMatcher, StringPattern, ValueMatcher},
};
use telemetry::{
    access_log::{Comparison, Filter, Format},
    cel::Expression,
    record::ResponseFlags,
    stats::StringMatch,
};
use wire_envoy::{
    pb::{
        self,
        accesslog::{
            access_log::ConfigType, access_log_filter::FilterSpecifier, comparison_filter::Op,
            extension_filter,
        },
        core::substitution_format_string::Format as FormatKind,
        envoy::extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::cel::v3::ExpressionFilter,
            stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
        },
    },
    structs,
};

use crate::{
    context::Cx,
    extension::Extension,
    judgement::{enumerated, take},
    left_out::left_out,
    matcher,
    reject::{Refusal, Within, each},
    scalar, tls,
};

/// Envoy's default text format (documentation page "Access logging").
const ENVOY_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

pub(crate) fn access_logs(
    cx: &mut Cx,
    field: &'static str,
    values: Vec<pb::accesslog::AccessLog>,
) -> Result<Arc<[AccessLog]>, Refusal> {
    let found: Vec<Option<AccessLog>> = cx.each(field, values, |cx, value| {
        // It guards nothing: requests are served, and this log has no lines.
        Ok(access_log(cx, value).unwrap_or_else(|refusal| {
            cx.leave_out(refusal);
            None
        }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

fn access_log(cx: &mut Cx, value: pb::accesslog::AccessLog) -> Result<Option<AccessLog>, Refusal> {
    let pb::accesslog::AccessLog {
        name,
        filter,
        config_type,
    } = value;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    let extension = Extension::open(&any).within("typed_config")?;
    if let Some(lost) = left_out(&extension.name) {
        cx.note_text(extension.name, lost);
        return Ok(None);
    }
    let sink = sink(cx, &extension).within("typed_config")?;
    let filter = filter
        .map(|f| self::filter(cx, f))
        .transpose()
        .within("filter")?;
    Ok(Some(AccessLog {
        name: name.into(),
        filter,
        sink,
    }))
}

fn sink(cx: &mut Cx, extension: &Extension) -> Result<AccessLogSink, Refusal> {
    if extension.is::<FileAccessLog>() {
        let message: FileAccessLog = extension.message(cx)?;
        take!(cx, message => FileAccessLog { read { path, access_log_format } });
        if path.is_empty() {
            return Err(Refusal::missing("path"));
        }
        let format = match access_log_format {
            None => cx.format(ENVOY_TEXT, false)?,
            Some(AccessLogFormat::Format(text)) => cx.format(&text, false).within("format")?,
            Some(
                AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields),
            ) => json(cx, &fields, false).within("json_format")?,
            Some(AccessLogFormat::LogFormat(format)) => {
                substitution(cx, format).within("log_format")?
            }
        };
        return Ok(AccessLogSink::File {
            path: path.into(),
            format,
        });
    }
    let (path, format) = if extension.is::<StdoutAccessLog>() {
        let message: StdoutAccessLog = extension.message(cx)?;
        take!(cx, message => StdoutAccessLog { read { access_log_format } });
        (
            "/dev/stdout",
            access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format),
        )
    } else if extension.is::<StderrAccessLog>() {
        let message: StderrAccessLog = extension.message(cx)?;
        take!(cx, message => StderrAccessLog { read { access_log_format } });
        (
            "/dev/stderr",
            access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format),
        )
    } else {
        return Err(extension.unknown("as an access logger"));
    };
    let format = match format {
        None => cx.format(ENVOY_TEXT, false)?,
        Some(format) => substitution(cx, format).within("log_format")?,
    };
    Ok(AccessLogSink::File {
        path: path.into(),
        format,
    })
}

fn substitution(
    cx: &mut Cx,
    value: pb::core::SubstitutionFormatString,
) -> Result<Arc<Format>, Refusal> {
    take!(cx, value => pb::core::SubstitutionFormatString {
        read { omit_empty_values, format }
        ignore "a log line has no content type" { content_type }
        ignore "operators of extensions are known by their names, or refused" { formatters }
        ignore "keys are always sorted" { json_format_options }
    });
    match format.ok_or_else(|| Refusal::missing("format"))? {
        FormatKind::TextFormat(text) => cx.format(&text, omit_empty_values).within("text_format"),
        FormatKind::TextFormatSource(source) => {
            let text = tls::inline_text(source).within("text_format_source")?;
            cx.format(&text, omit_empty_values)
                .within("text_format_source")
        }
        FormatKind::JsonFormat(fields) => {
            json(cx, &fields, omit_empty_values).within("json_format")
        }
    }
}

fn json(cx: &Cx, fields: &pb::Struct, omit_empty: bool) -> Result<Arc<Format>, Refusal> {
    Format::json(&structs::to_json(fields), cx.environment(), omit_empty)
        .map(Arc::new)
        .map_err(|e| Refusal::new(e.to_string()))
}

/// Depth is bounded by the protobuf decoder's own recursion limit.
fn filter(cx: &mut Cx, value: pb::accesslog::AccessLogFilter) -> Result<Filter, Refusal> {
    Ok(
        match value
            .filter_specifier
            .ok_or_else(|| Refusal::missing("filter_specifier"))?
        {
            FilterSpecifier::StatusCodeFilter(status) => {
                let (comparison, value) =
                    comparison(status.comparison).within("status_code_filter")?;
                Filter::StatusCode(comparison, value)
            }
            FilterSpecifier::DurationFilter(duration) => {
                let (comparison, value) =
                    comparison(duration.comparison).within("duration_filter")?;
                Filter::Duration(comparison, Duration::from_millis(value))
            }
            FilterSpecifier::NotHealthCheckFilter(_) => Filter::NotHealthCheck,
            FilterSpecifier::TraceableFilter(_) => Filter::Traceable,
            FilterSpecifier::RuntimeFilter(pb::accesslog::RuntimeFilter {
                runtime_key: _,
                percent_sampled,
                use_independent_randomness,
            }) => Filter::RuntimeFraction {
                per_million: per_million(percent_sampled).within("runtime_filter")?,
                independent: use_independent_randomness,
            },
            FilterSpecifier::AndFilter(pb::accesslog::AndFilter { filters }) => {
                Filter::And(each("and_filter.filters", filters, |f| filter(cx, f))?)
            }
            FilterSpecifier::OrFilter(pb::accesslog::OrFilter { filters }) => {
                Filter::Or(each("or_filter.filters", filters, |f| filter(cx, f))?)
            }
            FilterSpecifier::HeaderFilter(header) => {
                header_filter(header).within("header_filter")?
            }
            FilterSpecifier::ResponseFlagFilter(pb::accesslog::ResponseFlagFilter { flags }) => {
                let flags: Vec<ResponseFlags> =
                    each("response_flag_filter.flags", flags, |name| flag(&name))?;
                Filter::ResponseFlag(
                    flags
                        .into_iter()
                        .fold(ResponseFlags::NONE, |all, flag| all | flag),
                )
            }
            FilterSpecifier::GrpcStatusFilter(pb::accesslog::GrpcStatusFilter {
                statuses,
                exclude,
            }) => Filter::GrpcStatus {
                statuses: statuses
                    .into_iter()
                    .filter_map(|s| u32::try_from(s).ok())
                    .collect(),
                exclude,
            },
            FilterSpecifier::MetadataFilter(metadata) => {
                metadata_filter(metadata).within("metadata_filter")?
            }
            FilterSpecifier::ExtensionFilter(extension) => {
                expression(cx, extension).within("extension_filter")?
            }
            FilterSpecifier::LogTypeFilter(_) => {
                return Err(Refusal::at("log_type_filter", "is not supported"));
            }
        },
    )
}

fn per_million(share: Option<pb::kind::FractionalPercent>) -> Result<u32, Refusal> {
    let share = share.map_or(Ok(proxy_config::matcher::Fraction::NONE), scalar::fraction)?;
    Ok((share.ratio() * 1e6).round() as u32)
}

fn comparison(
    value: Option<pb::accesslog::ComparisonFilter>,
) -> Result<(Comparison, u64), Refusal> {
    let pb::accesslog::ComparisonFilter { op, value } =
        value.ok_or_else(|| Refusal::missing("comparison"))?;
    let comparison = match enumerated!(op => Op, "comparison.op")? {
        Op::Eq => Comparison::Equal,
        Op::Ge => Comparison::GreaterOrEqual,
        Op::Le => Comparison::LessOrEqual,
        Op::Ne => Comparison::NotEqual,
    };
    Ok((comparison, value.map_or(0, |v| v.default_value.into())))
}

fn flag(name: &str) -> Result<ResponseFlags, Refusal> {
    let known = ResponseFlags::ALL
        .iter()
        .find(|(_, short, _)| *short == name);
    known
        .map(|(flag, _, _)| *flag)
        .ok_or_else(|| Refusal::new(format!("unknown response flag {name}")))
}

fn header_filter(value: pb::accesslog::HeaderFilter) -> Result<Filter, Refusal> {
    let header = matcher::header(value.header.ok_or_else(|| Refusal::missing("header"))?)
        .within("header")?;
    let HeaderKey::Name(name) = header.name else {
        return Err(Refusal::at(
            "header.name",
            "pseudo headers are not supported",
        ));
    };
    let (value, invert) = match header.test {
        HeaderTest::Present(wanted) => (None, header.invert == wanted),
        HeaderTest::String(text) => (Some(pattern(text).within("header")?), header.invert),
        HeaderTest::Range { .. } => {
            return Err(Refusal::at("header.range_match", "is not supported"));
        }
    };
    Ok(Filter::Header {
        name,
        value,
        invert,
    })
}

fn metadata_filter(value: pb::accesslog::MetadataFilter) -> Result<Filter, Refusal> {
    let pb::accesslog::MetadataFilter {
        matcher,
        match_if_key_not_found,
    } = value;
    let matcher =
        matcher::metadata(matcher.ok_or_else(|| Refusal::missing("matcher"))?).within("matcher")?;
    let ValueMatcher::String(text) = matcher.value else {
        return Err(Refusal::at("matcher.value", "only text is supported"));
    };
    if matcher.invert {
        return Err(Refusal::at("matcher.invert", "is not supported"));
    }
    Ok(Filter::Metadata {
        filter: matcher.filter.to_string(),
        path: matcher.path.iter().map(ToString::to_string).collect(),
        value: pattern(text).within("matcher.value")?,
        or_absent: scalar::flag_or(match_if_key_not_found, true),
    })
}

fn pattern(text: StringMatcher) -> Result<StringMatch, Refusal> {
    if text.ignore_case {
        return Err(Refusal::at(
            "ignore_case",
            "is not supported in log filters",
        ));
    }
    Ok(match text.pattern {
        StringPattern::Exact(text) => StringMatch::Exact(text.to_string()),
        StringPattern::Prefix(text) => StringMatch::Prefix(text.to_string()),
        StringPattern::Suffix(text) => StringMatch::Suffix(text.to_string()),
        StringPattern::Contains(text) => StringMatch::Contains(text.to_string()),
        StringPattern::Regex(regex) => {
            StringMatch::regex(regex.pattern()).map_err(|e| Refusal::new(e.to_string()))?
        }
    })
}

fn expression(cx: &mut Cx, value: pb::accesslog::ExtensionFilter) -> Result<Filter, Refusal> {
    let pb::accesslog::ExtensionFilter {
        name: _,
        config_type,
    } = value;
    let Some(extension_filter::ConfigType::TypedConfig(any)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    let message = Extension::open(&any)
        .and_then(|e| e.message::<ExpressionFilter>(cx))
        .within("typed_config")?;
    take!(cx, message => ExpressionFilter {
        read { expression }
        ignore "the expressions that are supported need no switches" { cel_config }
    });
    Expression::parse(&expression)
        .map(Filter::Expression)
        .map_err(|e| Refusal::at("typed_config.expression", e.to_string()))
}
