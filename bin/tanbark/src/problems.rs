//! The one validator of the command line: `ingest` over documents, each problem with the place in its file.
//!
//! `up`, `apply` and `validate` all say `file:line:column: Kind ns/name: message`. Objects are looked at one by one and then together, so a route to
//! a subset that no DestinationRule has is found too. What is wrong with a file itself (syntax, size) is said by [`crate::manifests`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use ingest::{Key, Severity, Store};
use inject::Injection;
use inject::ProxyKind;
use machine::controllers::rehearse::rehearse;
use machine::store::kinds::{self, Support};
use serde_json::{Value, json};
use wire_kube::manifest::Document;

use crate::object;
use crate::output::{Colour, Tone};

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub code: String,
    /// `file:line:column`
    pub place: String,
    /// `Kind ns/name`
    pub subject: String,
    /// Path of the field in the object.
    pub path: String,
    pub message: String,
    /// True when the object is wrong whatever else there is; false when it does not fit to other objects.
    pub by_itself: bool,
}

impl Finding {
    /// One line for people; errors stand out by colour and the others by a word.
    pub fn line(&self, colour: Colour) -> String {
        let (word, tone) = match self.severity {
            Severity::Error => ("", Tone::Bad),
            Severity::Warning => ("warning: ", Tone::Doubtful),
            Severity::Info => ("info: ", Tone::Faint),
        };
        let Self {
            place,
            subject,
            path,
            message,
            code,
            ..
        } = self;
        let path = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        format!(
            "{place}: {}{subject}: {path}{message} [{code}]",
            colour.paint(word, tone)
        )
    }

    pub fn json(&self) -> Value {
        let Self {
            severity,
            code,
            place,
            subject,
            path,
            message,
            by_itself: _,
        } = self;
        json!({"level": severity.as_str(), "code": code, "place": place, "object": subject, "path": path, "message": message})
    }
}

/// What is wrong with these documents, in the order of their places. What would come of them on a machine (pods, endpoints) is known too.
pub fn check(documents: &[Document]) -> Vec<Finding> {
    check_among(documents, &rehearsed(documents))
}

/// As [`check`], among other objects that are there.
pub fn check_among(documents: &[Document], others: &[Arc<Value>]) -> Vec<Finding> {
    let mut findings = of_runtime(documents);
    findings.extend(of_mesh(documents, others));
    let order = order_of(documents);
    findings.sort_by_key(|finding| place_key(&finding.place, &order));
    findings
}

/// For the runtime, which tells of its own problems by itself: what the mesh has to say about its files, a line each; nothing that
/// only informs.
pub fn lines_for_runtime(documents: &[Document]) -> Vec<String> {
    let findings = of_mesh(documents, &rehearsed(documents));
    findings
        .iter()
        .filter(|finding| finding.severity != Severity::Info)
        // A version that is not served is told by the runtime, as a kind that is not known.
        .filter(|finding| finding.code != ingest::code::UNKNOWN_KIND)
        .map(|finding| finding.line(Colour::Off))
        .collect()
}

/// Everything that a machine would make of these documents.
fn rehearsed(documents: &[Document]) -> Vec<Arc<Value>> {
    let given: Vec<Value> = documents
        .iter()
        .map(|document| document.object.clone())
        .collect();
    rehearse(
        &given,
        Injection {
            proxy: ProxyKind::Tanbark,
            trust_domain: "cluster.local".into(),
        },
    )
    .objects
}

/// What the mesh has to say: objects by themselves, then together. The first of several objects of one name counts.
fn of_mesh(documents: &[Document], others: &[Arc<Value>]) -> Vec<Finding> {
    let mut store = Store::with_auto_addresses(ingest::default_mesh());
    let mut places: BTreeMap<Key, (&Document, Vec<ingest::Problem>)> = BTreeMap::new();
    for document in documents {
        let Ok(key) = Key::of(&document.object) else {
            continue;
        };
        if let Entry::Vacant(place) = places.entry(key) {
            let applied = store.apply(Arc::new(document.object.clone()));
            place.insert((document, applied.problems));
        }
    }
    for object in others {
        if Key::of(object).is_ok_and(|key| !places.contains_key(&key)) {
            store.apply(object.clone());
        }
    }
    let mut analyzer = analyze::Analyzer::default();
    analyzer.update(&mut store);
    let placed = analyzer.problems(&store).filter_map(|(key, problem)| {
        let (document, own) = places.get(key)?;
        let mut finding = place(document, &key.to_string(), problem.clone());
        finding.by_itself = own.contains(problem);
        Some(finding)
    });
    placed.collect()
}

/// What the runtime tells by itself while it runs: objects without name or kind, twice the same, without effect on one machine.
fn of_runtime(documents: &[Document]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut places: BTreeMap<Key, &Document> = BTreeMap::new();
    for document in documents {
        match Key::of(&document.object) {
            Err(problem) => findings.push(place(document, &subject_of(document), problem)),
            Ok(key) => {
                findings.extend(inert(document, &key));
                match places.get(&key) {
                    Some(first) => findings.push(duplicate(document, first, &key)),
                    None => {
                        places.insert(key, document);
                    }
                }
            }
        }
    }
    findings
}

