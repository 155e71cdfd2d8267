//! The rules, one per file. To add one: write `<kind>_<rule>.rs` with a `RULE`, its code in
//! `ingest::code`, and a case in `tests/cases`.

use crate::rule::Rule;

mod authorization_policy_namespaces;
mod destination_rule_conflicts;
mod destination_rule_host;
mod destination_rule_mutual_tls;
mod destination_rule_subsets;
mod gateway_certificates;
mod gateway_conflicts;
mod gateway_credentials;
mod gateway_ports;
mod gateway_workloads;
mod namespace_injection;
mod pod_proxy;
mod policy_overlap;
mod policy_scope;
mod policy_workloads;
mod virtual_service_delegates;
mod virtual_service_destinations;
mod virtual_service_gateways;
mod virtual_service_hosts;
mod virtual_service_matches;

/// Every rule, in order of its name.
pub static RULES: &[Rule] = &[
    authorization_policy_namespaces::RULE,
    destination_rule_conflicts::RULE,
    destination_rule_host::RULE,
    destination_rule_mutual_tls::RULE,
    destination_rule_subsets::RULE,
    gateway_certificates::RULE,
    gateway_conflicts::RULE,
    gateway_credentials::RULE,
    gateway_ports::RULE,
    gateway_workloads::RULE,
    namespace_injection::RULE,
    pod_proxy::RULE,
    policy_overlap::RULE,
    policy_scope::RULE,
    policy_workloads::RULE,
    virtual_service_delegates::RULE,
    virtual_service_destinations::RULE,
    virtual_service_gateways::RULE,
    virtual_service_hosts::RULE,
    virtual_service_matches::RULE,
];
