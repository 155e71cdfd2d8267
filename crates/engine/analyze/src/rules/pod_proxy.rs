//! Does a pod that should have a proxy have one?

use ingest::{Domain, Key, Severity, code};
use serde_json::Value;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "pod_proxy",
    codes: &[(code::POD_WITHOUT_PROXY, Severity::Warning)],
    docs: "A running pod of a namespace with injection has no proxy, though nothing says that it should have none: it was started before the label was there. Start it again.",
    reads: &[Source::Objects(Kind::Namespace)],
    units: Units::Each {
        kinds: &[Kind::Pod],
        check,
    },
};

const INJECT: &str = "sidecar.istio.io/inject";

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::Pod(pod) = domain else {
        return;
    };
    if pod.addresses.is_empty() || pod.host_network {
        return;
    }
    let is_injected = cx.namespace_labels(&key.namespace).is_some_and(|labels| {
        labels.value("istio-injection") == Some("enabled")
            || labels.value("istio-injection").is_none() && labels.value("istio.io/rev").is_some()
    });
    let Some(object) = cx.written(key).filter(|_| is_injected) else {
        return;
    };
    let says_no = |place: &str| {
        let value = object.pointer(place).and_then(|map| map.get(INJECT));
        value.and_then(Value::as_str) == Some("false")
    };
    if says_no("/metadata/annotations") || says_no("/metadata/labels") || has_proxy(object) {
        return;
    }
    let message = "has no proxy, although its namespace has injection: start it again";
    cx.say(key, code::POD_WITHOUT_PROXY, "spec.containers", message);
}

fn has_proxy(object: &Value) -> bool {
    ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .filter_map(|place| object.pointer(place)?.as_array())
        .flatten()
        .any(|container| container.get("name").and_then(Value::as_str) == Some("istio-proxy"))
}
