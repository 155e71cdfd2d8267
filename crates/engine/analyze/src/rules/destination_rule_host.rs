//! Is there a service for a DestinationRule's host?

use std::sync::Arc;

use ingest::{Domain, Key, Severity, code};
use mesh_model::Service;
use mesh_model::destination_rule::DestinationRule;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "destination_rule_host",
    codes: &[(code::UNKNOWN_RULE_HOST, Severity::Warning)],
    docs: "The host of a DestinationRule matches no service that its namespace can see, so the rule has no effect. A short name is a service of the rule's own namespace.",
    reads: &[Source::Services],
    units: Units::Each {
        kinds: &[Kind::DestinationRule],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::DestinationRule(rule) = domain else {
        return;
    };
    if covered(cx, key, rule).is_empty() {
        let message = format!(
            "{} matches no service that can be seen from namespace {}",
            rule.host, key.namespace
        );
        cx.say(key, code::UNKNOWN_RULE_HOST, "spec.host", message);
    }
}

/// The services that a rule is for, as its namespace sees them.
pub(super) fn covered<'a>(
    cx: &mut Cx<'a>,
    key: &Key,
    rule: &DestinationRule,
) -> Vec<&'a Arc<Service>> {
    if !rule.host.is_wildcard() {
        let service = cx.service(rule.host.as_str(), &key.namespace);
        return service.into_iter().collect();
    }
    cx.visible_services(&key.namespace)
        .filter(|service| rule.host.covers(service.host.as_str()))
        .collect()
}
