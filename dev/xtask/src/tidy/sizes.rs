//! Lengths of files (800 lines of production code), of functions (70 lines) and of comment lines
//! (100 columns).

use super::{
    ratchet::{Excess, Excesses},
    source::Source,
};

const MAX_FILE_LINES: usize = 800;
const MAX_FUNCTION_LINES: usize = 70;
/// As wide as rustfmt's code, so that two files fit beside each other.
const MAX_COMMENT_COLUMNS: usize = 100;

pub fn measure(sources: &[Source]) -> Excesses {
    let mut found = Excesses::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        found.extend(long_parts(source));
    }
    for source in sources {
        let wide = wide_comments(&source.text);
        if wide > 0 {
            let place = format!("{}: wide comments", source.package());
            let entry = found.entry(place).or_insert(Excess {
                amount: 0,
                limit: 0,
                unit: "comment lines wider than 100 columns",
            });
            entry.amount += wide;
        }
    }
    found
}

fn wide_comments(text: &str) -> usize {
    let comments = text
        .lines()
        .filter(|line| line.trim_start().starts_with("//"));
    comments
        // A link or a command cannot be broken.
        .filter(|line| line.chars().count() > MAX_COMMENT_COLUMNS && !line.contains("://"))
        .count()
}

/// The places of one file that exceed a limit: `path` or `path#function`.
fn long_parts(source: &Source) -> Excesses {
    let mut found = Excesses::new();
    let lines: Vec<(usize, &str)> = source.production().collect();
    if lines.len() > MAX_FILE_LINES {
        let excess = Excess {
            amount: lines.len(),
            limit: MAX_FILE_LINES,
            unit: "lines",
        };
        found.insert(source.path.clone(), excess);
    }
    for (name, length) in functions(&lines) {
        if length > MAX_FUNCTION_LINES {
            let excess = Excess {
                amount: length,
                limit: MAX_FUNCTION_LINES,
                unit: "lines",
            };
            found.insert(format!("{}#{name}", source.path), excess);
        }
    }
    found
}

/// Functions and their lengths, from `fn` to the closing brace at the same indentation; rustfmt's
/// layout makes that exact.
fn functions(lines: &[(usize, &str)]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (index, (_, line)) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indentation = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indentation));
        let end = lines[index..].iter().position(|(_, line)| {
            *line == closing
                || line.ends_with(';') && line.len() - line.trim_start().len() == indentation
        });
        if let Some(length) = end {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

pub(super) fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for prefix in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
        "extern \"C\" ",
    ] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (!line.trim_end().ends_with('}')).then(|| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: String) -> Source {
        Source {
            path: "crates/base/a/src/a.rs".into(),
            text,
        }
    }

    #[test]
    fn a_long_function_is_found_with_its_length() {
        let body = "    let x = 1;\n".repeat(75);
        let text = format!("fn short() {{\n}}\n\npub async fn long(\n    a: u8,\n) {{\n{body}}}\n");
        let found = measure(&[source(text)]);
        let found: Vec<_> = found
            .iter()
            .map(|(place, e)| (&**place, e.amount))
            .collect();
        assert_eq!(found, [("crates/base/a/src/a.rs#long", 79)]);
    }

    #[test]
    fn lines_of_the_test_module_do_not_count() {
        let text = format!(
            "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    // line\n".repeat(900)
        );
        assert!(measure(&[source(text)]).is_empty());
    }

    #[test]
    fn wide_comments_are_counted_by_package_and_code_is_not() {
        let wide = "x".repeat(100);
        let text = format!("// {wide}\n/// short\nlet a = \"{wide}\";\n// https://{wide}\n");
        let found = measure(&[source(text)]);
        let found: Vec<_> = found
            .iter()
            .map(|(place, e)| (&**place, e.amount))
            .collect();
        assert_eq!(found, [("crates/base/a: wide comments", 1)]);
    }
}
