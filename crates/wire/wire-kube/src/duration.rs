//! Durations as Istio's API takes them: Go's `time.ParseDuration`, so `5s`, `0.5s`, `1h30m`,
//! `100ms`.
//!
//! proto3 JSON knows seconds only (`1.5s`), which is a subset. Negative durations are refused here:
//! no field of the API has a meaning for one. The result has nanoseconds and at most about 292
//! years, as Go's.

use std::time::Duration;

/// Parses a duration; the error is the rest of a sentence that begins with the text itself.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    let shape = "is not a duration: write a number with a unit, such as 5s, 0.5s, 1m30s, 100ms";
    if text == "0" || text == "+0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return match parse(text.trim_start_matches('-')) {
            Ok(Duration::ZERO) => Ok(Duration::ZERO),
            Ok(_) => Err("is negative: a duration must be zero or more"),
            Err(e) => Err(e),
        };
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(shape);
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err("has no unit: write for example 5s"),
            _ => return Err("has an unknown unit: use h, m, s, ms, us or ns"),
        };
        nanoseconds = nanoseconds.saturating_add(scaled(number, scale).ok_or(shape)?);
        rest = after;
    }
    match u64::try_from(nanoseconds) {
        Ok(n) if i64::try_from(n).is_ok() => Ok(Duration::from_nanos(n)),
        _ => Err("is too long: at most about 292 years"),
    }
}

/// `number` × `scale` without floating point, as Go does it; more than 18 decimal places are cut.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits: String = fraction.chars().take(18).collect();
    let part: u128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    let divisor = 10u128.pow(digits.len() as u32);
    Some(
        whole
            .saturating_mul(scale)
            .saturating_add(part * scale / divisor),
    )
}

/// Writes a duration as proto3 JSON does: seconds with as many decimals as needed.
pub fn format(duration: Duration) -> String {
    let nanoseconds = duration.subsec_nanos();
    if nanoseconds == 0 {
        return format!("{}s", duration.as_secs());
    }
    let fraction = format!("{nanoseconds:09}");
    format!("{}.{}s", duration.as_secs(), fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("0s", Some(0)),
            ("-0s", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("0.250s", Some(250_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1m1ms", Some(60_001_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("24h", Some(86_400_000_000_000)),
            ("10", None),
            ("", None),
            (".", None),
            (".s", None),
            ("1d", None),
            ("1..5s", None),
            ("-1s", None),
            ("--1s", None),
            ("9999999h", None),
            ("99999999999999999999999s", None),
        ];
        for (text, want) in cases {
            assert_eq!(
                parse(text).ok().map(|d| d.as_nanos() as u64),
                *want,
                "{text}"
            );
        }
    }

    #[test]
    fn formats_as_proto_json() {
        assert_eq!(format(Duration::from_millis(1500)), "1.5s");
        assert_eq!(format(Duration::from_secs(10)), "10s");
        assert_eq!(
            parse(&format(Duration::from_nanos(1))),
            Ok(Duration::from_nanos(1))
        );
    }
}
