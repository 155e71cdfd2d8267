//! Tasks and threads that nobody waits for: each says in a comment what ends it.
//!
//! A `JoinSet` or a `TaskTracker` owns its tasks and ends them. What is started by `tokio::spawn`
//! or as a thread lives on by itself, so the three lines above it hold a comment `// task: …` that
//! tells who owns it and what ends it.

use super::{
    ratchet::{Excess, Excesses},
    source::Source,
};

const STARTS: &[&str] = &[
    "tokio::spawn(",
    "tokio::task::spawn(",
    "task::spawn(",
    "thread::spawn(",
    "thread::Builder::new(",
];
const MARK: &str = "// task: ";
/// How far above the start the comment may begin.
const REACH: usize = 5;

/// Starts without the comment, by file: `path: tasks`.
pub fn measure(sources: &[Source]) -> Excesses {
    let mut found = Excesses::new();
    let ours = ["crates/", "bin/"];
    for source in sources
        .iter()
        .filter(|source| !source.is_test() && ours.iter().any(|top| source.path.starts_with(top)))
    {
        let lines: Vec<&str> = source.production().map(|(_, line)| line).collect();
        let starts = lines.iter().enumerate().filter(|(at, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let above = &lines[at.saturating_sub(REACH)..*at];
            STARTS.iter().any(|start| code.contains(start))
                && !above.iter().any(|line| line.trim_start().starts_with(MARK))
        });
        let amount = starts.count();
        if amount > 0 {
            let excess = Excess {
                amount,
                limit: 0,
                unit: "tasks or threads that no comment `// task: …` gives an owner and an end",
            };
            found.insert(format!("{}: tasks", source.path), excess);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_without_the_comment_is_counted() {
        let text = "fn f() {\n    // task: of the stream, ends with it\n    tokio::spawn(a);\n}\n\n\n\n\nfn g() {\n    tokio::spawn(b);\n    set.spawn(c);\n}\n";
        let source = Source {
            path: "crates/x/src/a.rs".into(),
            text: text.into(),
        };
        let found: Vec<_> = measure(&[source])
            .into_iter()
            .map(|(p, e)| (p, e.amount))
            .collect();
        assert_eq!(found, [("crates/x/src/a.rs: tasks".to_owned(), 1)]);
    }
}
