//! AuthorizationPolicies as Envoy's RBAC filters (rows SEC-050 … SEC-056).
//!
//! One filter each for CUSTOM (not supported yet: what its rules match is denied), AUDIT, DENY and ALLOW, in this order. Policies that are
//! only tried out become shadow rules. On TCP, parts of a rule that only HTTP has are left out where that makes the rule stricter (AUDIT,
//! DENY), and make an ALLOW rule match nothing, and a CUSTOM rule too: its service would never be asked about such traffic.

use std::{collections::HashMap, sync::Arc};

use mesh_model::{
    AuthorizationPolicy, MeshConfig,
    authorization_policy::{PolicyAction, Rule},
};
use wire_envoy::pb::{
    Any,
    envoy::extensions::filters::{http::rbac::v3 as http, network::rbac::v3 as network},
    hcm::{HttpFilter, http_filter},
    listener::{Filter, filter},
    rbac::{Permission, Policy, Principal, Rbac, permission, principal, rbac::Action},
};

use crate::packed;

mod matchers;
mod permissions;
mod principals;

/// What the policies protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Http,
    Tcp,
}

/// A part of a rule as a list of alternatives.
enum Part<T> {
    Is(T),
    /// Only HTTP has it, and this is TCP.
    Inapplicable,
}

/// Rules of one filter and of those that are only tried out.
struct Rules {
    action: Action,
    enforced: Option<Rbac>,
    shadow: Option<Rbac>,
}

impl Rules {
    /// Statistics of what is only tried out; Istio names those of denials apart only where there are any.
    fn shadow_prefix(&self) -> String {
        let denies = self.action == Action::Deny && self.shadow.is_some();
        if denies {
            "istio_dry_run_deny_".to_owned()
        } else {
            "istio_dry_run_allow_".to_owned()
        }
    }
}

/// Filters for HTTP requests.
pub(crate) fn http_filters(
    policies: &[Arc<AuthorizationPolicy>],
    mesh: &MeshConfig,
) -> Vec<HttpFilter> {
    let filter = |rules: Rules| {
        let config = http::Rbac {
            shadow_rules_stat_prefix: rules.shadow_prefix(),
            rules: rules.enforced,
            shadow_rules: rules.shadow,
            ..Default::default()
        };
        HttpFilter {
            name: "envoy.filters.http.rbac".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(packed(&config))),
            ..Default::default()
        }
    };
    all_rules(policies, mesh, Traffic::Http)
        .map(filter)
        .collect()
}

/// Filters for connections.
pub(crate) fn network_filters(
    policies: &[Arc<AuthorizationPolicy>],
    mesh: &MeshConfig,
) -> Vec<Filter> {
    let filter = |rules: Rules| {
        let config = network::Rbac {
            stat_prefix: "tcp.".to_owned(),
            shadow_rules_stat_prefix: rules.shadow_prefix(),
            rules: rules.enforced,
            shadow_rules: rules.shadow,
            ..Default::default()
        };
        let typed: Any = packed(&config);
        Filter {
            name: "envoy.filters.network.rbac".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(typed)),
        }
    };
    all_rules(policies, mesh, Traffic::Tcp)
        .map(filter)
        .collect()
}

