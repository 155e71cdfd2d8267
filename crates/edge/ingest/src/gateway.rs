//! Gateway: what a load balancer at the edge listens for (reference rows TM-070 … TM-079).

use mesh_model::Gateway;
use mesh_model::Host;
use mesh_model::gateway::{
    GatewayHost, Server, ServerCertificates, ServerTls, TerminateMode, TerminateTls, TlsVersion,
};
use mesh_model::object::Text;
use mesh_model::port::Protocol;
use wire_kube::istio::gateway as wire;

use crate::cx::Cx;
use crate::value::{checked_labels, declared_port, is_dns_label, text, texts};

/// What Istio lets a server offer.
const CIPHER_SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
    "AES256-SHA",
    "AES128-SHA",
    "DES-CBC3-SHA",
];

pub fn parse(cx: &mut Cx, spec: wire::Gateway) -> Option<Gateway> {
    let wire::Gateway { servers, selector } = spec;
    if servers.is_empty() {
        cx.error_at("servers", "at least one server is needed");
    }
    let selector = cx.within("selector", |cx| checked_labels(cx, &selector));
    if selector.is_none() {
        cx.within("selector", |cx| {
            cx.warning("without a selector the gateway is taken by every gateway workload")
        });
    }
    let servers = cx.collect("servers", servers, server);
    for (index, server) in servers.iter().enumerate() {
        let same_name =
            |before: &&Server| before.port.name == server.port.name && !server.port.name.is_empty();
        if servers.iter().take(index).any(|before| same_name(&before)) {
            cx.error_at(
                "servers",
                format!("two ports are named {:?}", &*server.port.name),
            );
        }
    }
    Some(Gateway {
        meta: cx.meta.clone(),
        selector: selector.unwrap_or_default(),
        servers: servers.into(),
    })
}

fn server(cx: &mut Cx, value: wire::Server) -> Option<Server> {
    let wire::Server {
        port,
        bind,
        hosts,
        tls,
        default_endpoint,
        name,
    } = value;
    cx.unsupported("defaultEndpoint", !default_endpoint.is_empty());
    let Some(port) = port else {
        cx.error_at("port", "is needed");
        return None;
    };
    let port = cx.within("port", |cx| {
        let wire::Port {
            number,
            protocol,
            name,
            target_port,
        } = port;
        cx.unsupported("targetPort", target_port != 0);
        if name.is_empty() {
            cx.error_at("name", "is needed");
        }
        if protocol.is_empty() {
            cx.error_at("protocol", "is needed");
        }
        declared_port(cx, number, &protocol, &name)
    });
    if hosts.is_empty() {
        cx.error_at("hosts", "at least one host is needed");
    }
    let hosts = cx.collect("hosts", &hosts, |cx, host| gateway_host(cx, host));
    let protocol = port.as_ref().map(|p| p.protocol);
    let tls = server_tls(cx, protocol, tls);
    Some(Server {
        port: port?,
        bind: text(&bind),
        hosts: hosts.into(),
        tls: tls?,
        name: text(&name),
    })
}

/// `host`, `namespace/host`, `./host`, `*/host`.
fn gateway_host(cx: &mut Cx, written: &str) -> Option<GatewayHost> {
    let (namespace, host) = match written.split_once('/') {
        None => (None, written),
        Some(("*", host)) => (None, host),
        Some((".", host)) => (Some(cx.namespace().clone()), host),
        Some((namespace, host)) if is_dns_label(namespace) => (Some(namespace.into()), host),
        Some((namespace, _)) => {
            cx.error(format!(
                "{namespace:?} is not a namespace: write namespace/host, ./host or */host"
            ));
            return None;
        }
    };
    match Host::parse(host) {
        Ok(host) => Some(GatewayHost { namespace, host }),
        Err(e) => {
            cx.error(e.to_string());
            None
        }
    }
}

fn server_tls(
    cx: &mut Cx,
    protocol: Option<Protocol>,
    tls: Option<wire::ServerTlsSettings>,
) -> Option<ServerTls> {
    let needs_tls = protocol.is_some_and(Protocol::is_tls);
    let Some(tls) = tls else {
        if needs_tls {
            cx.error_at("tls", "is needed with protocol HTTPS and TLS");
        }
        return Some(ServerTls::None);
    };
    cx.within("tls", |cx| {
        let is_http = protocol.is_some_and(Protocol::is_http);
        if is_http && !tls.https_redirect {
            cx.error("has no meaning with a plaintext HTTP protocol: use protocol HTTPS, or httpsRedirect: true");
        }
        if is_http {
            return Some(ServerTls::HttpsRedirect);
        }
        if tls.https_redirect {
            cx.error_at("httpsRedirect", "works on plaintext HTTP servers only");
        }
        match tls.mode {
            wire::ServerTlsMode::Passthrough => Some(ServerTls::Passthrough),
            wire::ServerTlsMode::AutoPassthrough => Some(ServerTls::AutoPassthrough),
            wire::ServerTlsMode::Simple => terminate(cx, tls, TerminateMode::Simple),
            wire::ServerTlsMode::Mutual => terminate(cx, tls, TerminateMode::Mutual),
            wire::ServerTlsMode::OptionalMutual => terminate(cx, tls, TerminateMode::OptionalMutual),
            wire::ServerTlsMode::IstioMutual => terminate(cx, tls, TerminateMode::IstioMutual),
        }
    })
}

