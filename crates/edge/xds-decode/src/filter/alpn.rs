//! Istio's ALPN override.

use proxy_config::filter::alpn::Alpn;
use wire_envoy::pb::istio::alpn::{
    FilterConfig,
    filter_config::{AlpnOverride, Protocol},
};

use crate::{
    context::Cx,
    judgement::{enumerated, take},
    reject::{Refusal, Within},
    scalar,
};

pub(crate) fn alpn(cx: &mut Cx, value: FilterConfig) -> Result<Alpn, Refusal> {
    take!(cx, value => FilterConfig { read { alpn_override } });
    let mut alpn = Alpn::default();
    for (
        index,
        AlpnOverride {
            upstream_protocol,
            alpn_override,
        },
    ) in alpn_override.into_iter().enumerate()
    {
        let protocol = enumerated!(upstream_protocol => Protocol, "upstream_protocol")
            .within_item("alpn_override", index)?;
        let list = scalar::texts(alpn_override);
        match protocol {
            Protocol::Http10 => alpn.http10 = list,
            Protocol::Http11 => alpn.http11 = list,
            Protocol::Http2 => alpn.http2 = list,
        }
    }
    Ok(alpn)
}
