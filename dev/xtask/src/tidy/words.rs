//! Words that do not belong: names that say nothing, marks of unfinished work, prints in libraries.

use super::{
    fault::Fault,
    ratchet::{Excess, Excesses},
    sizes::function_name,
    source::Source,
};

/// File or folder names that say nothing about what is in them.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "manager", "types", "mod",
];

/// Modules of domain crates that read or write a wire format, for a reason that ARCHITECTURE gives.
const READS_A_FORMAT: &[&str] = &["crates/domain/identity/src/jwt/wire.rs"];

/// Names of functions that do not say what is done.
const EMPTY_VERBS: &[&str] = &["convert", "handle", "manage", "manager", "process"];

/// Functions whose name is an empty verb: `path#function`.
pub fn measure(sources: &[Source]) -> Excesses {
    let mut found = Excesses::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (_, line) in source.production() {
            let Some(name) = function_name(line) else {
                continue;
            };
            let first = name.split('_').next().unwrap_or(name);
            if EMPTY_VERBS.contains(&name) || EMPTY_VERBS.contains(&first) && name.contains('_') {
                let excess = Excess {
                    amount: 1,
                    limit: 0,
                    unit: "function whose name does not say what is done",
                };
                found.insert(format!("{}#{name}: name", source.path), excess);
            }
        }
    }
    found
}

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
    if is_library && names_rustls(code) && !source.path.starts_with("crates/domain/identity/") {
        return Some("only the crate `identity` imports rustls, tokio_rustls::rustls too".into());
    }
    let is_domain = source.path.starts_with("crates/domain/") && !source.is_test();
    if is_domain && !READS_A_FORMAT.contains(&source.path.as_str()) && code.contains("serde::") {
        return Some(
            "a domain type is no wire type: read the format in a module of its own".into(),
        );
    }
    None
}

/// `rustls::` as the crate itself or as a part of another one, not `tokio_rustls::`.
fn names_rustls(code: &str) -> bool {
    let mut before = code.match_indices("rustls::").map(|(at, _)| &code[..at]);
    before.any(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
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

    #[test]
    fn rustls_is_found_by_every_way_to_it() {
        for code in [
            "use rustls::Error;",
            "x: tokio_rustls::rustls::ServerConfig",
        ] {
            assert!(names_rustls(code), "{code}");
        }
        assert!(!names_rustls("use tokio_rustls::TlsAcceptor;"));
    }

    #[test]
    fn an_empty_verb_is_found_alone_and_in_front() {
        let text =
            "fn handle() {\n}\nfn process_all() {\n}\nfn handler() {\n}\nfn process_id() {\n}\n";
        let source = Source {
            path: "crates/x/src/a.rs".into(),
            text: text.into(),
        };
        let found: Vec<_> = measure(&[source]).into_keys().collect();
        assert_eq!(
            found,
            [
                "crates/x/src/a.rs#handle: name",
                "crates/x/src/a.rs#process_all: name",
                "crates/x/src/a.rs#process_id: name"
            ]
        );
    }
}
