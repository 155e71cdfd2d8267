//! Authorization policies. What cannot be evaluated is refused, never guessed: a policy with a hole
//! is no policy.

use std::sync::Arc;

use proxy_config::{
    filter::rbac::{Action, Permission, Policy, Principal, Rbac, Rules},
    matcher::{CidrSet, StringMatcher},
};
use wire_envoy::pb::{
    self,
    matcher::filter_state_matcher,
    rbac::{MetadataSource, permission, principal, rbac::Action as WireAction},
};

use crate::{
    address,
    context::Cx,
    judgement::{enumerated, take},
    matcher,
    reject::{Refusal, Within, each},
    scalar,
};

pub(crate) fn http(cx: &mut Cx, value: pb::http_filters::rbac::v3::Rbac) -> Result<Rbac, Refusal> {
    take!(cx, value => pb::http_filters::rbac::v3::Rbac {
        read { rules, rules_stat_prefix, shadow_rules, shadow_rules_stat_prefix }
        ignore "statistics only" { track_per_rule_stats }
        reject "policies are given as rules" { matcher, shadow_matcher }
    });
    Ok(Rbac {
        rules: rules
            .map(|r| self::rules(cx, r))
            .transpose()
            .within("rules")?,
        shadow_rules: shadow_rules
            .map(|r| self::rules(cx, r))
            .transpose()
            .within("shadow_rules")?,
        shadow_rules_stat_prefix: shadow_rules_stat_prefix.into(),
        rules_stat_prefix: rules_stat_prefix.into(),
        stat_prefix: Arc::from(""),
    })
}

pub(crate) fn network(
    cx: &mut Cx,
    value: pb::network_filters::rbac::v3::Rbac,
) -> Result<Rbac, Refusal> {
    take!(cx, value => pb::network_filters::rbac::v3::Rbac {
        read { rules, shadow_rules, shadow_rules_stat_prefix, stat_prefix }
        ignore "a connection is refused at once" { delay_deny }
        reject "policies are given as rules" { matcher, shadow_matcher }
        reject "a connection is judged once" { enforcement_type }
    });
    Ok(Rbac {
        rules: rules
            .map(|r| self::rules(cx, r))
            .transpose()
            .within("rules")?,
        shadow_rules: shadow_rules
            .map(|r| self::rules(cx, r))
            .transpose()
            .within("shadow_rules")?,
        shadow_rules_stat_prefix: shadow_rules_stat_prefix.into(),
        rules_stat_prefix: Arc::from(""),
        stat_prefix: stat_prefix.into(),
    })
}

fn rules(cx: &mut Cx, value: pb::rbac::Rbac) -> Result<Rules, Refusal> {
    take!(cx, value => pb::rbac::Rbac {
        read { action, policies }
        reject "audit loggers are not supported" { audit_logging_options }
    });
    let mut policies: Vec<_> = policies.into_iter().collect();
    policies.sort_by(|a, b| a.0.cmp(&b.0));
    let action = match enumerated!(action => WireAction, "action")? {
        WireAction::Allow => Action::Allow,
        WireAction::Deny => Action::Deny,
        WireAction::Log => Action::Log,
    };
    let policies = policies
        .into_iter()
        .map(|(name, value)| policy(cx, &name, value).within_key("policies", &name));
    Ok(Rules {
        action,
        policies: policies.collect::<Result<_, _>>()?,
    })
}

fn policy(cx: &mut Cx, name: &str, value: pb::rbac::Policy) -> Result<Policy, Refusal> {
    take!(cx, value => pb::rbac::Policy {
        read { permissions, principals }
        reject "CEL conditions are not supported" { condition, checked_condition, cel_config }
    });
    if permissions.is_empty() || principals.is_empty() {
        return Err(Refusal::at(
            "permissions",
            "and principals need at least one entry each",
        ));
    }
    Ok(Policy {
        name: name.into(),
        permissions: each("permissions", permissions, |p| self::permission(cx, p))?,
        principals: each("principals", principals, |p| self::principal(cx, p))?,
    })
}

/// Depth is bounded by the protobuf decoder's own recursion limit.
fn permission(cx: &mut Cx, value: pb::rbac::Permission) -> Result<Permission, Refusal> {
    use permission::Rule;
    Ok(match value.rule.ok_or_else(|| Refusal::missing("rule"))? {
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => return Err(Refusal::at("any", "must be true")),
        Rule::AndRules(set) => Permission::And(permissions(cx, "and_rules", set)?),
        Rule::OrRules(set) => Permission::Or(permissions(cx, "or_rules", set)?),
        Rule::NotRule(inner) => {
            Permission::Not(Box::new(permission(cx, *inner).within("not_rule")?))
        }
        Rule::Header(header) => Permission::Header(matcher::header(header).within("header")?),
        Rule::UrlPath(path) => Permission::UrlPath(matcher::path(path).within("url_path")?),
        Rule::UriTemplate(template) => {
            Permission::UriTemplate(matcher::uri_template(cx, template).within("uri_template")?)
        }
        Rule::DestinationIp(range) => Permission::DestinationIp(cidr("destination_ip", range)?),
        Rule::DestinationPort(port) => {
            Permission::DestinationPort(scalar::port("destination_port", port)?)
        }
        Rule::DestinationPortRange(pb::kind::Int32Range { start, end }) => {
            let number = |n| {
                u32::try_from(n).map_err(|_| Refusal::at("destination_port_range", "is negative"))
            };
            Permission::DestinationPortRange {
                start: number(start)?,
                end: number(end)?,
            }
        }
        Rule::Metadata(metadata) => {
            Permission::Metadata(matcher::metadata(metadata).within("metadata")?)
        }
        Rule::SourcedMetadata(sourced) => {
            Permission::Metadata(dynamic(sourced).within("sourced_metadata")?)
        }
        Rule::RequestedServerName(name) => {
            Permission::RequestedServerName(matcher::string(name).within("requested_server_name")?)
        }
        Rule::Matcher(extension) => {
            return Err(Refusal::at(
                "matcher",
                format!("{} is not supported as a permission", extension.name),
            ));
        }
    })
}

