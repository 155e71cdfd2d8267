//! Does a Gateway's selector select a workload?

use ingest::{Domain, Key, Severity, code};
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "gateway_workloads",
    codes: &[(code::NO_MATCHING_WORKLOADS, Severity::Warning)],
    docs: "No workload of any namespace has the labels of the Gateway's selector, so nothing opens its ports.",
    reads: &[Source::Workloads],
    units: Units::Each {
        kinds: &[Kind::Gateway],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    if let Domain::Gateway(gateway) = domain {
        cx.check_selector(key, "spec.selector", None, &gateway.selector);
    }
}
