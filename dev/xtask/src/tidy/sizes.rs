//! Lengths of files (800 lines of production code) and functions (70 lines), with today's offenders in `ratchets.json`.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};

use super::{Fault, Source};

const MAX_FILE_LINES: usize = 800;
const MAX_FUNCTION_LINES: usize = 70;
const RATCHETS: &str = "dev/xtask/ratchets.json";

pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Fault>> {
    let text = std::fs::read_to_string(root.join(RATCHETS)).with_context(|| RATCHETS)?;
    let allowed: BTreeMap<String, usize> = serde_json::from_str(&text).with_context(|| RATCHETS)?;
    let measured: BTreeMap<String, (usize, usize)> = sources
        .iter()
        .filter(|source| !source.is_test())
        .flat_map(measure)
        .collect();
    let mut faults = Vec::new();
    for (place, (lines, limit)) in &measured {
        match allowed.get(place) {
            None => faults.push(Fault {
                place: place.clone(),
                what: format!("{lines} lines; the limit is {limit}"),
            }),
            Some(before) if lines > before => faults.push(Fault {
                place: place.clone(),
                what: format!("{lines} lines; it had {before} and may only shrink"),
            }),
            Some(before) if lines < before => faults.push(Fault {
                place: RATCHETS.into(),
                what: format!("`{place}` has {lines} lines now: lower its entry from {before}"),
            }),
            Some(_) => {}
        }
    }
    for place in allowed
        .keys()
        .filter(|place| !measured.contains_key(*place))
    {
        faults.push(Fault {
            place: RATCHETS.into(),
            what: format!("`{place}` is within the limits now: remove its entry"),
        });
    }
    Ok(faults)
}

/// The places of one file that exceed a limit: `path` or `path#function` → (lines, limit).
fn measure(source: &Source) -> Vec<(String, (usize, usize))> {
    let mut found = Vec::new();
    let lines: Vec<(usize, &str)> = source.production().collect();
    if lines.len() > MAX_FILE_LINES {
        found.push((source.path.clone(), (lines.len(), MAX_FILE_LINES)));
    }
    for (name, length) in functions(&lines) {
        if length > MAX_FUNCTION_LINES {
            found.push((
                format!("{}#{name}", source.path),
                (length, MAX_FUNCTION_LINES),
            ));
        }
    }
    found
}

/// Functions and their lengths, from `fn` to the closing brace at the same indentation; rustfmt's layout makes that exact.
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

fn function_name(line: &str) -> Option<&str> {
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

    #[test]
    fn a_long_function_is_found_with_its_length() {
        let body = "    let x = 1;\n".repeat(75);
        let text = format!("fn short() {{\n}}\n\npub async fn long(\n    a: u8,\n) {{\n{body}}}\n");
        let found = measure(&Source {
            path: "a.rs".into(),
            text,
        });
        assert_eq!(found, [("a.rs#long".to_owned(), (79, MAX_FUNCTION_LINES))]);
    }

    #[test]
    fn lines_of_the_test_module_do_not_count() {
        let text = format!(
            "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    // line\n".repeat(900)
        );
        assert_eq!(
            measure(&Source {
                path: "a.rs".into(),
                text
            }),
            []
        );
    }
}