/// A filter that denies or reports nothing is left out; one that allows nothing is not.
fn all_rules<'a>(
    policies: &'a [Arc<AuthorizationPolicy>],
    mesh: &'a MeshConfig,
    traffic: Traffic,
) -> impl Iterator<Item = Rules> + 'a {
    type Wanted = fn(&PolicyAction) -> bool;
    let kinds: [(Action, Wanted); 4] = [
        (Action::Deny, |action| {
            matches!(action, PolicyAction::Custom { .. })
        }),
        (Action::Log, |action| matches!(action, PolicyAction::Audit)),
        (Action::Deny, |action| matches!(action, PolicyAction::Deny)),
        (Action::Allow, |action| {
            matches!(action, PolicyAction::Allow)
        }),
    ];
    kinds.into_iter().filter_map(move |(action, wanted)| {
        let chosen = |dry_run: bool| {
            policies
                .iter()
                .filter(|policy| wanted(&policy.action) && policy.dry_run == dry_run)
                .collect::<Vec<_>>()
        };
        let matters = |rules: &Rbac| action == Action::Allow || !rules.policies.is_empty();
        let rules = |policies: Vec<&Arc<AuthorizationPolicy>>| {
            (!policies.is_empty())
                .then(|| rbac(&policies, action, mesh, traffic))
                .filter(matters)
        };
        let (enforced, shadow) = (rules(chosen(false)), rules(chosen(true)));
        (enforced.is_some() || shadow.is_some()).then_some(Rules {
            action,
            enforced,
            shadow,
        })
    })
}

fn rbac(
    policies: &[&Arc<AuthorizationPolicy>],
    action: Action,
    mesh: &MeshConfig,
    traffic: Traffic,
) -> Rbac {
    let mut named = HashMap::new();
    for policy in policies {
        let name = |index: usize| {
            format!(
                "ns[{}]-policy[{}]-rule[{index}]",
                policy.meta.namespace(),
                policy.meta.name()
            )
        };
        if policy.rules.is_empty() {
            named.insert(name(0), never());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let needs_every_part = matches!(
                policy.action,
                PolicyAction::Allow | PolicyAction::Custom { .. }
            );
            let scope = Scope {
                needs_every_part,
                traffic,
                mesh,
                namespace: policy.meta.namespace(),
            };
            if let Some(encoded) = scope.policy(rule) {
                named.insert(name(index), encoded);
            }
        }
    }
    Rbac {
        action: action.into(),
        policies: named,
        ..Default::default()
    }
}

/// A policy without rules matches nothing.
fn never() -> Policy {
    let nothing = permission::Rule::NotRule(Box::new(permissions::any()));
    let nobody = principal::Identifier::NotId(Box::new(principals::any()));
    Policy {
        permissions: vec![Permission {
            rule: Some(nothing),
        }],
        principals: vec![Principal {
            identifier: Some(nobody),
        }],
        ..Default::default()
    }
}

/// What a rule's encoding depends on beside the rule.
struct Scope<'a> {
    /// A rule with a part that does not apply matches nothing; otherwise the part is left out.
    needs_every_part: bool,
    traffic: Traffic,
    mesh: &'a MeshConfig,
    /// Of the policy.
    namespace: &'a str,
}

impl Scope<'_> {
    /// `None`: the rule cannot match on TCP.
    fn policy(&self, rule: &Rule) -> Option<Policy> {
        let permissions = if rule.to.is_empty() {
            vec![self.permission(None, &rule.when)?]
        } else {
            rule.to
                .iter()
                .map(|to| self.permission(Some(to), &rule.when))
                .collect::<Option<_>>()?
        };
        let principals = if rule.from.is_empty() {
            vec![self.principal(None, &rule.when)?]
        } else {
            rule.from
                .iter()
                .map(|from| self.principal(Some(from), &rule.when))
                .collect::<Option<_>>()?
        };
        Some(Policy {
            permissions,
            principals,
            ..Default::default()
        })
    }

    /// `None`: the rule matches nothing on this traffic.
    fn applicable<T>(&self, parts: Vec<Part<T>>) -> Option<Vec<T>> {
        let mut found = Vec::new();
        for part in parts {
            match part {
                Part::Is(value) => found.push(value),
                Part::Inapplicable if self.needs_every_part => return None,
                Part::Inapplicable => {}
            }
        }
        Some(found)
    }

    fn http_only<T>(&self, part: T) -> Part<T> {
        match self.traffic {
            Traffic::Http => Part::Is(part),
            Traffic::Tcp => Part::Inapplicable,
        }
    }
}
