//! `security.istio.io` AuthorizationPolicy: who may do what.

use super::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    struct AuthorizationPolicy {
        selector: Option<WorkloadSelector>,
        /// Deprecated form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        rules: Vec<Rule>,
        action: Action,
        provider: Option<Provider>,
    }
}

names! {
    enum Action {
        Allow = 0 "ALLOW",
        Deny = 1 "DENY",
        Audit = 2 "AUDIT",
        Custom = 3 "CUSTOM",
    }
}

message! {
    struct Provider {
        name: String,
    }
}

message! {
    struct Rule {
        from: Vec<From>,
        to: Vec<To>,
        when: Vec<Condition>,
    }
}

message! {
    struct From {
        source: Option<RuleSource>,
    }
}

message! {
    struct To {
        operation: Option<Operation>,
    }
}

message! {
    struct RuleSource {
        principals: Vec<String>,
        not_principals: Vec<String>,
        request_principals: Vec<String>,
        not_request_principals: Vec<String>,
        namespaces: Vec<String>,
        not_namespaces: Vec<String>,
        service_accounts: Vec<String>,
        not_service_accounts: Vec<String>,
        ip_blocks: Vec<String>,
        not_ip_blocks: Vec<String>,
        remote_ip_blocks: Vec<String>,
        not_remote_ip_blocks: Vec<String>,
        trust_domains: Vec<String>,
        not_trust_domains: Vec<String>,
    }
}

message! {
    struct Operation {
        hosts: Vec<String>,
        not_hosts: Vec<String>,
        ports: Vec<String>,
        not_ports: Vec<String>,
        methods: Vec<String>,
        not_methods: Vec<String>,
        paths: Vec<String>,
        not_paths: Vec<String>,
    }
}

message! {
    struct Condition {
        key: String,
        values: Vec<String>,
        not_values: Vec<String>,
    }
}
