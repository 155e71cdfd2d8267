//! The little that the proxy knows about gRPC: message boundaries, statuses, time limits (gRPC over
//! HTTP/2).

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::headers::names::{GRPC_STATUS, GRPC_TIMEOUT};

/// Counts length-prefixed messages in a stream of data frames, wherever they are cut.
#[derive(Debug, Default)]
pub struct Messages {
    count: u64,
    /// Bytes of the current prefix that were seen, and the length so far.
    prefix: u8,
    length: u32,
    /// Bytes of the current message still to come.
    rest: u64,
}

impl Messages {
    pub fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.rest > 0 {
                let skip = usize::try_from(self.rest)
                    .unwrap_or(usize::MAX)
                    .min(data.len());
                self.rest -= skip as u64;
                data = data.get(skip..).unwrap_or_default();
                continue;
            }
            let Some((byte, tail)) = data.split_first() else {
                return;
            };
            data = tail;
            // One byte of flags, four of length.
            self.length = if self.prefix == 0 {
                0
            } else {
                (self.length << 8) | u32::from(*byte)
            };
            self.prefix += 1;
            if self.prefix == 5 {
                self.prefix = 0;
                self.count += 1;
                self.rest = self.length.into();
            }
        }
    }

    /// Messages begun so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// `application/grpc` with or without a suffix.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    let value = headers
        .get(http::header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes)
        .unwrap_or_default();
    value
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The status in a head or in trailers.
pub fn status_in(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.trim().parse().ok()
}

/// The status of a local answer (Envoy's mapping).
pub fn status_of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message`: everything but visible ASCII as `%XX`.
pub fn encode_message(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if (0x20..=0x7e).contains(byte) && *byte != b'%' {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `grpc-timeout`: up to eight digits and a unit.
pub fn timeout_in(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// What a call asks for, less the offset unless nothing would be left, and no more than `max`
/// (zero: any).
pub fn capped(asked: Duration, max: Duration, offset: Option<Duration>) -> Duration {
    let offset = offset.filter(|offset| *offset < asked).unwrap_or_default();
    let limit = asked - offset;
    if !max.is_zero() && (limit.is_zero() || limit > max) {
        max
    } else {
        limit
    }
}

/// The value of `grpc-timeout` for a limit.
pub fn encode_timeout(limit: Duration) -> String {
    const MOST: u128 = 99_999_999;
    match limit.as_millis() {
        milliseconds if milliseconds <= MOST => format!("{milliseconds}m"),
        milliseconds => format!("{}S", (milliseconds / 1000).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let stream: Vec<u8> = [
            vec![0, 0, 0, 0, 3, 1, 2, 3],
            vec![0, 0, 0, 0, 0],
            vec![0, 0, 0, 1, 0],
            vec![7; 256],
        ]
        .concat();
        for size in [1, 2, 5, 7, 64, stream.len()] {
            let mut messages = Messages::default();
            stream.chunks(size).for_each(|chunk| messages.feed(chunk));
            assert_eq!(messages.count(), 3, "chunks of {size}");
        }
    }

    #[test]
    fn time_limits_read_with_their_unit() {
        let table = [
            ("100m", Some(100_000)),
            ("2S", Some(2_000_000)),
            ("1H", Some(3_600_000_000)),
            ("5u", Some(5)),
            ("", None),
            ("1", None),
            ("123456789S", None),
            ("xS", None),
        ];
        for (text, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            assert_eq!(
                timeout_in(&headers),
                expected.map(Duration::from_micros),
                "{text}"
            );
        }
    }
}
