//! Path normalisation, as `normalize_path`, `merge_slashes` and `path_with_escaped_slashes_action` ask for.

use std::{borrow::Cow, fmt::Write as _};

use proxy_config::http_connection_manager::{EscapedSlashes, PathNormalization};

/// What becomes of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    Path(Cow<'a, str>),
    /// 400.
    Reject,
    /// 307 to the path with slashes unescaped.
    Redirect(String),
}

/// Normalises a path with query (the query is left alone).
pub fn normalize<'a>(path: &'a str, rules: &PathNormalization) -> Normalized<'a> {
    let (only, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let mut only = Cow::Borrowed(only);
    let mut redirects = false;
    if rules.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(&only) {
        match rules.escaped_slashes {
            EscapedSlashes::Reject => return Normalized::Reject,
            EscapedSlashes::UnescapeAndRedirect => redirects = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        only = Cow::Owned(unescape_slashes(&only));
    }
    if rules.normalize && needs_normalizing(&only) {
        match canonical(&only).and_then(|path| remove_dot_segments(&path)) {
            Some(clean) => only = Cow::Owned(clean),
            None => return Normalized::Reject,
        }
    }
    if rules.merge_slashes && only.contains("//") {
        only = Cow::Owned(merge_slashes(&only));
    }
    let whole = match only {
        Cow::Borrowed(same) if same.len() + query.len() == path.len() => Cow::Borrowed(path),
        changed => Cow::Owned(changed.into_owned() + query),
    };
    if redirects {
        Normalized::Redirect(whole.into_owned())
    } else {
        Normalized::Path(whole)
    }
}

fn has_escaped_slash(path: &str) -> bool {
    ["%2F", "%2f", "%5C", "%5c"]
        .iter()
        .any(|escaped| path.contains(escaped))
}

/// Escaped slashes and backslashes as themselves.
pub fn unescape_slashes(path: &str) -> String {
    path.replace("%2F", "/")
        .replace("%2f", "/")
        .replace("%5C", "\\")
        .replace("%5c", "\\")
}

/// Most paths need nothing; this looks once and allocates nothing.
fn needs_normalizing(path: &str) -> bool {
    path.contains("/.") || path.contains(['%', '\\']) || path.contains(must_be_escaped)
}

/// Characters that a path may not hold as they are (RFC 3986 §3.3), but for brackets, which Envoy leaves alone, too.
fn must_be_escaped(c: char) -> bool {
    matches!(c, '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}') || !c.is_ascii_graphic()
}

/// Backslashes become slashes, what need not be escaped is not, and what must be is. `None`: it holds a NUL.
fn canonical(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let escaped = rest
            .strip_prefix('%')
            .and_then(|tail| tail.get(..2))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped.map(char::from) {
            Some('\0') => return None,
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') => {
                out.push(c);
                rest = rest.get(3..).unwrap_or_default();
            }
            _ => {
                match first {
                    '\\' => out.push('/'),
                    first if must_be_escaped(first) => push_escaped(&mut out, first),
                    first => out.push(first),
                }
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
    }
    Some(out)
}

fn push_escaped(out: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        // Writing to a string cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

/// RFC 3986 §5.2.4; `None` when the path does not start with a slash.
fn remove_dot_segments(path: &str) -> Option<String> {
    let body = path.strip_prefix('/')?;
    let mut segments: Vec<&str> = Vec::new();
    let mut last_is_directory = false;
    for segment in body.split('/') {
        last_is_directory = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if last_is_directory || out.is_empty() {
        out.push('/');
    }
    Some(out)
}

/// A path of nothing but slashes keeps its first and its last, as in Envoy.
fn merge_slashes(path: &str) -> String {
    if path.bytes().all(|byte| byte == b'/') {
        return "//".into();
    }
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> String {
        let rules = PathNormalization {
            normalize: true,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::Keep,
        };
        match normalize(path, &rules) {
            Normalized::Path(path) => path.into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn dot_segments_and_needless_escapes_go() {
        let table = [
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%41dmin", "/Admin"),
            ("/a\\..\\b", "/b"),
            ("/a//b", "/a//b"),
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/.hidden", "/.hidden"),
            ("/a%zz", "/a%zz"),
            ("/a[b]{c}|d^e`f", "/a[b]%7Bc%7D%7Cd%5Ee%60f"),
            ("/a%00b", "Reject"),
        ];
        for (given, expected) in table {
            assert_eq!(normal(given), expected, "{given}");
        }
    }

    #[test]
    fn escaped_slashes_follow_their_action() {
        let with = |escaped_slashes| PathNormalization {
            normalize: true,
            merge_slashes: true,
            escaped_slashes,
        };
        assert_eq!(
            normalize("/a%2Fb", &with(EscapedSlashes::Reject)),
            Normalized::Reject
        );
        assert_eq!(
            normalize("/a%2F%5cb?q", &with(EscapedSlashes::UnescapeAndRedirect)),
            Normalized::Redirect("/a/b?q".into())
        );
        assert_eq!(
            normalize("/a%2fb", &with(EscapedSlashes::UnescapeAndForward)),
            Normalized::Path("/a/b".into())
        );
        assert_eq!(
            normalize("/a//b", &with(EscapedSlashes::Keep)),
            Normalized::Path("/a/b".into())
        );
        for (given, expected) in [("//", "//"), ("///", "//"), ("//a///b//", "/a/b/")] {
            let merged = normalize(given, &with(EscapedSlashes::Keep));
            assert_eq!(merged, Normalized::Path(expected.into()), "{given}");
        }
    }
}