fn permissions(
    cx: &mut Cx,
    field: &'static str,
    set: pb::rbac::permission::Set,
) -> Result<Arc<[Permission]>, Refusal> {
    nonempty(field, each(field, set.rules, |p| permission(cx, p))?)
}

fn principal(cx: &mut Cx, value: pb::rbac::Principal) -> Result<Principal, Refusal> {
    use principal::Identifier;
    Ok(
        match value
            .identifier
            .ok_or_else(|| Refusal::missing("identifier"))?
        {
            Identifier::Any(true) => Principal::Any,
            Identifier::Any(false) => return Err(Refusal::at("any", "must be true")),
            Identifier::AndIds(set) => Principal::And(principals(cx, "and_ids", set)?),
            Identifier::OrIds(set) => Principal::Or(principals(cx, "or_ids", set)?),
            Identifier::NotId(inner) => {
                Principal::Not(Box::new(principal(cx, *inner).within("not_id")?))
            }
            Identifier::Authenticated(pb::rbac::principal::Authenticated { principal_name }) => {
                Principal::Authenticated(
                    principal_name
                        .map(matcher::string)
                        .transpose()
                        .within("authenticated.principal_name")?,
                )
            }
            Identifier::SourceIp(range) => Principal::SourceIp(cidr("source_ip", range)?),
            Identifier::DirectRemoteIp(range) => {
                Principal::DirectRemoteIp(cidr("direct_remote_ip", range)?)
            }
            Identifier::RemoteIp(range) => Principal::RemoteIp(cidr("remote_ip", range)?),
            Identifier::Header(header) => {
                Principal::Header(matcher::header(header).within("header")?)
            }
            Identifier::UrlPath(path) => {
                Principal::UrlPath(matcher::path(path).within("url_path")?)
            }
            Identifier::Metadata(metadata) => {
                Principal::Metadata(matcher::metadata(metadata).within("metadata")?)
            }
            Identifier::SourcedMetadata(sourced) => {
                Principal::Metadata(dynamic(sourced).within("sourced_metadata")?)
            }
            Identifier::FilterState(state) => {
                let (key, matcher) = filter_state(state).within("filter_state")?;
                Principal::FilterState { key, matcher }
            }
            Identifier::Custom(extension) => {
                return Err(Refusal::at(
                    "custom",
                    format!("{} is not supported as a principal", extension.name),
                ));
            }
        },
    )
}

fn principals(
    cx: &mut Cx,
    field: &'static str,
    set: pb::rbac::principal::Set,
) -> Result<Arc<[Principal]>, Refusal> {
    nonempty(field, each(field, set.ids, |p| principal(cx, p))?)
}

fn nonempty<T>(field: &'static str, items: Arc<[T]>) -> Result<Arc<[T]>, Refusal> {
    if items.is_empty() {
        Err(Refusal::at(field, "needs at least one entry"))
    } else {
        Ok(items)
    }
}

fn cidr(field: &'static str, range: pb::core::CidrRange) -> Result<CidrSet, Refusal> {
    Ok(CidrSet(Arc::from([address::cidr(range).within(field)?])))
}

fn dynamic(
    value: pb::rbac::SourcedMetadata,
) -> Result<proxy_config::matcher::MetadataMatcher, Refusal> {
    let pb::rbac::SourcedMetadata {
        metadata_matcher,
        metadata_source,
    } = value;
    match enumerated!(metadata_source => MetadataSource, "metadata_source")? {
        MetadataSource::Dynamic => {
            matcher::metadata(metadata_matcher.ok_or_else(|| Refusal::missing("metadata_matcher"))?)
        }
        MetadataSource::Route => Err(Refusal::at(
            "metadata_source",
            "metadata of routes is not matched",
        )),
    }
}

fn filter_state(
    value: pb::matcher::FilterStateMatcher,
) -> Result<(Arc<str>, StringMatcher), Refusal> {
    let pb::matcher::FilterStateMatcher { key, matcher } = value;
    match matcher {
        Some(filter_state_matcher::Matcher::StringMatch(text)) => {
            Ok((key.into(), matcher::string(text).within("string_match")?))
        }
        Some(filter_state_matcher::Matcher::AddressMatch(_)) => {
            Err(Refusal::at("address_match", "is not supported"))
        }
        None => Err(Refusal::missing("matcher")),
    }
}

#[cfg(test)]
mod tests;