/// Does one of these keep its object from being used, whatever else there is?
pub fn has_errors(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error && finding.by_itself)
}

fn place(document: &Document, subject: &str, problem: ingest::Problem) -> Finding {
    let ingest::Problem {
        severity,
        code,
        path,
        message,
    } = problem;
    Finding {
        severity,
        code: code.into(),
        place: document.place(&path),
        subject: subject.into(),
        path,
        message,
        by_itself: true,
    }
}

fn subject_of(document: &Document) -> String {
    let (kind, name) = (
        object::text(&document.object, "/kind"),
        object::name(&document.object),
    );
    let namespace = object::namespace(&document.object);
    match (kind, name) {
        ("", _) => "object".into(),
        (kind, "") => kind.into(),
        (kind, name) => format!(
            "{kind} {}/{name}",
            if namespace.is_empty() {
                "default"
            } else {
                namespace
            }
        ),
    }
}

/// A kind that is stored and has no effect on one machine.
fn inert(document: &Document, key: &Key) -> Option<Finding> {
    let (api_version, kind) = document.type_meta()?;
    let known = kinds::by_object(api_version, kind)?;
    (known.support == Support::Inert).then(|| Finding {
        severity: Severity::Info,
        code: ingest::code::UNSUPPORTED_KIND.into(),
        place: document.place("kind"),
        subject: key.to_string(),
        path: "kind".into(),
        message: format!("{kind} has no effect on one machine"),
        by_itself: true,
    })
}

fn duplicate(document: &Document, first: &Document, key: &Key) -> Finding {
    Finding {
        severity: Severity::Error,
        code: ingest::code::INVALID.into(),
        place: document.place("metadata.name"),
        subject: key.to_string(),
        path: "metadata.name".into(),
        message: format!(
            "the same object stands at {} already: give one of them another name",
            first.place("")
        ),
        by_itself: true,
    }
}

/// Files in the order in which they were read.
fn order_of(documents: &[Document]) -> BTreeMap<Arc<str>, usize> {
    let mut order = BTreeMap::new();
    for document in documents {
        let next = order.len();
        order.entry(document.source.file.clone()).or_insert(next);
    }
    order
}

fn place_key(place: &str, order: &BTreeMap<Arc<str>, usize>) -> (usize, u32, u32) {
    let mut parts = place.rsplitn(3, ':');
    let column = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let line = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let file = parts
        .next()
        .and_then(|file| order.get(file))
        .copied()
        .unwrap_or(usize::MAX);
    (file, line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let documents = wire_kube::manifest::load("f.yaml", text).expect("parses");
        check(&documents)
            .iter()
            .map(|finding| finding.line(Colour::Off))
            .collect()
    }

    const WEIGHT: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {host: reviews}\n      weight: 50\n    - destination: {host: other}\n      weight: -5\n";

    #[test]
    fn a_problem_has_file_line_column_and_object() {
        let found = findings(WEIGHT);
        assert!(
            found
                .iter()
                .any(|line| line.starts_with("f.yaml:12:7: VirtualService default/reviews: ")),
            "{found:#?}"
        );
    }

    #[test]
    fn pods_that_would_be_there_are_known() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 80, name: http}]}\n---\n\
            apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a, version: v1}}, spec: {containers: [{name: c, image: i}]}}}\n---\n\
            apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";
        let found = findings(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("subset v2"), "{found:#?}");
    }

    #[test]
    fn only_what_is_wrong_by_itself_forbids_to_apply() {
        let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n";
        let documents = wire_kube::manifest::load("f.yaml", route).expect("parses");
        let alone = check_among(&documents, &[]);
        assert!(!alone.is_empty() && !has_errors(&alone), "{alone:#?}");
        let service = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "name": "http"}]}});
        assert_eq!(check_among(&documents, &[Arc::new(service)]), []);
        let documents = wire_kube::manifest::load("f.yaml", WEIGHT).expect("parses");
        assert!(has_errors(&check_among(&documents, &[])));
    }

    #[test]
    fn a_second_object_of_one_name_is_refused() {
        let found = findings(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
        );
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with("f.yaml:7:12: Namespace")
                && found[0].contains("stands at f.yaml:1:1 already"),
            "{found:#?}"
        );
    }

    #[test]
    fn kinds_are_known_inert_or_unknown() {
        let kind = |api: &str, kind: &str| {
            findings(&format!(
                "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n"
            ))
            .join("\n")
        };
        assert_eq!(kind("coordination.k8s.io/v1", "Lease"), "");
        assert!(
            kind("rbac.authorization.k8s.io/v1", "Role")
                .contains("info: Role default/a: kind: Role has no effect on one machine")
        );
        assert!(kind("example.com/v1", "Widget").contains("not a kind that Tanbark knows"));
    }
}
