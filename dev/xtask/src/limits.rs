//! The table of limits: every wait, queue, cache and task of the programs, read from the code.
//!
//! - A wait is a constant of type `Duration`; a bound is a whole-number constant whose name says so
//!   ([`BOUNDS`]) or that sizes a channel or a semaphore. Its doc comment is what the table says;
//!   sentences `Setting: …` and `Metric: …` in it have columns of their own.
//! - A task is what `tokio::spawn` or a thread starts; the comment `// task: …` above it tells who
//!   owns it and what ends it.
//!
//! `docs/limits.md` is written by `cargo xtask limits` and compared by a test. What has no words,
//! and what is bounded by a bare number in the middle of code, is counted by `tidy`.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result};

use crate::tidy::{Excess, Excesses, Source, sources};

const PAGE: &str = "docs/limits.md";

/// Parts of names of constants that bound something.
const BOUNDS: &[&str] = &[
    "MAX",
    "MOST",
    "LONGEST",
    "LARGEST",
    "DEEPEST",
    "LIMIT",
    "QUEUE",
    "CAPACITY",
    "BACKLOG",
    "DEPTH",
    "KEPT",
    "ONCE",
    "SLOTS",
    "ATTEMPTS",
    "ROUNDS",
    "CONFLICTS",
];
const NUMBERS: &[&str] = &["usize", "u64", "u32", "u16", "u8", "i64", "i32"];
/// What takes a limit as its first argument.
const TAKERS: &[&str] = &["channel(", "Semaphore::new(", "timeout(", "sleep("];
const TASK: &str = "// task: ";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Wait,
    Bound,
}

/// A named limit.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    kind: Kind,
    name: String,
    value: String,
    words: String,
    setting: String,
    metric: String,
}

/// The page is as the code says.
pub fn is_current(root: &Path) -> Result<bool> {
    let held = std::fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    Ok(held == page(&sources(root)?))
}

pub fn renew(root: &Path) -> Result<&'static str> {
    std::fs::write(root.join(PAGE), page(&sources(root)?)).context(PAGE)?;
    Ok(PAGE)
}

/// Limits without words and bare numbers as limits, by file.
pub fn measure(sources: &[Source]) -> Excesses {
    let mut found = Excesses::new();
    for source in sources.iter().filter(|source| is_product(source)) {
        let wordless = limits(source).iter().filter(|l| l.words.is_empty()).count();
        let bare = bare_numbers(source);
        let counts = [
            (
                wordless,
                "limits",
                "limits without a doc comment that says what they bound",
            ),
            (
                bare,
                "bare limits",
                "waits or queues that are bounded by a bare number: name a constant",
            ),
        ];
        for (amount, what, unit) in counts.into_iter().filter(|(amount, ..)| *amount > 0) {
            let excess = Excess {
                amount,
                limit: 0,
                unit,
            };
            found.insert(format!("{}: {what}", source.path), excess);
        }
    }
    found
}

fn is_product(source: &Source) -> bool {
    let is_ours = ["crates/", "bin/"]
        .iter()
        .any(|top| source.path.starts_with(top));
    // The stand-in for an API server is a test.
    is_ours && !source.is_test() && !source.path.ends_with("fake_api.rs")
}

fn page(sources: &[Source]) -> String {
    let mut text = String::from(
        "# Waits, queues, caches and tasks\n\n\
         Written by `cargo xtask limits` from the code: each row is a constant or a task with the comment that stands above it. \
         Tasks of a `JoinSet` or a `TaskTracker` are not listed: their owner ends them. What an xDS message or an Istio resource bounds (route timeouts, circuit breakers, buffer limits) is in \
         [xds-support.md](xds-support.md); a limit here holds where configuration says nothing, or cannot.\n",
    );
    let mut last = "";
    for source in sources.iter().filter(|source| is_product(source)) {
        let rows = rows(source);
        if rows.is_empty() {
            continue;
        }
        if source.package() != last {
            last = source.package();
            let _ = write!(
                text,
                "\n## {last}\n\n| kind | limit | value | what | setting | metric |\n|---|---|---|---|---|---|\n"
            );
        }
        text += &rows;
    }
    text
}

fn rows(source: &Source) -> String {
    let mut text = String::new();
    for limit in limits(source) {
        let kind = match limit.kind {
            Kind::Wait => "wait",
            Kind::Bound => "bound",
        };
        let _ = writeln!(
            text,
            "| {kind} | [{}](../{}) | {} | {} | {} | {} |",
            limit.name, source.path, limit.value, limit.words, limit.setting, limit.metric
        );
    }
    for words in tasks(source) {
        let _ = writeln!(
            text,
            "| task | [{}](../{}) | | {words} | | |",
            file_stem(&source.path),
            source.path
        );
    }
    text
}

fn file_stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".rs").unwrap_or(name)
}

fn limits(source: &Source) -> Vec<Limit> {
    let lines: Vec<&str> = source.production().map(|(_, line)| line).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, kind_and_value)) = constant(line) else {
            continue;
        };
        let Some((of_type, value)) = kind_and_value.split_once('=') else {
            continue;
        };
        let of_type = of_type.trim();
        let kind = if of_type == "Duration" {
            Kind::Wait
        } else if NUMBERS.contains(&of_type) && (is_bound(name) || sizes_something(&lines, name)) {
            Kind::Bound
        } else {
            continue;
        };
        let mut value = value.trim().to_owned();
        for more in &lines[at + 1..] {
            if value.ends_with(';') {
                break;
            }
            value.push(' ');
            value.push_str(more.trim());
        }
        let doc = doc_above(&lines[..at]);
        let value = readable(value.trim_end_matches(';').trim());
        let (words, setting, metric) = taken_apart(&doc);
        found.push(Limit {
            kind,
            name: name.to_owned(),
            value,
            words,
            setting,
            metric,
        });
    }
    found
}

