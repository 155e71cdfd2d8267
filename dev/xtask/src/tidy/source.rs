//! The Rust files of the workspace.

use std::path::Path;

use anyhow::Result;

/// A Rust file of the workspace.
pub struct Source {
    /// From the workspace's folder.
    pub path: String,
    pub text: String,
}

impl Source {
    /// Tests, benches and examples live by other limits.
    pub fn is_test(&self) -> bool {
        ["/tests/", "/benches/", "/examples/"]
            .iter()
            .any(|part| self.path.contains(part))
            || ["tests/", "dev/testkit/"]
                .iter()
                .any(|top| self.path.starts_with(top))
            || self.path.ends_with("tests.rs")
    }

    /// The folder of the package.
    pub fn package(&self) -> &str {
        let parts = ["/src/", "/tests/", "/benches/", "/examples/", "/build.rs"];
        let ends = parts.iter().filter_map(|part| self.path.find(part));
        ends.min().map_or(&self.path, |end| &self.path[..end])
    }

    /// The text before the file's own `#[cfg(test)] mod tests {`.
    pub fn production_text(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod tests {");
        &self.text[..end.unwrap_or(self.text.len())]
    }

    /// The lines before the file's own `#[cfg(test)] mod tests {`.
    pub fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production_text()
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// All of them, in the order of their paths.
pub fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for top in ["bin", "crates", "dev", "samples", "tests"] {
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
