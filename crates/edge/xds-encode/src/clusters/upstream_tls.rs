//! TLS towards services (rows SEC-031, SEC-033 … SEC-035, TM-049).
//!
//! Without a rule mutual TLS is automatic: endpoints that say so get it, the others plaintext, chosen per endpoint by the metadata that EDS
//! gives them. A rule's `tls` always wins. Where endpoints are not known (original destination), TLS is used if every known one has it.
//!
//! Istio's proxies offer `istio` and let a filter replace it with the HTTP version, which picks the HTTP chain at the other side. A stock
//! Envoy has no such filter, so its HTTP clusters offer the HTTP version themselves, and none of them offers the metadata exchange.

use mesh_model::destination_rule::{ClientTls, ClientTlsMode, ProxyProtocolVersion};
use wire_envoy::pb::{
    cluster::{Cluster, cluster::TransportSocketMatch},
    core, matcher,
    tls::{CommonTlsContext, SdsSecretConfig, UpstreamTlsContext},
    transport_sockets,
};

use super::{
    outbound::Target,
    protocol::{self, Version},
};
use crate::{ClientKind, packed, tls, wire};

/// TLS to something that is not of the mesh: no Istio ALPN.
pub(super) fn is_outside_tls(target: &Target<'_>) -> bool {
    outside_tls(target).is_some()
}

/// The server name is taken from each request.
pub(super) fn names_itself(target: &Target<'_>) -> bool {
    outside_tls(target).is_some_and(|settings| settings.sni.is_none())
}

/// The certificate must be for the host of the request, because nothing else says whom to expect.
pub(super) fn verifies_host(target: &Target<'_>) -> bool {
    outside_tls(target).is_some_and(|settings| {
        !settings.insecure_skip_verify && names(target, settings).is_empty()
    })
}

fn outside_tls<'a>(target: &'a Target<'_>) -> Option<&'a ClientTls> {
    target
        .policy
        .tls
        .as_ref()
        .filter(|settings| matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual))
}

pub(super) fn apply(target: &Target<'_>, cluster: &mut Cluster) {
    let socket = match &target.policy.tls {
        Some(settings) => match settings.mode {
            ClientTlsMode::Disable => None,
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                Some(tls_socket(&outside(target, settings)))
            }
            ClientTlsMode::IstioMutual => Some(tls_socket(&mesh_context(target, Some(settings)))),
        },
        None if !target.inputs.mesh.auto_mtls || !target.of.takes_mtls => None,
        None if target.has_fixed_destination() => {
            let all = target.of.all_mesh_tls.contains(&target.port.number);
            all.then(|| tls_socket(&mesh_context(target, None)))
        }
        None => {
            let version = target.policy.proxy_protocol;
            let on = with_proxy_protocol(version, Some(tls_socket(&mesh_context(target, None))));
            let off = with_proxy_protocol(version, Some(raw("envoy.transport_sockets.raw_buffer")));
            cluster.transport_socket_matches = vec![
                matching("tlsMode-istio", serde_json::json!({"tlsMode": "istio"}), on),
                matching("tlsMode-disabled", serde_json::json!({}), off),
            ];
            return;
        }
    };
    cluster.transport_socket = with_proxy_protocol(target.policy.proxy_protocol, socket);
}

fn matching(
    name: &str,
    labels: serde_json::Value,
    socket: Option<core::TransportSocket>,
) -> TransportSocketMatch {
    TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(wire_envoy::structs::from_json(&labels).unwrap_or_default()),
        transport_socket: socket,
    }
}

fn tls_socket(context: &UpstreamTlsContext) -> core::TransportSocket {
    wire::transport_socket(tls::SOCKET, context)
}

fn raw(name: &str) -> core::TransportSocket {
    wire::transport_socket(name, &transport_sockets::raw_buffer::v3::RawBuffer {})
}