/// `NAME` and `TYPE = VALUE` of a constant.
fn constant(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let line = line.strip_prefix("pub(super) ").unwrap_or(line);
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.strip_prefix("const ")?.split_once(": ")
}

fn is_bound(name: &str) -> bool {
    name.split('_').any(|part| BOUNDS.contains(&part))
}

fn sizes_something(lines: &[&str], name: &str) -> bool {
    let sized = ["channel(", "Semaphore::new("].map(|taker| format!("{taker}{name})"));
    lines
        .iter()
        .any(|line| sized.iter().any(|taker| line.contains(taker)))
}

/// The doc comment that ends just above, attributes left out, as one line.
fn doc_above(lines: &[&str]) -> String {
    let mut words: Vec<&str> = lines
        .iter()
        .rev()
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("///") || line.starts_with("#["))
        .filter_map(|line| line.strip_prefix("///"))
        .map(str::trim)
        .collect();
    words.reverse();
    words.join(" ").replace('|', "\\|")
}

/// What a doc comment says, its setting and its metric.
fn taken_apart(doc: &str) -> (String, String, String) {
    let (mut words, mut setting, mut metric) = (Vec::new(), String::new(), String::new());
    for sentence in doc.split_inclusive(". ") {
        let sentence = sentence.trim();
        if let Some(name) = sentence.strip_prefix("Setting: ") {
            setting = name.trim_end_matches('.').to_owned();
        } else if let Some(name) = sentence.strip_prefix("Metric: ") {
            metric = name.trim_end_matches('.').to_owned();
        } else if !sentence.is_empty() {
            words.push(sentence);
        }
    }
    // Links lead from the code, not from the page.
    let words = words.join(" ").replace("[`", "`").replace("`]", "`");
    (words, setting, metric)
}

/// `Duration::from_secs(15)` → `15 s`.
fn readable(value: &str) -> String {
    for (function, unit) in [
        ("Duration::from_secs(", "s"),
        ("Duration::from_millis(", "ms"),
        ("Duration::from_micros(", "µs"),
    ] {
        if let Some(inner) = value
            .strip_prefix(function)
            .and_then(|v| v.strip_suffix(')'))
        {
            return format!("{inner} {unit}");
        }
    }
    value.replace('|', "\\|")
}

fn tasks(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.production().map(|(_, line)| line.trim()).collect();
    let starts = lines.iter().enumerate().filter_map(|(at, line)| {
        let first = line.strip_prefix(TASK)?;
        let more = lines[at + 1..]
            .iter()
            .map_while(|line| line.strip_prefix("// "));
        let words: Vec<&str> = std::iter::once(first).chain(more).collect();
        Some(words.join(" ").replace('|', "\\|"))
    });
    starts.collect()
}

fn bare_numbers(source: &Source) -> usize {
    let lines = source.production().map(|(_, line)| line);
    let bare = lines.filter(|line| {
        let code = line.split("//").next().unwrap_or_default();
        TAKERS.iter().any(|taker| {
            let mut places = code.match_indices(taker);
            places.any(|(at, _)| {
                let argument = &code[at + taker.len()..];
                let before = &code[..at];
                // A watch channel holds one value and is given its first.
                let is_whole_word = !before.ends_with("watch::")
                    && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let is_bare = argument.starts_with(|c: char| c.is_ascii_digit())
                    || argument.starts_with("Duration::from_")
                        && argument.contains(|c: char| c.is_ascii_digit());
                is_whole_word && is_bare
            })
        })
    });
    bare.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            path: "crates/x/a/src/a.rs".into(),
            text: text.into(),
        }
    }

    #[test]
    fn limits_and_tasks_are_read_with_their_words() {
        let source = source(
            "/// A handshake that takes longer is closed.\n/// Metric: `ssl.connection_error`. Setting: none.\nconst HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);\n\
             const MAX_HOSTS: usize =\n    1_000;\nconst SIZE: usize = 3;\nconst PLACES: usize = 4;\nfn f() {\n    let s = Semaphore::new(PLACES);\n\
             \x20   // task: of the listener,\n    // ends with it\n    tokio::spawn(x);\n\
             \x20   sleep(Duration::from_millis(5));\n    channel(16);\n    watch::channel(0);\n}\n",
        );
        let found = limits(&source);
        let short: Vec<_> = found.iter().map(|l| (&*l.name, &*l.value)).collect();
        assert_eq!(
            short,
            [
                ("HANDSHAKE_TIMEOUT", "15 s"),
                ("MAX_HOSTS", "1_000"),
                ("PLACES", "4")
            ]
        );
        assert_eq!(found[0].words, "A handshake that takes longer is closed.");
        assert_eq!(
            (&*found[0].metric, &*found[0].setting),
            ("`ssl.connection_error`", "none")
        );
        assert_eq!(tasks(&source), ["of the listener, ends with it"]);
        assert_eq!(bare_numbers(&source), 2);
        let counted: Vec<usize> = measure(&[source]).values().map(|e| e.amount).collect();
        assert_eq!(counted, [2, 2]);
    }
}
