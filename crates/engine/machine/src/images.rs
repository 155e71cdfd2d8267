//! The image map: which local command stands for a container image.
//!
//! ```yaml
//! images:
//! - match: "docker.io/istio/examples-bookinfo-reviews-v1*"   # `*` is any text; without a tag any tag matches
//!   command: ["tanbark-bookinfo", "reviews"]                # the image's ENTRYPOINT
//!   args: ["9080"]                                          # the image's CMD, optional
//!   env: {SERVICE_VERSION: v1}                              # the image's ENV, optional
//!   entrypoint: keep                                        # the pod's `command` is not obeyed, optional
//! ```
//!
//! The first entry that matches counts. As with a real image, a container's `args` replace `args`,
//! and its `command` replaces
//! `command` and `args`; `entrypoint: keep` is for images whose usual command means nothing outside of them (`gunicorn …`):
//! the container's `command` is then left out, with the `args` that go with it. `docker.io/` and
//! `library/` may be left out. A command without a slash is looked up beside the map, beside
//! `tanbark`, then on `PATH`; one with an absolute path that does not exist here is looked up by
//! its last part.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A parsed map with the folders that commands are looked up in.
#[derive(Debug, Clone, Default)]
pub struct ImageMap {
    entries: Vec<Entry>,
    folders: Vec<PathBuf>,
    for_anyone: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    images: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "match")]
    pattern: String,
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    entrypoint: Entrypoint,
}

/// Whether a container's own `command` is obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entrypoint {
    #[default]
    Replace,
    Keep,
}

/// What a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Name and arguments, before `$(VAR)` is expanded.
    pub command: Vec<String>,
    /// The image's own variables.
    pub environment: BTreeMap<String, String>,
}

impl ImageMap {
    /// Reads a map; `beside` is the folder that it lies in, `programs` the one of `tanbark`.
    ///
    /// # Errors
    /// What does not parse, with line and column.
    pub fn parse(
        text: &str,
        beside: &Path,
        programs: &Path,
        search_path: &str,
    ) -> Result<Self, String> {
        let file: File = if text.trim().is_empty() {
            File { images: Vec::new() }
        } else {
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?
        };
        if let Some(entry) = file.images.iter().find(|entry| entry.command.is_empty()) {
            return Err(format!("images: `{}` has no command", entry.pattern));
        }
        let mut map = Self {
            entries: file.images,
            folders: vec![beside.into(), programs.into()],
            for_anyone: false,
        };
        map.folders.extend(
            search_path
                .split(':')
                .filter(|folder| !folder.is_empty())
                .map(PathBuf::from),
        );
        Ok(map)
    }

    /// A map with nothing but the runtime's own programs.
    pub fn with_entry(
        mut self,
        pattern: &str,
        command: Vec<String>,
        env: BTreeMap<String, String>,
    ) -> Self {
        let entry = Entry {
            pattern: pattern.into(),
            command,
            args: Vec::new(),
            env,
            entrypoint: Entrypoint::Replace,
        };
        self.entries.insert(0, entry);
        self
    }

    /// The same map, preferring commands that every user can reach: as root, applications are
    /// another user.
    pub fn for_anyone(mut self) -> Self {
        self.for_anyone = true;
        self
    }

    /// What a container with this image runs.
    ///
    /// # Errors
    /// The text to show on the pod: the line to add, or the command that is not installed.
    pub fn resolve(
        &self,
        image: &str,
        command: &[String],
        args: &[String],
    ) -> Result<Resolved, String> {
        let entry = self
            .entries
            .iter()
            .find(|entry| matches(&entry.pattern, image))
            .ok_or_else(|| missing(image))?;
        let own = |list: &[String]| !list.is_empty();
        let mut line: Vec<String> = match (own(command), own(args), entry.entrypoint) {
            (true, _, Entrypoint::Replace) => command.iter().chain(args).cloned().collect(),
            (false, true, _) => entry.command.iter().chain(args).cloned().collect(),
            (true, _, Entrypoint::Keep) | (false, false, _) => {
                entry.command.iter().chain(&entry.args).cloned().collect()
            }
        };
        if let Some(first) = line.first_mut()
            && !first.contains("$(")
        {
            *first = self.find_program(first)?;
        }
        Ok(Resolved {
            command: line,
            environment: entry.env.clone(),
        })
    }