/// Puts a PROXY header before what a socket sends.
fn with_proxy_protocol(
    version: Option<ProxyProtocolVersion>,
    socket: Option<core::TransportSocket>,
) -> Option<core::TransportSocket> {
    use transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
    let Some(version) = version else {
        return socket;
    };
    let version = match version {
        ProxyProtocolVersion::V1 => core::proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => core::proxy_protocol_config::Version::V2,
    };
    let transport = ProxyProtocolUpstreamTransport {
        config: Some(core::ProxyProtocolConfig {
            version: version.into(),
            ..Default::default()
        }),
        transport_socket: Some(socket.unwrap_or_else(|| raw("raw_buffer"))),
        ..Default::default()
    };
    let config = core::transport_socket::ConfigType::TypedConfig(packed(&transport));
    Some(core::TransportSocket {
        name: "envoy.transport_sockets.upstream_proxy_protocol".to_owned(),
        config_type: Some(config),
    })
}

/// Mutual TLS with the workload's certificate.
fn mesh_context(target: &Target<'_>, settings: Option<&ClientTls>) -> UpstreamTlsContext {
    let named = settings
        .map(|settings| settings.subject_alt_names.as_ref())
        .unwrap_or_default();
    let accounts = if named.is_empty() {
        &target.of.accounts
    } else {
        named
    };
    let peers: Vec<matcher::StringMatcher> =
        accounts.iter().map(|name| wire::exact(&**name)).collect();
    let sni = settings
        .and_then(|settings| settings.sni.as_deref())
        .map_or_else(|| target.name.sni(), str::to_owned);
    let context = tls::workload_context(offered(target), peers);
    UpstreamTlsContext {
        common_tls_context: Some(context),
        sni,
        ..Default::default()
    }
}

/// ALPN towards the mesh.
fn offered(target: &Target<'_>) -> Vec<String> {
    let version = protocol::version(target);
    if target.inputs.client.is_envoy_without_istio_filters {
        return match version {
            Version::Http2 => tls::alpn(&["istio-h2", "istio", "h2"]),
            Version::Http1 if target.port.protocol.is_http() => {
                tls::alpn(&["istio-http/1.1", "istio", "http/1.1"])
            }
            _ => tls::alpn(&["istio"]),
        };
    }
    match version {
        Version::Http2 => tls::alpn(&["istio-peer-exchange", "istio", "h2"]),
        _ => tls::alpn(&["istio-peer-exchange", "istio"]),
    }
}

/// TLS by the rule's own certificates and names.
fn outside(target: &Target<'_>, settings: &ClientTls) -> UpstreamTlsContext {
    let is_gateway = target.inputs.client.kind == ClientKind::Gateway;
    let credential = settings.credential_name.as_deref().filter(|_| is_gateway);
    let mut context = CommonTlsContext {
        tls_params: Some(tls::client_parameters()),
        ..Default::default()
    };
    if settings.mode == ClientTlsMode::Mutual {
        context.tls_certificate_sds_secret_configs = client_certificate(settings, credential)
            .into_iter()
            .collect();
    }
    if !settings.insecure_skip_verify {
        let roots = match credential {
            Some(name) => tls::control_plane_secret(&format!("kubernetes://{name}-cacert")),
            None => tls::file_roots(
                settings.ca_certificates.as_deref().unwrap_or("system"),
                settings.ca_crl.as_ref(),
            ),
        };
        context.validation_context_type = Some(tls::validation(roots, names(target, settings)));
    }
    if protocol::version(target) == Version::Http2 {
        context.alpn_protocols = tls::alpn(&["h2"]);
    }
    UpstreamTlsContext {
        common_tls_context: Some(context),
        sni: settings.sni.as_deref().unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

fn client_certificate(settings: &ClientTls, credential: Option<&str>) -> Option<SdsSecretConfig> {
    match (
        credential,
        &settings.client_certificate,
        &settings.private_key,
    ) {
        (Some(name), _, _) => Some(tls::control_plane_secret(&format!("kubernetes://{name}"))),
        (None, Some(certificate), Some(key)) => Some(tls::file_certificate(certificate, key)),
        _ => None,
    }
}

/// Names that the server's certificate must have one of: the rule's, else the service's.
fn names(target: &Target<'_>, settings: &ClientTls) -> Vec<matcher::StringMatcher> {
    let own = &settings.subject_alt_names;
    let wanted = if own.is_empty() {
        &target.of.service.subject_alt_names
    } else {
        own
    };
    wanted.iter().map(|name| wire::exact(&**name)).collect()
}
