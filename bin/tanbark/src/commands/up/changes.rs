//! What happens while the mesh runs, as lines: files taken in, problems that come and go, pods that fail.
//!
//! The runtime is asked once a second for its summary; what is new in it is a line. So a reader of lines and the live table show the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::Value;

use super::report;
use crate::api::Api;
use crate::object::{list, text};
use crate::output::{self, Colour};

/// How often the runtime and the files are looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// Warnings that are remembered as told.
const MAX_TOLD: usize = 10_000;

/// What was told already.
pub struct Changes {
    sources: Vec<PathBuf>,
    files: BTreeMap<PathBuf, (SystemTime, u64)>,
    problems: BTreeSet<String>,
    warnings: BTreeSet<String>,
    not_ready: BTreeSet<String>,
}

impl Changes {
    /// Everything in this summary has been told.
    pub fn new(sources: &[PathBuf], summary: &Value) -> Self {
        Self {
            sources: sources.to_vec(),
            files: files(sources),
            problems: problems(summary),
            warnings: warnings(summary).map(|(key, _)| key).collect(),
            not_ready: not_ready(summary),
        }
    }

    /// Prints what happens for ever.
    pub async fn print_all(&mut self, api: &Api) -> Result<()> {
        loop {
            tokio::time::sleep(LOOK).await;
            for line in self.look(api).await? {
                output::say(&line);
            }
        }
    }

    /// Asks the runtime what is new.
    pub async fn look(&mut self, api: &Api) -> Result<Vec<String>> {
        let changed = self.changed_files();
        let summary = api.client().summary().await?;
        Ok(self.news(&summary, changed))
    }

    /// What is new in a summary.
    fn news(&mut self, summary: &Value, changed: Vec<(PathBuf, &'static str)>) -> Vec<String> {
        let mut lines = Vec::new();
        let problems = problems(summary);
        for (file, what) in changed {
            let name = file.display().to_string();
            let bad = problems
                .iter()
                .any(|problem| problem.starts_with(&format!("{name}:")));
            lines.push(format!(
                "{name} {what}{}",
                if bad { "; it has problems" } else { "" }
            ));
        }
        lines.extend(
            problems
                .difference(&self.problems)
                .map(|problem| report::problem_line(problem, Colour::Off)),
        );
        lines.extend(
            self.problems
                .difference(&problems)
                .map(|problem| format!("mended: {problem}")),
        );
        self.problems = problems;
        if self.warnings.len() > MAX_TOLD {
            self.warnings.clear();
        }
        for (key, line) in warnings(summary) {
            if self.warnings.insert(key) {
                lines.push(line);
            }
        }
        let not_ready = not_ready(summary);
        lines.extend(
            self.not_ready
                .difference(&not_ready)
                .map(|pod| format!("pod {pod} is ready or gone")),
        );
        lines.extend(
            not_ready
                .difference(&self.not_ready)
                .map(|pod| format!("pod {pod} is not ready")),
        );
        self.not_ready = not_ready;
        lines
    }

    fn changed_files(&mut self) -> Vec<(PathBuf, &'static str)> {
        let now = files(&self.sources);
        let mut changed = Vec::new();
        for (path, stamp) in &now {
            match self.files.get(path) {
                None => changed.push((path.clone(), "added")),
                Some(before) if before != stamp => changed.push((path.clone(), "changed")),
                Some(_) => {}
            }
        }
        changed.extend(
            self.files
                .keys()
                .filter(|path| !now.contains_key(*path))
                .map(|path| (path.clone(), "removed")),
        );
        self.files = now;
        changed
    }
}

fn files(sources: &[PathBuf]) -> BTreeMap<PathBuf, (SystemTime, u64)> {
    let all = sources
        .iter()
        .filter_map(|source| std::path::absolute(source).ok())
        .flat_map(|source| machine::files::find(&source).files);
    let stamped = all.filter_map(|path| {
        let found = std::fs::metadata(&path).ok()?;
        Some((path, (found.modified().ok()?, found.len())))
    });
    stamped.collect()
}

fn problems(summary: &Value) -> BTreeSet<String> {
    list(summary, "/problems")
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn not_ready(summary: &Value) -> BTreeSet<String> {
    list(summary, "/notReady")
        .iter()
        .map(|pod| format!("{} ({})", text(pod, "/pod"), text(pod, "/reason")))
        .collect()
}

/// Each warning with what tells it from others.
fn warnings(summary: &Value) -> impl Iterator<Item = (String, String)> {
    list(summary, "/warnings").iter().map(|warning| {
        let line = format!(
            "warning: {}: {}: {}",
            text(warning, "/object"),
            text(warning, "/reason"),
            text(warning, "/message").trim_end()
        );
        (format!("{} {line}", text(warning, "/time")), line)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let first = json!({"problems": ["a.yaml:1:1: old"], "notReady": [], "warnings": [{"object": "Pod a/p", "reason": "BackOff", "message": "m", "time": "1"}]});
        let mut changes = Changes::new(&[], &first);
        assert!(changes.news(&first, Vec::new()).is_empty());
        let next = json!({
            "problems": ["b.yaml:2:1: new"], "notReady": [{"pod": "a/p", "reason": "CrashLoopBackOff"}],
            "warnings": [{"object": "Pod a/p", "reason": "BackOff", "message": "m", "time": "1"}, {"object": "Pod a/p", "reason": "BackOff", "message": "m", "time": "2"}],
        });
        let lines = changes.news(&next, vec![("b.yaml".into(), "changed")]);
        assert_eq!(
            lines,
            [
                "b.yaml changed; it has problems",
                "problem: b.yaml:2:1: new",
                "mended: a.yaml:1:1: old",
                "warning: Pod a/p: BackOff: m",
                "pod a/p (CrashLoopBackOff) is not ready"
            ]
        );
    }

    #[test]
    fn edited_added_and_removed_files_are_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder_path = folder.path().canonicalize().expect("a path");
        let write =
            |name: &str, text: &str| std::fs::write(folder_path.join(name), text).expect("written");
        write("a.yaml", "1");
        write("b.yaml", "1");
        let mut changes = Changes::new(std::slice::from_ref(&folder_path), &json!({}));
        assert!(changes.changed_files().is_empty());
        write("a.yaml", "22");
        write("c.yaml", "1");
        std::fs::remove_file(folder_path.join("b.yaml")).expect("removed");
        let names: Vec<(String, &str)> = changes
            .changed_files()
            .into_iter()
            .map(|(path, what)| {
                (
                    path.file_name()
                        .expect("a name")
                        .to_string_lossy()
                        .into_owned(),
                    what,
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                ("a.yaml".to_owned(), "changed"),
                ("c.yaml".to_owned(), "added"),
                ("b.yaml".to_owned(), "removed")
            ]
        );
    }
}
