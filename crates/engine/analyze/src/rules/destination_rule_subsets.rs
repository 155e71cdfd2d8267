//! Do the subsets of a DestinationRule have pods?

use ingest::{Domain, Key, Severity, code};
use mesh_model::Service;
use mesh_model::destination_rule::DestinationRule;
use wire_kube::kinds::Kind;

use super::destination_rule_host::covered;
use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "destination_rule_subsets",
    codes: &[(code::SUBSET_WITHOUT_PODS, Severity::Error)],
    docs: "No endpoint of the service has the labels of a subset, so requests that a route sends to it get 503. A service without any endpoint is nobody's mistake and is passed over.",
    reads: &[Source::Services, Source::Endpoints],
    units: Units::Each {
        kinds: &[Kind::DestinationRule],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::DestinationRule(rule) = domain else {
        return;
    };
    if rule.subsets.is_empty() {
        return;
    }
    for service in covered(cx, key, rule) {
        subsets(cx, key, rule, service);
    }
}

fn subsets(cx: &mut Cx, key: &Key, rule: &DestinationRule, service: &Service) {
    let Some(endpoints) = cx.endpoints_of(service) else {
        return;
    };
    let all: Vec<_> = endpoints
        .ports
        .values()
        .flat_map(|list| list.iter())
        .collect();
    if all.is_empty() {
        return;
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        if !subset.labels.0.is_empty() && !all.iter().any(|e| subset.labels.selects(&e.labels)) {
            let message = format!(
                "no endpoint of {} has the labels of subset {}: requests for it get 503",
                service.host, subset.name
            );
            let path = format!("spec.subsets[{index}]");
            cx.say(key, code::SUBSET_WITHOUT_PODS, path, message);
        }
    }
}
