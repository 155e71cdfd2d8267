//! The files that a path means, and their text.
//!
//! A folder means all below it that ends in `.yaml`, `.yml` or `.json`; hidden ones not. Links are
//! followed, but not back into a folder on the way. Whatever keeps a part from being read is told
//! by name and hides nothing else; which folders could not be looked into is told too, so that
//! nobody takes their files for deleted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use wire_kube::manifest::{Limits, LoadError};

/// Files that one path may bring.
const MAX_FILES: usize = 10_000;

/// What was found, in order of names.
#[derive(Debug, Default)]
pub struct Found {
    /// Files to read.
    pub files: Vec<PathBuf>,
    /// `path: what`.
    pub problems: Vec<String>,
    /// Folders whose contents are not known.
    pub unread: Vec<PathBuf>,
    /// Files and folders that are links or were reached through one: a watch on the path itself
    /// does not see their changes.
    pub linked: Vec<PathBuf>,
}

/// Looks for the files of a path; a path that is a file means itself, whatever its name.
pub fn find(path: &Path) -> Found {
    let mut found = Found::default();
    if path.ancestors().any(Path::is_symlink) {
        found.linked.push(path.to_path_buf());
    }
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => look_into(path, &mut Vec::new(), &mut found),
        Ok(_) => found.files.push(path.to_path_buf()),
        Err(error) => {
            found.problems.push(format!("{}: {error}", path.display()));
            found.unread.push(path.to_path_buf());
        }
    }
    found
}

fn look_into(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Found) {
    let listed = fs::canonicalize(folder).and_then(|real| {
        let entries: Result<Vec<_>, _> = fs::read_dir(folder)?
            .map(|entry| Ok::<_, std::io::Error>(entry?.path()))
            .collect();
        Ok((real, entries?))
    });
    let (real, mut entries) = match listed {
        Ok(listed) => listed,
        // Removed since its parent was read.
        Err(error) if error.kind() == ErrorKind::NotFound && !above.is_empty() => return,
        Err(error) => {
            found.problems.push(format!(
                "{}: {error}: the folder cannot be read",
                folder.display()
            ));
            found.unread.push(folder.to_path_buf());
            return;
        }
    };
    if above.contains(&real) {
        found.problems.push(format!(
            "{}: a link back to {}: not followed",
            folder.display(),
            real.display()
        ));
        return;
    }
    above.push(real);
    entries.sort();
    let linked = found.linked.last().is_some_and(|last| last == folder);
    for entry in entries {
        if entry
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        {
            continue;
        }
        if (entry.is_dir() || is_manifest(&entry)) && (linked || entry.is_symlink()) {
            found.linked.push(entry.clone());
        }
        if entry.is_dir() {
            look_into(&entry, above, found);
        } else if is_manifest(&entry) {
            if found.files.len() >= MAX_FILES {
                found.problems.push(format!(
                    "{}: more than {MAX_FILES} files: the rest of this folder is not read",
                    folder.display()
                ));
                break;
            }
            // A pipe would keep its reader waiting for ever.
            if entry.exists() && !entry.is_file() {
                found
                    .problems
                    .push(format!("{}: not a regular file: not read", entry.display()));
            } else {
                found.files.push(entry);
            }
        }
    }
    above.pop();
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .and_then(|end| end.to_str())
        .is_some_and(|end| ["yaml", "yml", "json"].contains(&end))
}

/// The text of a file.
///
/// # Errors
/// `file: what` or `file:line:column: what`: it cannot be opened, is too large, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, String> {
    let name = path.display();
    let data = fs::metadata(path).map_err(|error| match fs::symlink_metadata(path) {
        Ok(_) if error.kind() == ErrorKind::NotFound => {
            format!("{name}: a link to a file that does not exist")
        }
        _ => format!("{name}: {error}"),
    })?;
    let limit = Limits::default().file_bytes_max;
    let bytes = usize::try_from(data.len()).unwrap_or(usize::MAX);
    if bytes >= limit {
        return Err(LoadError::FileTooLarge {
            file: name.to_string().into(),
            bytes,
            limit,
        }
        .to_string());
    }
    let bytes = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        format!("{name}:{line}:{column}: not UTF-8 text")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_but_not_in_a_circle() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("a folder");
        fs::write(at("a/x.yaml"), "").expect("written");
        symlink("a", at("b")).expect("a link");
        symlink("..", at("a/up")).expect("a link");
        symlink("none", at("c.yaml")).expect("a link");
        let found = find(folder.path());
        assert_eq!(found.files, [at("a/x.yaml"), at("b/x.yaml"), at("c.yaml")]);
        // What was reached by no link is seen by the watch.
        let linked = ["a/up", "b", "b/up", "b/x.yaml", "c.yaml"].map(at);
        assert_eq!(found.linked, linked);
        assert_eq!(found.problems.len(), 2, "{:?}", found.problems);
        assert!(
            found.problems[0].contains("a/up: a link back to"),
            "{:?}",
            found.problems
        );
        assert!(
            read(&at("c.yaml"))
                .expect_err("refused")
                .ends_with("c.yaml: a link to a file that does not exist")
        );
    }

    #[test]
    fn what_is_no_text_file_is_told_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        fs::write(at("latin.yaml"), b"a: 1\nb: \xff\n").expect("written");
        fs::write(
            at("large.yaml"),
            vec![b' '; Limits::default().file_bytes_max],
        )
        .expect("written");
        let found = find(folder.path());
        assert_eq!(found.files, [at("large.yaml"), at("latin.yaml")]);
        assert!(found.problems[0].ends_with("pipe.yaml: not a regular file: not read"));
        assert!(
            read(&at("latin.yaml"))
                .expect_err("refused")
                .ends_with("latin.yaml:2:4: not UTF-8 text")
        );
        assert!(
            read(&at("large.yaml"))
                .expect_err("refused")
                .contains("smaller than")
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_not_an_empty_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = folder.path().join("gone");
        let found = find(&gone);
        assert_eq!((found.files.len(), found.unread), (0, vec![gone]));
    }
}
