//! Reading Kubernetes objects as JSON: what is not there reads as empty.

use serde_json::Value;

/// A text at a JSON pointer; empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number at a JSON pointer; 0 when absent.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A list at a JSON pointer; empty when absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
}

/// A scalar as people read it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Is a condition of the status true?
pub fn condition(object: &Value, kind: &str) -> bool {
    list(object, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == kind && text(condition, "/status") == "True")
}

/// Does a pod take traffic?
pub fn ready(pod: &Value) -> bool {
    condition(pod, "Ready")
}

/// Is the object on its way out?
pub fn deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Does a pod have a proxy of the mesh, as sidecar or as itself?
pub fn has_proxy(pod: &Value) -> bool {
    annotation(pod, "sidecar.istio.io/status").is_some()
}

/// `a=b,c=d` of a map of texts; kubectl's `<none>` when empty.
pub fn pairs(map: Option<&Value>) -> String {
    let pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
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

/// Seconds since a time stamp of the API; `None` when it does not parse.
pub fn seconds_since(stamp: &str, now: jiff::Timestamp) -> Option<i64> {
    let then: jiff::Timestamp = stamp.parse().ok()?;
    Some((now.as_second() - then.as_second()).max(0))
}

/// An object's age in kubectl's words.
pub fn age(object: &Value, now: jiff::Timestamp) -> String {
    seconds_since(text(object, "/metadata/creationTimestamp"), now)
        .map_or_else(|| "<unknown>".into(), short_duration)
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

/// The oldest event first, as people read a story; of the same moment in the order of their writing.
pub fn sort_events(events: &mut [Value]) {
    events.sort_by(|a, b| {
        let version = |event: &Value| {
            text(event, "/metadata/resourceVersion")
                .parse::<u64>()
                .unwrap_or(0)
        };
        (last_seen(a), version(a)).cmp(&(last_seen(b), version(b)))
    });
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

    #[test]
    fn events_are_told_in_their_order() {
        let event = |name: &str, at: &str, version: &str| serde_json::json!({"metadata": {"name": name, "resourceVersion": version}, "lastTimestamp": at});
        let mut events = vec![
            event("c", "2026-01-01T00:00:02Z", "1"),
            event("b", "2026-01-01T00:00:01Z", "10"),
            event("a", "2026-01-01T00:00:01Z", "9"),
        ];
        sort_events(&mut events);
        let names: Vec<&str> = events.iter().map(name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
