//! What a connection to an endpoint is wrapped in.

use std::sync::Arc;

use proxy_config::{
    cluster::{ProxyProtocolVersion, Transport, TransportMatch},
    metadata::Value,
};
use wire_envoy::pb::{
    self,
    core::{proxy_protocol_config::Version, transport_socket::ConfigType},
    transport_sockets::{
        proxy_protocol::v3::ProxyProtocolUpstreamTransport, raw_buffer::v3::RawBuffer,
    },
};

use crate::{
    context::Cx,
    extension::Extension,
    judgement::{enumerated, take},
    metadata,
    reject::{Refusal, Within},
    tls,
};

/// A transport that cannot be read makes no connections.
pub(super) fn socket(cx: &mut Cx, value: Option<pb::core::TransportSocket>) -> Transport {
    let name = value.as_ref().map(|socket| socket.name.clone());
    transport(cx, value).unwrap_or_else(|refusal| {
        let (name, refusal) = (name.unwrap_or_default(), refusal.under("transport_socket"));
        Transport::Refused(cx.refuse(&name, refusal, "no connection is made with it"))
    })
}

pub(super) fn matches(
    cx: &mut Cx,
    values: Vec<pb::cluster::cluster::TransportSocketMatch>,
) -> Result<Arc<[TransportMatch]>, Refusal> {
    cx.each("transport_socket_matches", values, matched)
}

fn transport(cx: &mut Cx, value: Option<pb::core::TransportSocket>) -> Result<Transport, Refusal> {
    let Some(pb::core::TransportSocket {
        name: _,
        config_type,
    }) = value
    else {
        return Ok(Transport::Plaintext);
    };
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    Extension::open(&any)
        .and_then(|e| opened(cx, &e))
        .within("typed_config")
}

fn opened(cx: &mut Cx, extension: &Extension) -> Result<Transport, Refusal> {
    if extension.is::<RawBuffer>() {
        let message: RawBuffer = extension.message(cx)?;
        take!(cx, message => RawBuffer {});
        return Ok(Transport::Plaintext);
    }
    if extension.is::<pb::tls::UpstreamTlsContext>() {
        let context = extension.message(cx)?;
        return tls::upstream(cx, context).map(|t| Transport::Tls(Arc::new(t)));
    }
    if extension.is::<ProxyProtocolUpstreamTransport>() {
        let message: ProxyProtocolUpstreamTransport = extension.message(cx)?;
        take!(cx, message => ProxyProtocolUpstreamTransport {
            read { config, transport_socket }
            ignore "a connection without a known source sends UNKNOWN or LOCAL" { allow_unspecified_address }
            ignore "no TLVs are sent" { tlv_as_pool_key }
        });
        let config = config.unwrap_or_default();
        take!(cx, config => pb::core::ProxyProtocolConfig {
            read { version }
            ignore "TLVs that came in are not passed on" { pass_through_tlvs }
            reject "TLVs are not sent" { added_tlvs }
        });
        let version = match enumerated!(version => Version, "config.version")? {
            Version::V1 => ProxyProtocolVersion::V1,
            Version::V2 => ProxyProtocolVersion::V2,
        };
        let inner = Box::new(transport(cx, transport_socket).within("transport_socket")?);
        if matches!(*inner, Transport::ProxyProtocol { .. }) {
            return Err(Refusal::at(
                "transport_socket",
                "two PROXY headers in a row",
            ));
        }
        return Ok(Transport::ProxyProtocol { version, inner });
    }
    Err(extension.unknown("as a transport socket"))
}

fn matched(
    cx: &mut Cx,
    value: pb::cluster::cluster::TransportSocketMatch,
) -> Result<TransportMatch, Refusal> {
    take!(cx, value => pb::cluster::cluster::TransportSocketMatch { read { name, r#match, transport_socket } });
    let criteria = match metadata::structure(r#match.unwrap_or_default()) {
        Value::Struct(fields) => fields.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        _ => Arc::from([]),
    };
    Ok(TransportMatch {
        name: name.into(),
        criteria,
        transport: socket(cx, transport_socket),
    })
}
