//! Do the selectors of policies, Sidecars and Telemetries select a workload?

use ingest::{Domain, Key, Severity, code};
use wire_kube::kinds::Kind;

use super::policy_scope::scope;
use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "policy_workloads",
    codes: &[(code::NO_MATCHING_WORKLOADS, Severity::Warning)],
    docs: "No workload of the namespace (of any, for an AuthorizationPolicy of the root namespace) has the labels of the selector, so the object has no effect.",
    reads: &[Source::Workloads],
    units: Units::Each {
        kinds: &[
            Kind::PeerAuthentication,
            Kind::AuthorizationPolicy,
            Kind::Sidecar,
            Kind::Telemetry,
        ],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Some((_, Some(selector))) = scope(domain) else {
        return;
    };
    let everywhere =
        key.kind == Kind::AuthorizationPolicy && key.namespace == cx.mesh().root_namespace;
    let namespace = (!everywhere).then_some(&*key.namespace);
    let path = match key.kind {
        Kind::Sidecar => "spec.workloadSelector",
        _ => "spec.selector",
    };
    cx.check_selector(key, path, namespace, selector);
}
