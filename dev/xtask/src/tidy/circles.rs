//! Circles of files: no more than two files of a crate may need each other.
//!
//! File A needs file B when A's production code names an item that B defines: by `use`, or by a
//! path in the code. An item that is only passed on (`pub use`) is looked up where it is defined,
//! so a facade that re-exports its children needs none of them. `mod x;` alone is no need either.
//! `circles.json` lists today's circles. A listed circle may only lose files, and a list that names too much is a fault.
//! `cargo xtask circles` prints the circles with who needs whom; `cargo xtask tidy --tighten` shortens the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    code::{Outline, outline},
    fault::Fault,
    source::Source,
};

const CIRCLES: &str = "dev/xtask/circles.json";
/// Two files that need each other are one room with two doors; three are a knot.
const MAX_FILES: usize = 2;
/// Re-exports of re-exports are followed this far.
const MAX_DEPTH: usize = 8;

type Circle = BTreeSet<String>;

/// File → the files of its crate that it needs.
type Needs = BTreeMap<String, BTreeSet<String>>;

pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Fault>> {
    Ok(compare(&read(root)?, &circles(sources)))
}

/// Takes out of `circles.json` what is in no circle any more.
pub fn tighten(root: &Path, sources: &[Source]) -> Result<()> {
    let found = circles(sources);
    let listed = read(root)?;
    let kept: Vec<&Circle> = found
        .iter()
        .filter(|circle| listed.iter().any(|known| circle.is_subset(known)))
        .collect();
    let text = serde_json::to_string_pretty(&kept)? + "\n";
    std::fs::write(root.join(CIRCLES), text).context(CIRCLES)
}

/// The circles of more than two files, with the needs inside each, as text.
pub fn describe(sources: &[Source]) -> String {
    let needs = needs(sources);
    let mut text = String::new();
    for circle in circles_of(&needs) {
        text += &format!("circle of {} files\n", circle.len());
        for file in &circle {
            let inside: Vec<&str> = needs[file]
                .intersection(&circle)
                .map(String::as_str)
                .collect();
            text += &format!("  {file}\n    needs {}\n", inside.join("\n          "));
        }
    }
    text
}

fn read(root: &Path) -> Result<Vec<Circle>> {
    let text = std::fs::read_to_string(root.join(CIRCLES)).context(CIRCLES)?;
    serde_json::from_str(&text).context(CIRCLES)
}

fn compare(listed: &[Circle], found: &[Circle]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for circle in found {
        if !listed.iter().any(|known| circle.is_subset(known)) {
            let files: Vec<&str> = circle.iter().map(String::as_str).collect();
            faults.push(Fault {
                place: files.first().copied().unwrap_or_default().to_owned(),
                what: format!(
                    "{} files need each other (cargo xtask circles shows how): {}",
                    files.len(),
                    files.join(", ")
                ),
            });
        }
    }
    let now: BTreeSet<&String> = found.iter().flatten().collect();
    for file in listed.iter().flatten().filter(|file| !now.contains(file)) {
        faults.push(Fault {
            place: CIRCLES.into(),
            what: format!("`{file}` is in no circle now: cargo xtask tidy --tighten"),
        });
    }
    faults
}

fn circles(sources: &[Source]) -> Vec<Circle> {
    circles_of(&needs(sources))
}

/// A crate's files by module path; the root is the empty path.
struct Crate<'a> {
    files: BTreeMap<Vec<&'a str>, (&'a str, Outline<'a>)>,
}

fn needs(sources: &[Source]) -> Needs {
    let mut crates: BTreeMap<&str, Crate<'_>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some((package, file)) = source.path.split_once("/src/") else {
            continue;
        };
        let Some(module) = module_of(file) else {
            continue;
        };
        let files = BTreeMap::new();
        let of_crate = crates.entry(package).or_insert(Crate { files });
        of_crate
            .files
            .insert(module, (&source.path, outline(source)));
    }
    crates.values().flat_map(Crate::needs).collect()
}

/// `a/b.rs` → `["a", "b"]`; `None`: another program of the package.
fn module_of(file: &str) -> Option<Vec<&str>> {
    match file.strip_suffix(".rs")? {
        "lib" | "main" => Some(Vec::new()),
        stem if stem.starts_with("bin/") => None,
        stem => Some(stem.split('/').collect()),
    }
}

impl<'a> Crate<'a> {
    fn needs(&self) -> impl Iterator<Item = (String, BTreeSet<String>)> {
        self.files.iter().map(|(module, (path, outline))| {
            let needed = self.needed_by(module, outline);
            let others = needed.into_iter().filter(|other| other != path);
            ((*path).to_owned(), others.map(str::to_owned).collect())
        })
    }

    /// The files that define what a file names.
    fn needed_by(&self, module: &[&'a str], outline: &Outline<'a>) -> BTreeSet<&'a str> {
        let words: BTreeSet<&str> = outline.words.iter().copied().collect();
        let starts: BTreeSet<&str> = outline.paths.iter().map(|path| path[0]).collect();
        let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut needed = BTreeSet::new();
        for import in &outline.imports {
            // A name that is passed on and not used is the need of who uses it.
            let is_used = words.contains(import.name) || starts.contains(import.name);
            if import.is_public && !is_used {
                continue;
            }
            match self.resolve(module, &import.path, 0) {
                Some(Target::Module(path)) => drop(modules.insert(import.name, path)),
                Some(Target::Item(file)) => drop(needed.insert(file)),
                None => {}
            }
        }
        for path in &outline.paths {
            let found = match modules.get(path[0]) {
                Some(imported) => self.walk(imported.clone(), &path[1..], 0),
                None => self.resolve(module, path, 0),
            };
            if let Some(Target::Item(file)) = found {
                needed.insert(file);
            }
        }
        needed
    }

