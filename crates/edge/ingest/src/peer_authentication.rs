//! PeerAuthentication: whether a workload takes mutual TLS only (reference row SEC-030).

use mesh_model::PeerAuthentication;
use mesh_model::peer_authentication::MtlsMode;
use wire_kube::istio::peer_authentication as wire;

use crate::cx::Cx;
use crate::value::selector;

pub fn parse(cx: &mut Cx, spec: wire::PeerAuthentication) -> Option<PeerAuthentication> {
    let wire::PeerAuthentication {
        selector: who,
        mtls,
        port_level_mtls,
    } = spec;
    let selector = selector(cx, who);
    if selector.is_none() && !port_level_mtls.is_empty() {
        cx.error_at(
            "portLevelMtls",
            "needs a selector: ports are those of a workload",
        );
    }
    let port_level = cx.within("portLevelMtls", |cx| {
        let mut ports = Vec::new();
        for (port, mtls) in &port_level_mtls {
            cx.within(port, |cx| match port.parse::<u16>() {
                Ok(number) if number > 0 => ports.push((number, mode(mtls))),
                _ => cx.error(format!("{port:?} is not a port from 1 to 65535")),
            });
        }
        ports
    });
    let mode = mtls.as_ref().and_then(mode);
    Some(PeerAuthentication {
        meta: cx.meta.clone(),
        selector,
        mode,
        port_level: port_level.into(),
    })
}

fn mode(value: &wire::MutualTls) -> Option<MtlsMode> {
    let wire::MutualTls { mode } = value;
    match mode {
        wire::MutualTlsMode::Unset => None,
        wire::MutualTlsMode::Disable => Some(MtlsMode::Disable),
        wire::MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        wire::MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}
