//! The rules, one per file. To add one: write `<kind>_<rule>.rs` with a `RULE`, its code in
//! `ingest::code`, and a case in `tests/cases`.

use crate::rule::Rule;

mod destination_rule_conflicts;
mod destination_rule_host;
mod destination_rule_mutual_tls;
mod destination_rule_subsets;
mod gateway_conflicts;
mod gateway_credentials;
mod gateway_workloads;
mod policy_scope;
mod policy_workloads;
mod virtual_service_delegates;
mod virtual_service_destinations;
mod virtual_service_gateways;
mod virtual_service_hosts;

/// Every rule, in order of its name.
pub static RULES: &[Rule] = &[
    destination_rule_conflicts::RULE,
    destination_rule_host::RULE,
    destination_rule_mutual_tls::RULE,
    destination_rule_subsets::RULE,
    gateway_conflicts::RULE,
    gateway_credentials::RULE,
    gateway_workloads::RULE,
    policy_scope::RULE,
    policy_workloads::RULE,
    virtual_service_delegates::RULE,
    virtual_service_destinations::RULE,
    virtual_service_gateways::RULE,
    virtual_service_hosts::RULE,
];
