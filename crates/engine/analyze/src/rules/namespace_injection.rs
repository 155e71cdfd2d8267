//! Do the pods of a namespace get a proxy, and is it clear which?

use ingest::{Domain, Key, Severity, code};
use mesh_model::object::Labels;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "namespace_injection",
    codes: &[
        (code::NAMESPACE_NOT_INJECTED, Severity::Info),
        (code::INJECTION_LABELS, Severity::Warning),
    ],
    docs: "A namespace in which something runs has no label for injection, so its pods get no proxy: no mutual TLS, no policy, no telemetry. Or it has labels of both kinds, of which one is not obeyed. Namespaces of the system and of the control plane are passed over.",
    reads: &[Source::Workloads],
    units: Units::Each {
        kinds: &[Kind::Namespace],
        check,
    },
};

const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const DATAPLANE: &str = "istio.io/dataplane-mode";
const SYSTEM: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::Namespace(meta) = domain else {
        return;
    };
    let has = |label: &str| meta.labels.value(label).is_some();
    if has(INJECTION) && has(REVISION) {
        let message = format!(
            "has both {INJECTION} and {REVISION}: only the first is obeyed; remove one of them"
        );
        cx.say(key, code::INJECTION_LABELS, "metadata.labels", message);
    }
    let name = &key.name;
    let is_system = SYSTEM.contains(&&**name) || *name == cx.mesh().root_namespace;
    if is_system || [INJECTION, REVISION, DATAPLANE].into_iter().any(has) || has_own(&meta.labels) {
        return;
    }
    if cx.runs_without_proxy(name) {
        let message = format!(
            "its pods get no proxy: label it with {INJECTION}=enabled (or disabled, if that is meant) and start them again"
        );
        cx.say(
            key,
            code::NAMESPACE_NOT_INJECTED,
            "metadata.labels",
            message,
        );
    }
}

/// Istio's own namespaces say what they are.
fn has_own(labels: &Labels) -> bool {
    labels.value("istio-operator-managed").is_some()
}
