use proxy_config::filter::rbac::{Action, Permission, Principal, Rbac};

use crate::{
    reject::Reject,
    testing::{decode, refused},
};

fn rbac(yaml: &str) -> Result<Rbac, Reject> {
    decode(yaml, super::http)
}

#[test]
fn policies_are_ordered_by_name() {
    let policy = "{permissions: [{any: true}], principals: [{any: true}]}";
    let found = rbac(&format!(
        "{{rules: {{action: DENY, policies: {{'ns[b]-policy[z]': {policy}, 'ns[b]-policy[a]': {policy}}}}}}}"
    ));
    let rules = found.expect("decoded").rules.expect("given");
    assert_eq!(rules.action, Action::Deny);
    assert_eq!(
        (&*rules.policies[0].name, &*rules.policies[1].name),
        ("ns[b]-policy[a]", "ns[b]-policy[z]")
    );
}

#[test]
fn istios_usual_conditions_are_read() {
    let found = rbac(
        "{rules: {policies: {p: {permissions: [{and_rules: {rules: [{or_rules: {rules: [{header: {name: ':method', string_match: {exact: GET}}}]}}, \
         {not_rule: {destination_port: 80}}, {url_path: {path: {prefix: /a}}}]}}], \
         principals: [{and_ids: {ids: [{filter_state: {key: io.istio.peer_principal, string_match: {suffix: /sa/b}}}, \
         {remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}, {not_id: {authenticated: {principal_name: {exact: x}}}}]}}]}}}}",
    );
    let rules = found.expect("decoded").rules.expect("given");
    let Permission::And(permissions) = &rules.policies[0].permissions[0] else {
        panic!("another permission")
    };
    assert_eq!(
        permissions[1],
        Permission::Not(Box::new(Permission::DestinationPort(80)))
    );
    let Principal::And(principals) = &rules.policies[0].principals[0] else {
        panic!("another principal")
    };
    assert!(
        matches!(&principals[0], Principal::FilterState { key, matcher } if &**key == "io.istio.peer_principal" && matcher.is_match("a/sa/b"))
    );
    assert!(matches!(&principals[2], Principal::Not(_)));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let policy = |permission: &str, more: &str| {
        rbac(&format!(
            "{{rules: {{policies: {{p: {{permissions: [{permission}], principals: [{{any: true}}]{more}}}}}}}}}"
        ))
    };
    let place = "rules.policies[p].permissions[0].";
    assert_eq!(
        refused(policy("{matcher: {name: x}}", "")).0,
        format!("{place}matcher")
    );
    assert_eq!(refused(policy("{any: false}", "")).0, format!("{place}any"));
    assert_eq!(
        refused(policy("{or_rules: {rules: []}}", "")).0,
        format!("{place}or_rules")
    );
    assert_eq!(
        refused(policy("{any: true}", ", condition: {id: 1}")).0,
        "rules.policies[p].condition"
    );
    assert_eq!(refused(policy("", "")).0, "rules.policies[p].permissions");
    assert!(rbac("{matcher: {}}").is_err());
}

#[test]
fn shadow_rules_and_no_rules_are_told_apart() {
    let found =
        rbac("{shadow_rules: {policies: {}}, shadow_rules_stat_prefix: istio_dry_run_allow_}")
            .expect("decoded");
    assert!(found.rules.is_none() && found.shadow_rules.is_some());
    assert_eq!(&*found.shadow_rules_stat_prefix, "istio_dry_run_allow_");
}
