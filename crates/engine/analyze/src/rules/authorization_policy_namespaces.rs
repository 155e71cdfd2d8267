//! Do the namespaces exist from which an AuthorizationPolicy takes requests?

use ingest::{Domain, Key, Severity, code};
use serde_json::Value;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "authorization_policy_namespaces",
    codes: &[(code::REFERENCE_NOT_FOUND, Severity::Error)],
    docs: "A source names a namespace that does not exist, so it matches nobody. Names with `*` and `notNamespaces` are passed over, and nothing is said while no Namespace is known at all.",
    reads: &[Source::Objects(Kind::Namespace)],
    units: Units::Each {
        kinds: &[Kind::AuthorizationPolicy],
        check,
    },
};

/// Walks the object as it was written, so that paths are exact.
fn check(cx: &mut Cx, key: &Key, _domain: &Domain) {
    let Some(object) = cx.written(key) else {
        return;
    };
    for (rule, value) in items(object.pointer("/spec/rules")) {
        for (from, value) in items(value.get("from")) {
            for (index, name) in items(value.pointer("/source/namespaces")) {
                let path = format!("spec.rules[{rule}].from[{from}].source.namespaces[{index}]");
                namespace(cx, key, path, name);
            }
        }
    }
}

fn items(value: Option<&Value>) -> impl Iterator<Item = (usize, &Value)> {
    let items = value.and_then(Value::as_array);
    items.into_iter().flatten().enumerate()
}

fn namespace(cx: &mut Cx, key: &Key, path: String, name: &Value) {
    let Some(name) = name.as_str().filter(|name| !name.contains('*')) else {
        return;
    };
    if cx.namespace_labels(&name.into()).is_some() || !cx.any_namespace() {
        return;
    }
    let message = format!("no Namespace {name} exists: this matches nobody");
    cx.say(key, code::REFERENCE_NOT_FOUND, path, message);
}