fn terminate(cx: &mut Cx, tls: wire::ServerTlsSettings, mode: TerminateMode) -> Option<ServerTls> {
    #[rustfmt::skip]
    let wire::ServerTlsSettings {
        https_redirect, mode: _, server_certificate, private_key, ca_certificates, ca_crl,
        tls_certificates, credential_name, credential_names, ca_cert_credential_name,
        subject_alt_names, verify_certificate_spki, verify_certificate_hash, min_protocol_version,
        max_protocol_version, cipher_suites, insecure_skip_verify,
    } = tls;
    cx.unsupported("caCrl", !ca_crl.is_empty());
    cx.unsupported("insecureSkipVerify", insecure_skip_verify == Some(true));
    if !credential_name.is_empty() && !credential_names.is_empty() {
        cx.error("only one of credentialName and credentialNames may be set");
    }
    let mut credentials: Vec<Text> = texts(&credential_names).to_vec();
    credentials.extend(text(&credential_name));
    let mut files: Vec<(Text, Text)> = Vec::new();
    if !server_certificate.is_empty() || !private_key.is_empty() {
        files.push((server_certificate.into(), private_key.into()));
    }
    let mut ca_file = text(&ca_certificates);
    for pair in tls_certificates {
        let wire::TlsCertificate {
            server_certificate,
            private_key,
            ca_certificates,
        } = pair;
        files.push((server_certificate.into(), private_key.into()));
        ca_file = ca_file.or_else(|| text(&ca_certificates));
    }
    let certificates = server_certificates(cx, mode, credentials, files)?;
    let asks_clients = matches!(mode, TerminateMode::Mutual | TerminateMode::OptionalMutual);
    let from_files = matches!(certificates, ServerCertificates::Files(_));
    if asks_clients && from_files && ca_file.is_none() && ca_cert_credential_name.is_empty() {
        let message = "is needed with mode MUTUAL and OPTIONAL_MUTUAL";
        cx.error_at("caCertificates", message);
    }
    let cipher_suites = known_ciphers(cx, &cipher_suites);
    let (min_version, max_version) = (version(min_protocol_version), version(max_protocol_version));
    if let (Some(min), Some(max)) = (min_version, max_version)
        && min > max
    {
        cx.error("minProtocolVersion must not be above maxProtocolVersion");
    }
    Some(ServerTls::Terminate(Box::new(TerminateTls {
        mode,
        certificates,
        ca_credential_name: text(&ca_cert_credential_name),
        ca_file,
        subject_alt_names: texts(&subject_alt_names),
        spki_hashes: texts(&verify_certificate_spki),
        certificate_hashes: texts(&verify_certificate_hash),
        min_version,
        max_version,
        cipher_suites: cipher_suites.into(),
        https_redirect,
    })))
}

fn server_certificates(
    cx: &mut Cx,
    mode: TerminateMode,
    credentials: Vec<Text>,
    files: Vec<(Text, Text)>,
) -> Option<ServerCertificates> {
    if files
        .iter()
        .any(|(certificate, key)| certificate.is_empty() || key.is_empty())
    {
        cx.error("serverCertificate and privateKey are both needed");
    }
    match (mode, credentials.is_empty(), files.is_empty()) {
        (TerminateMode::IstioMutual, true, true) => Some(ServerCertificates::Workload),
        (TerminateMode::IstioMutual, _, _) => {
            cx.error("mode ISTIO_MUTUAL uses the mesh's own certificates: give neither credentialName nor certificate files");
            None
        }
        (_, false, _) => Some(ServerCertificates::Credentials(credentials.into())),
        (_, true, false) => Some(ServerCertificates::Files(files.into())),
        (_, true, true) => {
            cx.error("credentialName, or serverCertificate and privateKey, are needed");
            None
        }
    }
}

/// Each known one once, in the order in which they are written.
fn known_ciphers(cx: &mut Cx, suites: &[String]) -> Vec<Text> {
    let mut known: Vec<Text> = Vec::new();
    cx.each("cipherSuites", suites, |cx, suite| {
        if !CIPHER_SUITES.contains(&suite.as_str()) {
            let all = CIPHER_SUITES.join(", ");
            cx.warning(format!("{suite:?} is not one of {all}; it is left out"));
        } else if known.iter().any(|before| **before == **suite) {
            cx.warning(format!("{suite} is listed twice"));
        } else {
            known.push(suite.as_str().into());
        }
    });
    if known.is_empty() && !suites.is_empty() {
        cx.error_at("cipherSuites", "none of the cipher suites is known");
    }
    known
}

pub(crate) fn version(value: wire::TlsProtocol) -> Option<TlsVersion> {
    match value {
        wire::TlsProtocol::Auto => None,
        wire::TlsProtocol::V10 => Some(TlsVersion::Tls10),
        wire::TlsProtocol::V11 => Some(TlsVersion::Tls11),
        wire::TlsProtocol::V12 => Some(TlsVersion::Tls12),
        wire::TlsProtocol::V13 => Some(TlsVersion::Tls13),
    }
}
