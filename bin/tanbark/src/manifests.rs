//! Files that people name: a file, a folder (all below it), or `-` for standard input, read into objects with their places.
//!
//! A file that does not parse is told apart from files that could not be opened, and neither hides the others.

mod foreign;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wire_kube::manifest::{self, Document, LoadError};

use crate::output;

/// What was read.
#[derive(Debug, Default)]
pub struct Manifests {
    pub documents: Vec<Document>,
    /// `file:line:column: what`, for each file that does not parse or holds no objects.
    pub broken: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// How far down a folder is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The files in it: kubectl's way without `-R`.
    Folder,
    /// All below it.
    Below,
}

/// Reads everything that was named.
///
/// # Errors
/// A path that does not exist or cannot be opened, or a folder with no YAML or JSON in it.
pub fn read(paths: &[PathBuf], depth: Depth) -> Result<Manifests> {
    let mut all = Manifests::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            all.add(manifest::load("<stdin>", &text));
            continue;
        }
        refuse_address(path)?;
        let mut found = at_depth(path, files(path)?, depth)?;
        all.broken.extend(foreign::take_out(&mut found));
        for file in found {
            let text = match machine::files::read(&file) {
                Ok(text) => text,
                Err(problem) => {
                    all.broken.push(problem);
                    all.files.push(file);
                    continue;
                }
            };
            let loaded = manifest::load(&file.display().to_string(), &text);
            let map = loaded
                .as_ref()
                .is_ok_and(|documents| foreign::is_image_map(path, &file, documents));
            if !map {
                all.add(loaded);
                all.files.push(file);
            }
        }
    }
    Ok(all)
}

impl Manifests {
    fn add(&mut self, loaded: Result<Vec<Document>, LoadError>) {
        match loaded {
            Ok(documents) => {
                for document in documents {
                    match foreign::explain(&document) {
                        Some(line) => self.broken.push(line),
                        None => self.documents.push(document),
                    }
                }
            }
            Err(error) => self.broken.push(error.to_string()),
        }
    }
}

/// Nothing is fetched from the network.
fn refuse_address(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    if text.starts_with("https://") || text.starts_with("http://") {
        bail!(
            "{text} is not fetched: download it (`curl -fLO {text}`), look at it, and name the file"
        );
    }
    Ok(())
}

/// Of a folder's files those that are wanted; those left out are told, so that nobody takes them for applied.
fn at_depth(path: &Path, files: Vec<PathBuf>, depth: Depth) -> Result<Vec<PathBuf>> {
    if depth == Depth::Below || !path.is_dir() {
        return Ok(files);
    }
    let (here, below): (Vec<PathBuf>, Vec<PathBuf>) = files
        .into_iter()
        .partition(|file| file.parent() == Some(path));
    if here.is_empty() {
        bail!(
            "{} holds no file that ends in .yaml, .yml or .json, only folders below it do: pass -R to read them too",
            path.display()
        );
    }
    if !below.is_empty() {
        output::note(&format!(
            "{} file(s) in folders below {} are left out; pass -R to read them too",
            below.len(),
            path.display()
        ));
    }
    Ok(here)
}

/// The files that a path means, in order of their names; what cannot be looked into is noted.
///
/// # Errors
/// As [`read`].
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.exists() {
        bail!(
            "{} does not exist; name a file of YAML or a folder with some",
            path.display()
        );
    }
    let found = machine::files::find(path);
    if found.files.is_empty() {
        if let Some(problem) = found.problems.first() {
            bail!("{problem}");
        }
        bail!(
            "{} holds no file that ends in .yaml, .yml or .json",
            path.display()
        );
    }
    for problem in &found.problems {
        output::note(&format!("warning: {problem}"));
    }
    Ok(found.files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_and_a_broken_file_hides_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| {
            std::fs::write(folder.path().join(name), text).expect("written")
        };
        std::fs::create_dir(folder.path().join("b")).expect("a folder");
        write("b/x.yml", b"kind: B\n");
        write("a.yaml", b"kind: A\n---\nkind: A2\n");
        write("bad.yaml", b"kind: [\n");
        write("latin.yaml", b"a: 1\nb: \xff\n");
        write("notes.txt", b"nothing\n");
        write(".hidden.yaml", b"kind: H\n");
        let all = read(&[folder.path().into()], Depth::Below).expect("read");
        let kinds: Vec<&str> = all
            .documents
            .iter()
            .filter_map(|document| document.object["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["A", "A2", "B"]);
        assert_eq!(all.broken.len(), 2);
        assert!(
            all.broken
                .iter()
                .any(|text| text.ends_with("latin.yaml:2:4: not UTF-8 text")),
            "{:?}",
            all.broken
        );
    }

    #[test]
    fn folders_below_are_read_when_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("b")).expect("a folder");
        let write = |name: &str| {
            std::fs::write(folder.path().join(name), "kind: A\n").expect("written");
        };
        let count = |depth| read(&[folder.path().into()], depth).map(|all| all.documents.len());
        write("b/x.yml");
        let error = count(Depth::Folder).expect_err("nothing here").to_string();
        assert!(error.contains("pass -R"), "{error}");
        write("a.yaml");
        assert_eq!(count(Depth::Folder).expect("read"), 1);
        assert_eq!(count(Depth::Below).expect("read"), 2);
    }

    #[test]
    fn what_is_not_there_is_an_error_with_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = |path: &Path| {
            read(&[path.into()], Depth::Below)
                .expect_err("refused")
                .to_string()
        };
        assert!(error(Path::new("https://example.org/a.yaml")).contains("curl -fLO"));
        assert!(error(folder.path()).contains("holds no file"));
        assert!(error(&folder.path().join("none")).contains("does not exist"));
    }
}
