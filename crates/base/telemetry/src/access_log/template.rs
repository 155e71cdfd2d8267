//! Template text to parts: `%OPERATOR%`, `%OPERATOR(arguments)%`, `%OPERATOR(arguments):LENGTH%`,
//! `%%`.

use super::operator::{Operator, Part};
use crate::Error;
use crate::environment::Environment;

/// Longest template, bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Parses a template; neighbouring literals are one part.
pub(super) fn parse(text: &str, environment: &Environment) -> Result<Vec<Part>, Error> {
    if text.len() > MAX_LENGTH {
        return Err(Error::Format(format!("longer than {MAX_LENGTH} bytes")));
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after_percent) = after.strip_prefix('%') {
            literal.push('%');
            rest = after_percent;
            continue;
        }
        let (part, after) = command(after, environment)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(part);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// One command whose first percent sign is gone, and what follows it.
fn command<'a>(text: &'a str, environment: &Environment) -> Result<(Part, &'a str), Error> {
    let shown = || text.chars().take(40).collect::<String>();
    let end = text.find(|letter: char| {
        !letter.is_ascii_uppercase() && !letter.is_ascii_digit() && letter != '_'
    });
    let Some((name, rest)) = end.and_then(|end| text.split_at_checked(end)) else {
        return Err(Error::Format(format!(
            "`%{}`: no closing percent sign",
            shown()
        )));
    };
    if name.is_empty() {
        return Err(Error::Format(format!(
            "`%{}`: no operator after the percent sign",
            shown()
        )));
    }
    let (arguments, rest) = match rest.strip_prefix('(') {
        Some(inner) => {
            let Some((arguments, rest)) = arguments(inner) else {
                return Err(Error::Format(format!(
                    "`%{}`: no closing parenthesis",
                    shown()
                )));
            };
            (Some(arguments), rest)
        }
        None => (None, rest),
    };
    let (longest, rest) = match rest.strip_prefix(':') {
        Some(rest) => {
            let Some((digits, rest)) = rest.split_once('%') else {
                return Err(Error::Format(format!(
                    "`%{}`: no closing percent sign",
                    shown()
                )));
            };
            let length = digits
                .parse()
                .map_err(|_| Error::Format(format!("`%{name}%`: `{digits}` is no length")))?;
            (Some(length), rest)
        }
        None => match rest.strip_prefix('%') {
            Some(rest) => (None, rest),
            None => {
                return Err(Error::Format(format!(
                    "`%{}`: no closing percent sign",
                    shown()
                )));
            }
        },
    };
    Ok((
        Part::Operator {
            operator: Operator::parse(name, arguments, environment)?,
            longest,
        },
        rest,
    ))
}

/// Arguments up to the first parenthesis that is followed by the command's end: expressions and
/// time formats may hold parentheses and percent signs themselves.
fn arguments(text: &str) -> Option<(&str, &str)> {
    text.match_indices(')').find_map(|(at, _)| {
        let rest = text.get(at + 1..)?;
        let ends = match rest.strip_prefix(':') {
            Some(after) => after
                .trim_start_matches(|letter: char| letter.is_ascii_digit())
                .starts_with('%'),
            None => rest.starts_with('%'),
        };
        ends.then(|| text.get(..at).map(|arguments| (arguments, rest)))?
    })
}
