//! Breaks comments at 100 columns, which rustfmt leaves as they are.
//!
//! A paragraph is a run of comment lines with the same indentation and the same mark (`//`, `///`,
//! `//!`). One that has a line that is too wide is filled again, word by word; all others stay.
//! Lists, headings, tables, quotes and code blocks keep their lines, as do comments behind code. A
//! word that is wider than the rest of its line stands alone.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tidy::code::lines_in_literals;

const COLUMNS: usize = 100;

/// Breaks the comments of the Rust files at or below `place`; returns the files that changed.
pub fn wrap(root: &Path, place: &str) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for source in crate::tidy::sources(root)? {
        let is_below = source.path == place || source.path.starts_with(&format!("{place}/"));
        if !is_below {
            continue;
        }
        let wrapped = wrapped(&source.text);
        if wrapped != source.text {
            std::fs::write(root.join(&source.path), wrapped)
                .with_context(|| source.path.clone())?;
            changed.push(source.path);
        }
    }
    Ok(changed)
}

fn wrapped(text: &str) -> String {
    let in_literals = lines_in_literals(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let mut in_code = false;
    while let Some(line) = lines.get(at) {
        let is_code = in_literals.contains(&at);
        let Some((mark, words)) = comment(line).filter(|_| !is_code) else {
            in_code = false;
            push(&mut out, line);
            at += 1;
            continue;
        };
        if words.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code || keeps_its_line(words) && !begins_item(words) {
            push(&mut out, line);
            at += 1;
            continue;
        }
        let end = at + paragraph(&lines[at..], mark);
        fill(&mut out, &lines[at..end], mark);
        at = end;
    }
    out
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// Indentation with mark, and what follows them; `None`: no line that is a comment alone.
fn comment(line: &str) -> Option<(&str, &str)> {
    let start = line.len() - line.trim_start().len();
    let mark = ["///", "//!", "//"]
        .into_iter()
        .find(|mark| line[start..].starts_with(mark))?;
    Some(line.split_at(start + mark.len()))
}

/// Whether a line is no running text.
fn keeps_its_line(words: &str) -> bool {
    let text = words.trim_start();
    // More than the one space after the mark: laid out by hand.
    let is_laid_out = words.starts_with("  ");
    text.is_empty()
        || is_laid_out
        || text.starts_with(['#', '|', '>', '/', '`', '<'])
        || begins_item(words)
}

fn begins_item(words: &str) -> bool {
    let text = words.trim_start();
    text.starts_with("- ") || text.starts_with("* ")
}

/// How many lines belong to the paragraph that begins the lines.
fn paragraph(lines: &[&str], mark: &str) -> usize {
    let is_item = comment(lines[0]).is_some_and(|(_, words)| begins_item(words));
    let following = lines[1..].iter().take_while(|line| {
        comment(line).is_some_and(|(other, words)| {
            let continues = words.starts_with("  ") && !words.starts_with("    ");
            let is_text = !keeps_its_line(words) || is_item && continues && !begins_item(words);
            other == mark && is_text && !words.trim().is_empty()
        })
    });
    1 + following.count()
}

fn fill(out: &mut String, lines: &[&str], mark: &str) {
    let is_wide = |line: &&str| line.chars().count() > COLUMNS && !line.contains("://");
    if !lines.iter().any(is_wide) {
        lines.iter().for_each(|line| push(out, line));
        return;
    }
    let is_item = comment(lines[0]).is_some_and(|(_, words)| begins_item(words));
    let text: Vec<&str> = lines
        .iter()
        .filter_map(|line| comment(line))
        .flat_map(|(_, words)| words.split_whitespace())
        .collect();
    let mut line = String::from(mark);
    for word in text {
        let is_first = line.len() == mark.len();
        let width = line.chars().count() + 1 + word.chars().count();
        if width > COLUMNS && !is_first && line.trim_start() != mark.trim_start() {
            push(out, &line);
            line = String::from(mark);
            if is_item {
                line.push_str("  ");
            }
        }
        line.push(' ');
        line.push_str(word);
    }
    push(out, &line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_paragraph_is_filled_and_everything_else_stays() {
        let wide = "word ".repeat(30);
        let text = format!(
            "    /// {wide}\n    /// end.\n    ///\n    /// - item {wide}\n    ///   more\n    /// - next\n    let a = \"{wide}\"; // {wide}\n// short\n// lines\n// ```\n// {wide}\n// ```\n"
        );
        let out = wrapped(&text);
        let comments = out.lines().filter(|line| comment(line).is_some());
        let wide_left: Vec<&str> = comments.filter(|l| l.chars().count() > COLUMNS).collect();
        assert_eq!(wide_left, [format!("// {wide}")], "code is left");
        assert!(
            out.contains("word end.\n    ///\n    /// - item word"),
            "{out}"
        );
        assert!(out.contains("\n    ///   word"), "{out}");
        assert!(out.contains("word more\n    /// - next\n"), "{out}");
        assert!(out.contains("// short\n// lines\n"), "{out}");
        assert_eq!(wrapped(&out), out, "it is done once");
        let literal = format!("let a = \"\\\n  // {wide}\";\nlet b = 1;\n");
        assert_eq!(wrapped(&literal), literal);
    }
}
