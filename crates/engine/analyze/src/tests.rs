//! Files in, problems out: the cases stand in `tests/cases`, what is expected beside them; then,
//! that an update checks what a change touches and nothing else, and comes to what a fresh look
//! comes to.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ingest::{Key, Severity, Store, code, default_mesh, parse_mesh};
use mesh_model::MeshConfig;
use serde_json::json;
use wire_kube::kinds::Kind;
use wire_kube::manifest::{self, Document};

use crate::Analyzer;

mod incremental;

struct Mesh {
    store: Store,
    analyzer: Analyzer,
    documents: Vec<(Key, Document)>,
    /// What was said about objects that have no identity.
    unknown: String,
}

/// A store with all objects of some texts, seen together.
fn mesh(mesh: MeshConfig, files: &[(&str, &str)]) -> Mesh {
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
    let mut analyzer = Analyzer::default();
    analyzer.update(&mut store);
    Mesh {
        store,
        analyzer,
        documents,
        unknown,
    }
}

impl Mesh {
    fn report(&self) -> String {
        let mut out = self.unknown.clone();
        for (key, document) in &self.documents {
            for problem in self.analyzer.problems_of(&self.store, key) {
                writeln!(out, "{} {key}: {problem}", document.place(&problem.path)).unwrap();
            }
        }
        out
    }
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
        let config = mesh_of(&scenario.own_or_general("mesh.yaml"));
        let input = scenario.input();
        let mesh = mesh(config, &[("base.yaml", &base), ("input.yaml", &input)]);
        writeln!(all, "== {}", scenario.name()).unwrap();
        let report = mesh.report();
        report
            .lines()
            // The base lists neither protocols nor proxies.
            .filter(|l| !l.contains("[IST0118]") && !l.contains("[IST0103]"))
            .for_each(|l| writeln!(all, "{l}").unwrap());
    }
    assert!(!all.contains(": Error ["), "{all}");
    expect(&cases().join("interop.expect"), &all);
}

/// Codes and objects of messages of `istioctl analyze` that have no counterpart here, and why.
const NOT_SAID: &[(&str, &str, &str)] = &[
    (
        "IST0129",
        "DestinationRule",
        "without a CA, the system's CAs verify the server",
    ),
    (
        "IST0133",
        "EnvoyFilter",
        "the kind is not supported, and that is said",
    ),
    (
        "IST0151",
        "EnvoyFilter",
        "the kind is not supported, and that is said",
    ),
    (
        "IST0133",
        "AuthorizationPolicy default/echo",
        "the rule names namespaces, so it denies only their connections to TCP ports",
    ),
];

/// What `istioctl analyze` says of a capture's objects is said by us too, of the same object and
/// with the same code.
#[test]
fn what_istioctl_says_is_said() {
    let base = captures::general("base.yaml");
    let (mut same, mut missing) = (0, Vec::new());
    for scenario in captures::scenarios() {
        let config = mesh_of(&scenario.own_or_general("mesh.yaml"));
        let input = scenario.input();
        let mesh = mesh(config, &[("base.yaml", &base), ("input.yaml", &input)]);
        let said: Vec<(String, &str)> = mesh
            .analyzer
            .problems(&mesh.store)
            .map(|(key, problem)| (key.to_string(), problem.code))
            .collect();
        let analysis: serde_json::Value = serde_json::from_str(&scenario.analysis()).unwrap();
        for message in analysis.as_array().unwrap() {
            let code = message["code"].as_str().unwrap();
            let origin = message["origin"].as_str().unwrap();
            if said.iter().any(|(key, own)| key == origin && *own == code) {
                same += 1;
            } else if !NOT_SAID
                .iter()
                .any(|(known, of, _)| *known == code && origin.starts_with(of))
            {
                missing.push(format!(
                    "{}: {origin}: {code}: {}",
                    scenario.name(),
                    message["message"]
                ));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(same >= 4, "{same}");
}

/// Each file of `tests/cases` holds objects; what is found in them stands in the `.expect` file
/// beside it.
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
        let mesh = mesh(default_mesh(), &[(&name, &read(&file))]);
        expect(&file.with_extension("expect"), &mesh.report());
    }
}

/// A rule without a case could stop to work without a word.
#[test]
fn every_code_of_every_rule_has_a_case() {
    let files = std::fs::read_dir(cases())
        .unwrap()
        .map(|e| e.unwrap().path());
    let expected: String = files
        .filter(|p| p.extension().is_some_and(|e| e == "expect"))
        .map(|p| read(&p))
        .collect();
    let mut names = Vec::new();
    for rule in crate::RULES {
        assert!(!rule.docs.is_empty(), "{}", rule.name);
        names.push(rule.name);
        for (code, severity) in rule.codes {
            let line = format!(": {} [{code}] ", severity.as_str());
            assert!(
                expected.contains(&line),
                "no case for{line}of {}",
                rule.name
            );
        }
    }
    assert!(names.is_sorted(), "{names:?}");
}
