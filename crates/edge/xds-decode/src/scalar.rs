//! Single values: durations, counts, fractions, status codes, header names.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};
use proxy_config::matcher::{Fraction, HeaderKey, Percent, non_zero};
use wire_envoy::pb;

use crate::{
    context::Cx,
    judgement::{enumerated, take},
    reject::{Refusal, Within},
};

/// Not negative, at most what Envoy accepts (about 317 years).
pub(crate) fn duration(value: pb::Duration) -> Result<Duration, Refusal> {
    let seconds = u64::try_from(value.seconds).ok();
    let nanos = u32::try_from(value.nanos)
        .ok()
        .filter(|n| *n < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) if seconds < 10_000_000_000 => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Refusal::new(format!(
            "{}s {}ns is no duration in range",
            value.seconds, value.nanos
        ))),
    }
}

pub(crate) fn optional_duration(
    field: &'static str,
    value: Option<pb::Duration>,
) -> Result<Option<Duration>, Refusal> {
    value.map(duration).transpose().within(field)
}

/// Zero says "no limit" in most of Envoy's timeouts; an absent one has a default.
pub(crate) fn limit(
    field: &'static str,
    value: Option<pb::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Refusal> {
    Ok(match optional_duration(field, value)? {
        None => default,
        Some(given) => non_zero(given),
    })
}

pub(crate) fn duration_or(
    field: &'static str,
    value: Option<pb::Duration>,
    default: Duration,
) -> Result<Duration, Refusal> {
    Ok(optional_duration(field, value)?.unwrap_or(default))
}

pub(crate) fn count(value: Option<pb::UInt32Value>) -> Option<u32> {
    value.map(|v| v.value)
}

pub(crate) fn count_or(value: Option<pb::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |v| v.value)
}

pub(crate) fn flag_or(value: Option<pb::BoolValue>, default: bool) -> bool {
    value.map_or(default, |v| v.value)
}

/// `None` for an empty text.
pub(crate) fn text(value: String) -> Option<Arc<str>> {
    (!value.is_empty()).then(|| value.into())
}

pub(crate) fn texts(values: Vec<String>) -> Arc<[Arc<str>]> {
    values.into_iter().map(Arc::from).collect()
}

/// A whole percentage of at most 100.
pub(crate) fn percent(field: &'static str, value: u32) -> Result<Percent, Refusal> {
    Percent::new(value)
        .ok_or_else(|| Refusal::at(field, format!("{value} is more than 100 percent")))
}

/// 0.0..=100.0.
pub(crate) fn percentage(field: &'static str, value: pb::kind::Percent) -> Result<f64, Refusal> {
    let pb::kind::Percent { value } = value;
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        Err(Refusal::at(field, format!("{value} is no percentage")))
    }
}

pub(crate) fn fraction(value: pb::kind::FractionalPercent) -> Result<Fraction, Refusal> {
    use pb::kind::fractional_percent::DenominatorType;
    let pb::kind::FractionalPercent {
        numerator,
        denominator,
    } = value;
    let denominator = match enumerated!(denominator => DenominatorType, "denominator")? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok(Fraction::new(numerator, denominator))
}

pub(crate) fn runtime_fraction(
    cx: &mut Cx,
    value: pb::core::RuntimeFractionalPercent,
) -> Result<Fraction, Refusal> {
    take!(cx, value => pb::core::RuntimeFractionalPercent {
        read { default_value }
        ignore "there is no runtime layer, so the default holds" { runtime_key }
    });
    default_value
        .map_or(Ok(Fraction::ALL), fraction)
        .within("default_value")
}

pub(crate) fn status(field: &'static str, code: u32) -> Result<StatusCode, Refusal> {
    u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|code| code.as_u16() >= 200 && code.as_u16() < 600)
        .ok_or_else(|| Refusal::at(field, format!("{code} is no HTTP status of an answer")))
}

pub(crate) fn port(field: &'static str, value: u32) -> Result<u16, Refusal> {
    u16::try_from(value).map_err(|_| Refusal::at(field, format!("{value} is no port")))
}

pub(crate) fn header_name(field: &'static str, name: &str) -> Result<HeaderName, Refusal> {
    name.parse()
        .map_err(|_| Refusal::at(field, format!("{name:?} is no header name")))
}

/// A header that a matcher may look at: pseudo headers too.
pub(crate) fn header_key(field: &'static str, name: &str) -> Result<HeaderKey, Refusal> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":authority" | "host" => HeaderKey::Authority,
        ":method" => HeaderKey::Method,
        ":path" => HeaderKey::Path,
        ":scheme" => HeaderKey::Scheme,
        ":protocol" => HeaderKey::Protocol,
        ":status" => HeaderKey::Status,
        other => HeaderKey::Name(header_name(field, other)?),
    })
}