    fn find_program(&self, name: &str) -> Result<String, String> {
        if name.contains('/') {
            let path = Path::new(name);
            let relative = self
                .folders
                .first()
                .map(|beside| beside.join(path))
                .filter(|path| path.is_file());
            if path.is_absolute() && path.is_file() {
                return Ok(name.into());
            }
            if let Some(found) = relative.filter(|_| !path.is_absolute()) {
                return Ok(found.display().to_string());
            }
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        let mut candidates = self
            .folders
            .iter()
            .map(|folder| folder.join(last))
            .filter(|path| is_program(path));
        let first = candidates.clone().next();
        let found = if self.for_anyone {
            candidates.find(|path| open_to_all(path)).or(first)
        } else {
            first
        };
        found.map(|path| path.display().to_string()).ok_or_else(|| {
            let folders: Vec<String> = self
                .folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            format!(
                "command `{name}` is not installed on this machine (searched {})",
                folders.join(":")
            )
        })
    }

    /// The folders as a `PATH` for containers.
    pub fn search_path(&self) -> String {
        let folders: Vec<String> = self
            .folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        folders.join(":")
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

/// Whether every folder on the way, and the file itself, may be used by anyone.
fn open_to_all(path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let open = |path: &Path| {
        path.ancestors().all(|part| {
            part.metadata()
                .is_ok_and(|metadata| metadata.mode() & 0o001 != 0)
        })
    };
    open(path) && open(&real)
}

fn missing(image: &str) -> String {
    format!(
        "image \"{image}\" has no entry in the image map (--images); add to it:\n- match: \"{}\"\n  command: [\"PROGRAM\", \"ARGUMENT\"]",
        without_tag(&full_name(image))
    )
}

/// Whether an image is one that a pattern means.
fn matches(pattern: &str, image: &str) -> bool {
    let (pattern, image) = (full_name(pattern), full_name(image));
    let tagged = pattern
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'))
        || pattern.contains('@');
    glob(&pattern, if tagged { &image } else { without_tag(&image) })
}

/// `docker.io/library/alpine:3` for `alpine:3`.
fn full_name(image: &str) -> String {
    let (first, rest) = image.split_once('/').unwrap_or(("", image));
    let registry = first.contains(['.', ':', '*']) || first == "localhost";
    match (registry, first.is_empty()) {
        (true, _) => image.to_string(),
        (false, true) if rest.starts_with('*') => rest.to_string(),
        (false, true) => format!("docker.io/library/{rest}"),
        (false, false) => format!("docker.io/{image}"),
    }
}

fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rfind(':') {
        Some(colon) if !image.get(colon..).unwrap_or_default().contains('/') => {
            image.get(..colon).unwrap_or(image)
        }
        _ => image,
    }
}

/// `*` is any text, also none.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> ImageMap {
        ImageMap::parse(
            text,
            Path::new("/nowhere"),
            Path::new("/nowhere"),
            "/usr/bin:/bin",
        )
        .expect("the map parses")
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_string()).collect()
    }

    #[test]
    fn patterns_match_with_and_without_tag_and_registry() {
        for (pattern, image, expected) in [
            (
                "docker.io/istio/examples-bookinfo-reviews-v1*",
                "docker.io/istio/examples-bookinfo-reviews-v1:1.20",
                true,
            ),
            (
                "docker.io/istio/examples-bookinfo-reviews-v1",
                "docker.io/istio/examples-bookinfo-reviews-v10:1",
                false,
            ),
            ("curlimages/curl", "docker.io/curlimages/curl:8", true),
            ("alpine", "alpine:3.20", true),
            ("alpine:3.19", "alpine:3.20", false),
            ("*/proxyv2", "registry.istio.io/release/proxyv2:1.30", true),
            ("alpine", "docker.io/library/alpine@sha256:00", true),
            ("localhost:5000/a", "localhost:5000/a:1", true),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} {image}");
        }
    }

    #[test]
    fn command_and_args_follow_the_rules_of_images() {
        let map = map(
            "images:\n- match: a\n  command: [\"sh\", \"-c\"]\n  args: [\"true\"]\n- match: b\n  command: [\"sh\"]\n  args: [x]\n  entrypoint: keep\n",
        );
        let run = |image: &str, command: &[&str], args: &[&str]| {
            let resolved = map
                .resolve(image, &list(command), &list(args))
                .expect("resolved")
                .command;
            let mut words = resolved
                .iter()
                .map(|word| word.rsplit('/').next().unwrap_or(word).to_string());
            words.by_ref().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(run("a", &[], &[]), "sh -c true");
        assert_eq!(run("a", &[], &["false"]), "sh -c false");
        assert_eq!(run("a", &["sleep"], &["1"]), "sleep 1");
        assert_eq!(run("b", &["gunicorn"], &["-b", "0.0.0.0:80"]), "sh x");
        assert_eq!(run("b", &[], &["y"]), "sh y");
        assert_eq!(
            run("a", &["/no/such/place/sleep"], &["infinity"]),
            "sleep infinity"
        );
    }

    #[test]
    fn an_unmapped_image_shows_the_entry_to_add() {
        let error = map("")
            .resolve("ghcr.io/x/y:1", &[], &[])
            .expect_err("unmapped");
        assert!(
            error.contains("- match: \"ghcr.io/x/y\"\n  command: ["),
            "{error}"
        );
        let error = map("images:\n- match: a\n  command: [no-such-program-here]\n")
            .resolve("a", &[], &[])
            .expect_err("not installed");
        assert!(
            error.contains("`no-such-program-here` is not installed"),
            "{error}"
        );
    }
}
