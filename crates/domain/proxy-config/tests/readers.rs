//! What a proxy is said to obey has a reader: every field of this crate's types is named by the
//! data path, the feed, the telemetry or the program, outside of the decoder that fills it.
//! Otherwise the decoder must ignore it with a reason, leave it out or refuse it, so that
//! `docs/xds-support.md`, which is made from the decoder's judgements, tells the truth.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folders whose programs obey the configuration.
const READERS: [&str; 5] = [
    "crates/engine/proxy/src",
    "crates/engine/feed/src",
    "crates/base/telemetry/src",
    "bin/tanbark-proxy/src",
    // Methods of the types themselves, such as matchers, which the data path calls.
    "crates/domain/proxy-config/src",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.expect("readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.starts_with("tests") {
            found.push(path);
        }
    }
}

fn texts(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    sources(folder, &mut files);
    let text = |file: &PathBuf| fs::read_to_string(file).expect("UTF-8");
    files.iter().map(text).collect()
}

/// `pub NAME: TYPE,` of structs, and fields of variants, which stand behind eight spaces.
fn fields(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let in_struct = line.strip_prefix("    pub ");
        let field = in_struct.or_else(|| line.strip_prefix("        "))?;
        let (name, kind) = field.split_once(": ")?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_type = kind.ends_with(',') && !kind.contains('(') && !kind.contains('.');
        (!name.is_empty() && name.chars().all(is_name) && is_type).then_some(name)
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn every_field_has_a_reader() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let defined = texts(&here.join("src"));
    let mut read = BTreeSet::new();
    for folder in READERS {
        // In this crate a definition is no reader, and nowhere a comment is one.
        let own = folder.contains("proxy-config");
        for text in texts(&here.join("../../..").join(folder)) {
            let lines = text.lines().map(str::trim);
            let readers = lines.filter(|line| {
                let is_definition = own && (line.starts_with("pub ") || line.ends_with(','));
                !is_definition && !line.starts_with("//")
            });
            read.extend(readers.flat_map(words).map(str::to_owned));
        }
    }
    let all: BTreeSet<&str> = defined.iter().flat_map(|text| fields(text)).collect();
    assert!(all.len() > 150, "only {} fields were found", all.len());
    let unread: Vec<&&str> = all.iter().filter(|name| !read.contains(**name)).collect();
    assert!(unread.is_empty(), "decoded, and read by nobody: {unread:?}");
}
