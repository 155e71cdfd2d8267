//! Files in, problems and meaning out: the cases stand in `tests/cases`, what is expected beside them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wire_kube::manifest::{self, Document};

use super::*;
use crate::{default_mesh, parse_mesh};

/// A store with all objects of some texts, and what was said about each, with its place.
fn store_of(mesh: MeshConfig, files: &[(&str, &str)]) -> (Store, Vec<(Key, Document)>, String) {
    let mut store = Store::new(mesh);
    let mut documents = Vec::new();
    let mut unknown = String::new();
    for (name, text) in files {
        for document in manifest::load(name, text).unwrap() {
            let applied = store.apply(Arc::new(document.object.clone()));
            match applied.key {
                Some(key) => documents.push((key, document)),
                None => applied
                    .problems
                    .iter()
                    .for_each(|p| writeln!(unknown, "{}: {p}", document.source).unwrap()),
            }
        }
    }
    store.build();
    (store, documents, unknown)
}

fn report(store: &Store, documents: &[(Key, Document)]) -> String {
    let mut out = String::new();
    for (key, document) in documents {
        for problem in store.problems_of(key) {
            writeln!(out, "{} {key}: {problem}", document.place(&problem.path)).unwrap();
        }
    }
    out
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn expect(path: &Path, found: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, wanted, "UPDATE_EXPECT=1 rewrites {}", path.display());
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn mesh_of(text: &str) -> MeshConfig {
    let documents = manifest::load("mesh.yaml", text).unwrap();
    let (mesh, problems) = parse_mesh(&documents[0].object);
    let errors: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    mesh.unwrap()
}

#[test]
fn what_istio_takes_is_taken() {
    let base = captures::general("base.yaml");
    let mut all = String::new();
    assert!(captures::scenarios().len() >= 18);
    for scenario in captures::scenarios() {
        let mesh = mesh_of(&scenario.own_or_general("mesh.yaml"));
        let input = scenario.input();
        let (store, documents, unknown) =
            store_of(mesh, &[("base.yaml", &base), ("input.yaml", &input)]);
        writeln!(all, "== {}", scenario.name()).unwrap();
        all.push_str(&unknown);
        let report = report(&store, &documents);
        report
            .lines()
            .filter(|l| !l.contains("[IST0118]"))
            .for_each(|l| writeln!(all, "{l}").unwrap());
    }
    assert!(!all.contains(": Error ["), "{all}");
    expect(&cases().join("interop.expect"), &all);
}

/// Each file of `tests/cases` holds objects; what is found in them stands in the `.expect` file beside it.
#[test]
fn every_rule_is_reported_with_its_place() {
    let mut files: Vec<_> = std::fs::read_dir(cases())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (store, documents, unknown) = store_of(default_mesh(), &[(&name, &read(&file))]);
        expect(
            &file.with_extension("expect"),
            &format!("{unknown}{}", report(&store, &documents)),
        );
    }
}

mod meaning;
mod robustness;
