//! Rust text as tokens: enough to find paths, declarations and calls, without comments, texts and
//! test modules.
//!
//! It is no parser. It relies on rustfmt's layout only for the end of `#[cfg(test)] mod tests { …
//! }`, and it does not expand macros: a path that a macro makes is not seen.

use std::collections::BTreeSet;

use super::source::Source;

/// One word or one sign (`::` counts as one) and its line, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: usize,
}

impl Token<'_> {
    pub fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The tokens of a file's production code.
pub fn tokens(source: &Source) -> Vec<Token<'_>> {
    let text = source.production_text();
    let mut found = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = skipped(rest);
        if length > 0 {
            line += rest[..length].matches('\n').count();
            at += length;
            continue;
        }
        let length = token_length(rest);
        found.push(Token {
            text: &rest[..length],
            line,
        });
        at += length;
    }
    found
}

/// The lines, from 0, that begin inside of a text literal.
pub fn lines_in_literals(text: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let (mut at, mut line) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = match skipped(rest) {
            0 => token_length(rest),
            length => length,
        };
        let breaks = rest[..length].matches('\n').count();
        if literal(rest) > 0 {
            found.extend(line + 1..=line + breaks);
        }
        line += breaks;
        at += length;
    }
    found
}

/// How much of the start of `rest` is space, comment, text or character.
fn skipped(rest: &str) -> usize {
    let spaces = rest.len() - rest.trim_start().len();
    if spaces > 0 {
        return spaces;
    }
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    literal(rest)
}

/// The length of a text or character literal at the start of `rest`; 0: there is none.
fn literal(rest: &str) -> usize {
    let unprefixed = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - unprefixed.len();
    if prefix > 1 {
        return 0;
    }
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let length = body.find(&end).map_or(body.len(), |at| at + end.len());
            return prefix + 1 + hashes + 1 + length;
        }
        return 0;
    }
    if unprefixed.starts_with('"') {
        return prefix + closed_by(unprefixed, '"');
    }
    // A quote that is no character begins a lifetime.
    let mut after = unprefixed.strip_prefix('\'').unwrap_or_default().chars();
    match (after.next(), after.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => prefix + closed_by(unprefixed, '\''),
        _ => 0,
    }
}

/// The length of a literal that begins with a quote and ends with the next one that is not escaped.
fn closed_by(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn token_length(rest: &str) -> usize {
    if rest.starts_with("::") {
        return 2;
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let word = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
    if word > 0 {
        return word;
    }
    rest.chars().next().map_or(1, char::len_utf8)
}

/// A name that `use` brings in: what it is called here, and the path it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import<'a> {
    /// `*` for all names of the path.
    pub name: &'a str,
    pub path: Vec<&'a str>,
    pub is_public: bool,
}

/// What a file declares and names.
#[derive(Debug, Default)]
pub struct Outline<'a> {
    /// `mod x;` outside of tests.
    pub children: Vec<&'a str>,
    pub imports: Vec<Import<'a>>,
    /// Paths in the code, of two segments or more.
    pub paths: Vec<Vec<&'a str>>,
    /// Every single word of the code, imports left out.
    pub words: Vec<&'a str>,
    /// Macros that the file defines.
    pub macros: Vec<&'a str>,
}

pub fn outline(source: &Source) -> Outline<'_> {
    let tokens = tokens(source);
    let texts: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let mut found = Outline::default();
    let mut at = 0;
    while let Some(text) = texts.get(at) {
        at += match *text {
            "use" => imports(&texts, at, &mut found),
            "mod" if texts.get(at + 2) == Some(&";") => {
                let name = texts.get(at + 1).copied().unwrap_or_default();
                if !is_for_tests(&texts[..at]) {
                    found.children.push(name);
                }
                3
            }
            "macro_rules" => {
                found.macros.extend(texts.get(at + 2));
                3
            }
            _ if tokens[at].is_word() => path(&texts, at, &mut found),
            _ => 1,
        };
    }
    found
}