    /// What a path means in `module`; `None`: it leads out of the crate.
    fn resolve(&self, module: &[&'a str], path: &[&'a str], depth: usize) -> Option<Target<'a>> {
        let (start, rest) = match path {
            ["crate", rest @ ..] => (Vec::new(), rest),
            ["self", rest @ ..] => (module.to_vec(), rest),
            ["super", ..] => {
                let ups = path
                    .iter()
                    .take_while(|segment| **segment == "super")
                    .count();
                let above = module.len().checked_sub(ups)?;
                (module[..above].to_vec(), &path[ups..])
            }
            [first, ..] => {
                let (_, outline) = self.files.get(module)?;
                if !outline.children.contains(first) {
                    return None;
                }
                (module.to_vec(), path)
            }
            [] => return None,
        };
        self.walk(start, rest, depth)
    }

    /// Follows `rest` down from `module`, through re-exports, to a module or to the file that
    /// defines the item.
    fn walk(&self, mut module: Vec<&'a str>, rest: &[&'a str], depth: usize) -> Option<Target<'a>> {
        let mut rest = rest;
        while let [segment, more @ ..] = rest {
            module.push(segment);
            if self.files.contains_key(&module) {
                rest = more;
                continue;
            }
            module.pop();
            let (file, outline) = self.files.get(&module)?;
            let passed_on = outline.imports.iter().filter(|import| import.is_public);
            for import in passed_on {
                if depth < MAX_DEPTH && import.name == *segment {
                    let mut path = import.path.clone();
                    path.extend(more);
                    if let Some(found) = self.resolve(&module, &path, depth + 1) {
                        return Some(found);
                    }
                }
            }
            return Some(Target::Item(self.defining_macro(segment).unwrap_or(file)));
        }
        Some(Target::Module(module))
    }

    /// Exported macros are named at the crate's root wherever they are defined.
    fn defining_macro(&self, name: &str) -> Option<&'a str> {
        let mut files = self.files.values();
        files
            .find(|(_, outline)| outline.macros.contains(&name))
            .map(|(file, _)| *file)
    }
}

enum Target<'a> {
    Module(Vec<&'a str>),
    /// The file that defines it.
    Item(&'a str),
}

/// The sets of more than [`MAX_FILES`] files each of which reaches all others.
fn circles_of(needs: &Needs) -> Vec<Circle> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = needs
        .keys()
        .map(|file| (file, reachable(needs, file)))
        .collect();
    let mut found = BTreeSet::new();
    for (file, others) in &reached {
        let circle: Circle = others
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)))
            .map(|other| (*other).clone())
            .collect();
        if circle.len() > MAX_FILES {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// Every file that `from` needs, itself only if by way of others.
fn reachable<'n>(needs: &'n Needs, from: &String) -> BTreeSet<&'n String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&String> = needs.get(from).into_iter().flatten().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(needs.get(file).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        let source = |(name, text): &(&str, &str)| Source {
            path: format!("crates/x/a/src/{name}.rs"),
            text: (*text).to_owned(),
        };
        files.iter().map(source).collect()
    }

    fn needed(files: &[(&str, &str)]) -> Vec<String> {
        let short = |path: &str| {
            path.rsplit_once('/')
                .map_or("", |(_, name)| name)
                .to_owned()
        };
        let needs = needs(&sources(files));
        let pairs = needs.iter().flat_map(|(file, others)| {
            others
                .iter()
                .map(move |other| format!("{} {}", short(file), short(other)))
        });
        pairs.collect()
    }

    #[test]
    fn an_item_is_needed_where_it_is_defined_and_a_facade_needs_nothing() {
        let files = [
            ("lib", "mod a; mod b; mod c; pub use b::B; pub struct Root;"),
            (
                "a",
                "use crate::{B, Root}; use super::c; fn f() { c::run() }",
            ),
            ("b", "pub struct B;"),
            ("c", "pub fn run() { crate::a::f() }"),
        ];
        assert_eq!(
            needed(&files),
            ["a.rs b.rs", "a.rs c.rs", "a.rs lib.rs", "c.rs a.rs"]
        );
        assert!(circles(&sources(&files)).is_empty());
    }

    #[test]
    fn three_files_that_need_each_other_are_a_circle_and_may_only_get_fewer() {
        let files = [
            ("lib", "mod a; mod b; mod c;"),
            ("a", "use crate::b::B;"),
            ("b", "use super::c::C;"),
            ("c", "fn f(a: crate::a::A) {}"),
        ];
        let found = circles(&sources(&files));
        assert_eq!(found.len(), 1);
        assert_eq!(compare(&[], &found).len(), 1);
        assert!(compare(&found, &found).is_empty());
        let mut wider = found.clone();
        wider[0].insert("crates/x/a/src/d.rs".into());
        assert_eq!(compare(&wider, &found)[0].place, CIRCLES);
    }
}
