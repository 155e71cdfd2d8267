//! How kubectl writes ages, durations, maps and lists. Pure.

use serde_json::Value;

use crate::object::text;

/// A scalar as people read it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `a=b,c=d` of a map of texts, in order of the keys; `<none>` when empty.
pub fn pairs(map: Option<&Value>) -> String {
    let mut pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    pairs.sort();
    or_none(pairs.join(","))
}

/// kubectl's word for nothing.
pub fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".into()
    } else {
        text
    }
}

/// The first three and how many more, as kubectl shortens lists.
pub fn shortened(all: Vec<String>) -> String {
    let more = all.len().saturating_sub(3);
    let shown: Vec<String> = all.into_iter().take(3).collect();
    let text = or_none(shown.join(","));
    if more > 0 {
        format!("{text} + {more} more...")
    } else {
        text
    }
}

/// Seconds since a time stamp of the API; `None` when it does not parse.
pub fn seconds_since(stamp: &str, now: jiff::Timestamp) -> Option<i64> {
    let then: jiff::Timestamp = stamp.parse().ok()?;
    Some((now.as_second() - then.as_second()).max(0))
}

/// How long ago a time stamp was, in kubectl's words.
pub fn ago(stamp: &str, now: jiff::Timestamp) -> String {
    seconds_since(stamp, now).map_or_else(|| "<unknown>".into(), short_duration)
}

/// An object's age in kubectl's words.
pub fn age(object: &Value, now: jiff::Timestamp) -> String {
    ago(text(object, "/metadata/creationTimestamp"), now)
}

/// `5s`, `2m3s`, `12m`, `3h5m`, `2d3h`, `40d`, `2y`: as kubectl writes durations.
pub fn short_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |whole: i64, unit: &str, rest: i64, small: &str| {
        if rest == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}{unit}{rest}{small}")
        }
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// When an event happened last, as RFC 3339 text, whose order is that of time where all are in UTC.
pub fn last_seen(event: &Value) -> &str {
    [
        "/lastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ]
    .into_iter()
    .map(|pointer| text(event, pointer))
    .find(|stamp| !stamp.is_empty())
    .unwrap_or_default()
}

/// Is a condition of the status true?
pub fn condition(object: &Value, kind: &str) -> bool {
    condition_status(object, kind) == "True"
}

/// The status of a condition; empty when there is none of the type.
pub fn condition_status<'a>(object: &'a Value, kind: &str) -> &'a str {
    crate::object::list(object, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == kind)
        .map(|condition| text(condition, "/status"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_kubectls() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (601, "10m"),
            (10_799, "179m"),
            (11_100, "3h5m"),
            (90_000, "25h"),
            (176_400, "2d1h"),
            (700_000, "8d"),
        ] {
            assert_eq!(short_duration(seconds), expected);
        }
    }
}