/// Whether the attributes just before an item keep it out of production.
fn is_for_tests(before: &[&str]) -> bool {
    let before = before.strip_suffix(&["pub"]).unwrap_or(before);
    before.ends_with(&["#", "[", "cfg", "(", "test", ")", "]"])
}

/// Reads a `use` declaration; returns its number of tokens.
fn imports<'a>(texts: &[&'a str], at: usize, found: &mut Outline<'a>) -> usize {
    let end = texts[at..].iter().position(|t| *t == ";");
    let end = at + end.unwrap_or(texts.len() - at - 1);
    // `impl Trait + use<'a>` is no import.
    if texts.get(at + 1) == Some(&"<") {
        return 1;
    }
    let is_public = matches!(texts[..at].last(), Some(&"pub" | &")"));
    let mut tree = &texts[at + 1..end];
    while !tree.is_empty() {
        tree = branch(tree, &[], is_public, found);
    }
    end + 1 - at
}

/// Reads one branch of a `use` tree below `above`; returns what follows it.
fn branch<'t, 'a>(
    mut tree: &'t [&'a str],
    above: &[&'a str],
    is_public: bool,
    found: &mut Outline<'a>,
) -> &'t [&'a str] {
    let mut path = above.to_vec();
    let mut alias = None;
    loop {
        match tree {
            ["::", rest @ ..] => tree = rest,
            ["{", rest @ ..] => {
                tree = rest;
                while !matches!(tree, [] | ["}", ..]) {
                    tree = branch(tree, &path, is_public, found);
                }
                tree = tree.get(1..).unwrap_or_default();
                return tree.strip_prefix(&[","]).unwrap_or(tree);
            }
            ["as", name, rest @ ..] => (alias, tree) = (Some(*name), rest),
            [] | ["," | "}", ..] => break,
            [segment, rest @ ..] => {
                path.push(segment);
                tree = rest;
            }
        }
    }
    if path.last() == Some(&"self") {
        path.pop();
    }
    if let Some(last) = path.last().copied() {
        found.imports.push(Import {
            name: alias.unwrap_or(last),
            path,
            is_public,
        });
    }
    tree.strip_prefix(&[","]).unwrap_or(tree)
}

/// Reads the path or the single word at `at`; returns its number of tokens.
fn path<'a>(texts: &[&'a str], at: usize, found: &mut Outline<'a>) -> usize {
    let mut segments = vec![texts[at]];
    let mut next = at + 1;
    while let (Some(&"::"), Some(segment)) = (texts.get(next), texts.get(next + 1))
        && segment.starts_with(|c: char| c.is_alphabetic() || c == '_')
    {
        segments.push(segment);
        next += 2;
    }
    // `x.name` and `x.name::<T>()` are fields and methods.
    let is_member = at > 0 && texts[at - 1] == ".";
    match (&segments[..], is_member) {
        (_, true) => {}
        ([word], false) => found.words.push(word),
        _ => found.paths.push(segments),
    }
    next - at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_comments_and_tests_are_left_out_and_imports_are_taken_apart() {
        let source = Source {
            path: "crates/x/a/src/a.rs".into(),
            text: r##"//! use crate::comment::C;
use std::{fmt, io::{self as io2, Read as _}};
pub use super::b::{B, *};
mod child;
#[cfg(test)]
mod tests_only;
fn f<'a>(x: &'a str) -> crate::c::C { let _ = ("crate::text", r#"crate::"raw""#, '"', b'\''); x.d::<u8>() }
#[cfg(test)]
mod tests {
    use crate::test::T;
}
"##
            .into(),
        };
        let found = outline(&source);
        let imports: Vec<_> = found
            .imports
            .iter()
            .map(|i| (i.name, i.path.join("::"), i.is_public))
            .collect();
        let expected = [
            ("fmt", "std::fmt", false),
            ("io2", "std::io", false),
            ("_", "std::io::Read", false),
            ("B", "super::b::B", true),
            ("*", "super::b::*", true),
        ];
        assert_eq!(
            imports,
            expected.map(|(n, p, public)| (n, p.to_owned(), public))
        );
        assert_eq!(found.children, ["child"]);
        assert_eq!(found.paths, [["crate", "c", "C"]]);
    }
}
