//! Times in logs: Envoy's default and its extended strftime, in UTC or (operators `…_LOCAL`) in the
//! zone that `TZ` names.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::Error;
use crate::environment::Environment;

/// A parsed time format.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimeFormat {
    pieces: Vec<Piece>,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    /// Handed to strftime.
    Calendar(String),
    /// `%3f`: so many digits of the fraction.
    Fraction(usize),
    /// `%E3S`: seconds with so many digits of fraction.
    Seconds(usize),
    /// `%E*S`: seconds with as many digits of fraction as they need.
    AllSeconds,
    /// `%Ez`: `+00:00`.
    Offset,
    /// `%s`, with `%3s`-style precision: since the epoch, with so many further digits.
    Epoch(usize),
}

/// `2026-11-23T09:10:04.123Z`, Envoy's default.
pub fn iso_time(time: SystemTime) -> String {
    let Ok(stamp) = Timestamp::try_from(time) else {
        return "-".to_string();
    };
    format!("{stamp:.3}")
}

impl TimeFormat {
    /// In UTC.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_in(text, TimeZone::UTC)
    }

    /// In the zone that the variable `TZ` names: an IANA name or a POSIX rule; UTC where it names
    /// none.
    pub(crate) fn parse_local(text: &str, environment: &Environment) -> Result<Self, Error> {
        let named = environment.variables.get("TZ");
        let zone = named
            .map(|name| name.trim_start_matches(':'))
            .and_then(|name| TimeZone::get(name).or_else(|_| TimeZone::posix(name)).ok());
        Self::parse_in(text, zone.unwrap_or(TimeZone::UTC))
    }

    fn parse_in(text: &str, zone: TimeZone) -> Result<Self, Error> {
        let mut pieces = Vec::new();
        let mut calendar = String::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let (piece, used) = match rest.strip_prefix('%').and_then(extension) {
                Some((piece, used)) => (Some(piece), used + 1),
                None => (
                    None,
                    if letter == '%' {
                        rest.chars().take(2).map(char::len_utf8).sum()
                    } else {
                        letter.len_utf8()
                    },
                ),
            };
            let (taken, after) = rest.split_at_checked(used).unwrap_or((rest, ""));
            match piece {
                Some(piece) => {
                    pieces.push(Piece::Calendar(std::mem::take(&mut calendar)));
                    pieces.push(piece);
                }
                None => calendar.push_str(taken),
            }
            rest = after;
        }
        pieces.push(Piece::Calendar(calendar));
        let format = Self { pieces, zone };
        match format.try_format(Timestamp::UNIX_EPOCH) {
            Ok(_) => Ok(format),
            Err(error) => Err(Error::Format(format!("time format `{text}`: {error}"))),
        }
    }

    pub(crate) fn format(&self, time: SystemTime) -> Option<String> {
        self.try_format(Timestamp::try_from(time).ok()?).ok()
    }

    fn try_format(&self, stamp: Timestamp) -> Result<String, jiff::Error> {
        let zoned = stamp.to_zoned(self.zone.clone());
        let digits = |count: usize| {
            format!("{:09}", zoned.subsec_nanosecond())
                .chars()
                .take(count)
                .collect::<String>()
        };
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Calendar(format) => {
                    out.push_str(&jiff::fmt::strtime::format(format, &zoned)?)
                }
                Piece::Fraction(count) => out.push_str(&digits(*count)),
                Piece::Seconds(count) => {
                    out.push_str(&format!("{:02}", zoned.second()));
                    out.push_str(if *count > 0 { "." } else { "" });
                    out.push_str(&digits(*count));
                }
                Piece::AllSeconds => {
                    out.push_str(&format!("{:02}", zoned.second()));
                    let fraction = digits(9);
                    let needed = fraction.trim_end_matches('0');
                    out.push_str(if needed.is_empty() { "" } else { "." });
                    out.push_str(needed);
                }
                Piece::Offset => {
                    let seconds = zoned.offset().seconds();
                    let sign = if seconds < 0 { '-' } else { '+' };
                    let minutes = seconds.unsigned_abs() / 60;
                    out.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
                }
                Piece::Epoch(count) => {
                    out.push_str(&stamp.as_second().to_string());
                    out.push_str(&digits(*count));
                }
            }
        }
        Ok(out)
    }
}

/// Envoy's own conversions after a percent sign, and how many bytes they take.
fn extension(text: &str) -> Option<(Piece, usize)> {
    let bytes = text.as_bytes();
    let digit = |byte: &u8| {
        byte.is_ascii_digit()
            .then(|| usize::from(byte - b'0').min(9))
    };
    match bytes {
        [b'f', ..] => Some((Piece::Fraction(9), 1)),
        [b's', ..] => Some((Piece::Epoch(0), 1)),
        [b'E', b'*', b'S', ..] => Some((Piece::AllSeconds, 3)),
        [b'E', b'z', ..] => Some((Piece::Offset, 2)),
        [b'E', count, b'S', ..] => Some((Piece::Seconds(digit(count)?), 3)),
        [count, b'f', ..] => Some((Piece::Fraction(digit(count)?), 2)),
        [count, b's', ..] => Some((Piece::Epoch(digit(count)?), 2)),
        _ => None,
    }
}
