//! Words that do not belong: names that say nothing, marks of unfinished work, prints in libraries.

use super::{Fault, Source};

/// File or folder names that say nothing about what is in them.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "manager", "types", "mod",
];

pub fn check(sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for source in sources {
        // This file has to name what it looks for.
        if source.path.ends_with("tidy/words.rs") {
            continue;
        }
        let stem = source.path.trim_end_matches(".rs");
        if let Some(name) = stem.split('/').find(|part| EMPTY_NAMES.contains(part)) {
            faults.push(Fault {
                place: source.path.clone(),
                what: format!("`{name}` says nothing: name the noun or verb"),
            });
        }
        if source.text.contains("#[ignore") || source.text.contains("#[should_panic") {
            faults.push(Fault {
                place: source.path.clone(),
                what: "a test is ignored or expects a panic".into(),
            });
        }
        for (number, line) in source.production() {
            faults.extend(line_fault(source, line).map(|what| Fault {
                place: format!("{}:{number}", source.path),
                what,
            }));
        }
    }
    faults
}

fn line_fault(source: &Source, line: &str) -> Option<String> {
    let code = line.split("//").next().unwrap_or(line);
    let unfinished = ["todo!(", "unimplemented!(", "dbg!("]
        .iter()
        .find(|word| code.contains(*word));
    if let Some(word) = unfinished {
        return Some(format!("`{word}…)` is unfinished work"));
    }
    if let Some(word) = ["FIXME", "XXX:", "HACK"]
        .iter()
        .find(|word| line.contains(*word))
    {
        return Some(format!(
            "`{word}`: do it, or file it with the tracker and name its number in a TODO(#n)"
        ));
    }
    let is_library = source.path.starts_with("crates/")
        && !source.is_test()
        && !source.path.contains("/build.rs");
    if is_library
        && ["println!(", "eprintln!(", "print!("]
            .iter()
            .any(|word| code.trim_start().starts_with(word))
    {
        return Some("a library does not print: use tracing or return it".into());
    }
    if is_library && code.contains("std::env::var") {
        return Some("only the programs in bin/ read the environment".into());
    }
    let imports_rustls =
        code.contains("use rustls::") || code.contains("rustls::ServerConfig::builder");
    if imports_rustls
        && source.path.starts_with("crates/")
        && !source.path.starts_with("crates/domain/identity/")
    {
        return Some("only the crate `identity` imports rustls".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_and_empty_names_are_found() {
        let source = Source {
            path: "crates/x/src/utils.rs".into(),
            text: "fn f() {\n    todo!()\n}\n".into(),
        };
        let places: Vec<_> = check(&[source])
            .into_iter()
            .map(|fault| fault.place)
            .collect();
        assert_eq!(places, ["crates/x/src/utils.rs", "crates/x/src/utils.rs:2"]);
    }
}
