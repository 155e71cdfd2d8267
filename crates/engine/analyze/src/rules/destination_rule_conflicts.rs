//! What the merge of DestinationRules for one host leaves out.

use ingest::snapshot::belong_together;
use ingest::{Domain, Key, Severity, code};
use mesh_model::destination_rule::{DestinationRule, TrafficPolicy};
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Units};

pub(super) const RULE: Rule = Rule {
    name: "destination_rule_conflicts",
    codes: &[(code::RULE_CONFLICT, Severity::Warning)],
    docs: "DestinationRules of one namespace for one host, with equal exportTo and workloadSelector, are put together. Where more than one has a trafficPolicy, or a subset of the same name, the oldest holds and the others' part has no effect.",
    reads: &[],
    units: Units::Claims {
        kinds: &[Kind::DestinationRule],
        claims,
        check,
    },
};

fn rule(domain: &Domain) -> Option<&DestinationRule> {
    match domain {
        Domain::DestinationRule(rule) => Some(rule),
        _ => None,
    }
}

fn claims(key: &Key, domain: &Domain) -> Vec<String> {
    let host = rule(domain).map(|rule| format!("{} {}", key.namespace, rule.host));
    host.into_iter().collect()
}

fn check(cx: &mut Cx, _host: &str, objects: &[(&Key, &Domain)]) {
    let mut rules: Vec<(&Key, &DestinationRule)> = objects
        .iter()
        .filter_map(|(key, domain)| Some((*key, rule(domain)?)))
        .collect();
    rules.sort_by_key(|(_, rule)| rule.meta.precedence());
    for (index, (key, rule)) in rules.iter().enumerate() {
        let older: Vec<_> = rules
            .iter()
            .take(index)
            .filter(|(_, other)| belong_together(other, rule))
            .collect();
        policy(cx, key, rule, &older);
        subsets(cx, key, rule, &older);
    }
}

fn policy(cx: &mut Cx, key: &Key, rule: &DestinationRule, older: &[&(&Key, &DestinationRule)]) {
    let none = TrafficPolicy::default();
    let Some((first, _)) = older.first() else {
        return;
    };
    if rule.policy == none || older.iter().all(|(_, other)| other.policy == none) {
        return;
    }
    let message = format!(
        "{first} is for host {} too and is older, so its trafficPolicy holds and this one does not",
        rule.host
    );
    cx.say(key, code::RULE_CONFLICT, "spec.trafficPolicy", message);
}

fn subsets(cx: &mut Cx, key: &Key, rule: &DestinationRule, older: &[&(&Key, &DestinationRule)]) {
    for (number, subset) in rule.subsets.iter().enumerate() {
        let has = |other: &DestinationRule| other.subsets.iter().any(|s| s.name == subset.name);
        let Some((other, _)) = older.iter().find(|(_, other)| has(other)) else {
            continue;
        };
        let message = format!(
            "{other} has a subset {} for host {} too and is older, so this one does not hold",
            subset.name, rule.host
        );
        let path = format!("spec.subsets[{number}].name");
        cx.say(key, code::RULE_CONFLICT, path, message);
    }
}
