//! Structure that the compiler does not check: which crate may use which, how long files and functions may be, words that do not belong.
//!
//! The limits are ratchets: `ratchets.json` lists the places that exceed them today, each with its size. A listed place may shrink, never grow,
//! and an entry that is no longer needed is a fault too, so the list can only get shorter.

use std::{fmt, path::Path};

use anyhow::Result;

mod edges;
mod links;
mod sizes;
mod words;

/// One broken rule, with its place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Path from the workspace's folder, perhaps with `:line`.
    pub place: String,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Every fault of the workspace at `root`, sorted.
pub fn check(root: &Path) -> Result<Vec<Fault>> {
    let sources = sources(root)?;
    let mut faults = edges::check(root)?;
    faults.extend(sizes::check(root, &sources)?);
    faults.extend(words::check(&sources));
    faults.extend(links::check(root)?);
    faults.sort();
    Ok(faults)
}

/// A Rust file of the workspace.
pub struct Source {
    /// From the workspace's folder.
    pub path: String,
    pub text: String,
}

impl Source {
    /// Tests, benches and examples live by other limits.
    pub fn is_test(&self) -> bool {
        ["/tests/", "/benches/", "/examples/", "dev/testkit/"]
            .iter()
            .any(|part| self.path.contains(part))
            || self.path.ends_with("tests.rs")
    }

    /// The lines before the file's own `#[cfg(test)] mod tests {`.
    pub fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self
            .text
            .find("#[cfg(test)]\nmod tests {")
            .unwrap_or(self.text.len());
        self.text[..end]
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for top in ["bin", "crates", "dev", "samples"] {
        collect(root, &root.join(top), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path
                .file_name()
                .is_none_or(|name| name != "target" && name != "node_modules")
            {
                collect(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let path = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            found.push(Source { path, text });
        }
    }
    Ok(())
}
