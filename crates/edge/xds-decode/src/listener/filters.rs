//! Listener filters: what is looked at before a chain is chosen.

use std::sync::Arc;

use proxy_config::listener::{ListenerFilter, ListenerFilterKind, ListenerFilterPredicate};
use wire_envoy::pb::{
    self,
    core::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType,
    listener::{listener_filter::ConfigType, listener_filter_chain_match_predicate::Rule},
    listener_filters::{
        http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
        proxy_protocol::v3::ProxyProtocol, tls_inspector::v3::TlsInspector,
    },
};

use crate::{
    context::Cx,
    extension::Extension,
    judgement::take,
    left_out::left_out,
    reject::{Refusal, Within, each},
};

pub(super) fn listener_filter(
    cx: &mut Cx,
    value: pb::listener::ListenerFilter,
) -> Result<Option<ListenerFilter>, Refusal> {
    let pb::listener::ListenerFilter {
        name: _,
        filter_disabled,
        config_type,
    } = value;
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(Refusal::at(
                "config_discovery",
                "filters by reference are not supported",
            ));
        }
        None => return Err(Refusal::missing("typed_config")),
    };
    let extension = Extension::open(&any).within("typed_config")?;
    if let Some(lost) = left_out(&extension.name) {
        cx.note_text(extension.name, lost);
        return Ok(None);
    }
    Ok(Some(ListenerFilter {
        kind: kind(cx, &extension).within("typed_config")?,
        disabled: filter_disabled
            .map(predicate)
            .transpose()
            .within("filter_disabled")?,
    }))
}

fn kind(cx: &mut Cx, extension: &Extension) -> Result<ListenerFilterKind, Refusal> {
    if extension.is::<OriginalDst>() {
        let message: OriginalDst = extension.message(cx)?;
        take!(cx, message => OriginalDst {});
        Ok(ListenerFilterKind::OriginalDst)
    } else if extension.is::<HttpInspector>() {
        let message: HttpInspector = extension.message(cx)?;
        take!(cx, message => HttpInspector {});
        Ok(ListenerFilterKind::HttpInspector)
    } else if extension.is::<TlsInspector>() {
        let message: TlsInspector = extension.message(cx)?;
        take!(cx, message => TlsInspector {
            ignore "no supported matcher reads fingerprints" { enable_ja3_fingerprinting, enable_ja4_fingerprinting }
            ignore "a hello larger than the listener's buffer is refused" { initial_read_buffer_size, max_client_hello_size }
            ignore "what does not parse as TLS is taken as plaintext and matched so" { close_connection_on_client_hello_parsing_errors }
        });
        Ok(ListenerFilterKind::TlsInspector)
    } else if extension.is::<ProxyProtocol>() {
        let message = extension.message(cx)?;
        proxy_protocol(cx, message)
    } else {
        Err(extension.unknown("as a listener filter"))
    }
}

fn proxy_protocol(cx: &mut Cx, value: ProxyProtocol) -> Result<ListenerFilterKind, Refusal> {
    take!(cx, value => ProxyProtocol {
        read { allow_requests_without_proxy_protocol, pass_through_tlvs, disallowed_versions }
        ignore "statistics only" { stat_prefix }
        ignore "TLVs are not kept" { tlv_location }
        reject "TLVs are not kept" { rules }
    });
    if !disallowed_versions.is_empty() {
        return Err(Refusal::at("disallowed_versions", "both versions are read"));
    }
    if let Some(pb::core::ProxyProtocolPassThroughTlVs {
        match_type,
        tlv_type,
    }) = pass_through_tlvs
        && (match_type == PassTlVsMatchType::IncludeAll as i32 || !tlv_type.is_empty())
    {
        cx.note_text(
            "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
            "TLVs are not passed on",
        );
    }
    Ok(ListenerFilterKind::ProxyProtocol {
        allow_without: allow_requests_without_proxy_protocol,
    })
}

/// Depth is bounded by the protobuf decoder's own recursion limit.
fn predicate(
    value: pb::listener::ListenerFilterChainMatchPredicate,
) -> Result<ListenerFilterPredicate, Refusal> {
    Ok(match value.rule.ok_or_else(|| Refusal::missing("rule"))? {
        Rule::AnyMatch(true) => ListenerFilterPredicate::Any,
        Rule::AnyMatch(false) => return Err(Refusal::at("any_match", "must be true")),
        Rule::NotMatch(inner) => {
            ListenerFilterPredicate::Not(Box::new(predicate(*inner).within("not_match")?))
        }
        Rule::AndMatch(set) => {
            ListenerFilterPredicate::And(predicates("and_match.rules", set.rules)?)
        }
        Rule::OrMatch(set) => ListenerFilterPredicate::Or(predicates("or_match.rules", set.rules)?),
        Rule::DestinationPortRange(pb::kind::Int32Range { start, end }) => {
            let number = |n| {
                u32::try_from(n).map_err(|_| Refusal::at("destination_port_range", "is negative"))
            };
            ListenerFilterPredicate::DestinationPort {
                start: number(start)?,
                end: number(end)?,
            }
        }
    })
}

fn predicates(
    field: &'static str,
    rules: Vec<pb::listener::ListenerFilterChainMatchPredicate>,
) -> Result<Arc<[ListenerFilterPredicate]>, Refusal> {
    each(field, rules, predicate)
}
