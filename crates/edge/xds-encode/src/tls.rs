//! TLS contexts of the mesh's own identities and of certificates that users name.
//!
//! Workload certificates come from the agent (`default`, `ROOTCA`), files too (`file-cert:…`, `file-root:…`), Kubernetes Secrets from the
//! control plane (`kubernetes://…`, by ADS). Parameters are those of rows SEC-032 … SEC-035.

use mesh_model::{MeshConfig, gateway::TlsVersion, object::Text};
use wire_envoy::pb::{
    core,
    matcher::StringMatcher,
    tls::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        TlsParameters,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        tls_parameters::TlsProtocol,
    },
};

use crate::wire;

pub const SOCKET: &str = "envoy.transport_sockets.tls";
/// ALPN of mutual TLS between workloads, as every Istio proxy knows it.
pub const ALL_ISTIO_ALPN: [&str; 5] = [
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];
pub const HTTP_ISTIO_ALPN: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
pub const TCP_ISTIO_ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];
const SERVER_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// A secret that the agent beside the proxy gives, waited for without limit.
pub fn agent_secret(name: &str) -> SdsSecretConfig {
    let source = core::ConfigSource {
        initial_fetch_timeout: Some(Default::default()),
        ..agent()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(source),
    }
}

/// A file that the agent reads.
pub fn file_secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(agent()),
    }
}

/// A Kubernetes Secret, from the control plane.
pub fn control_plane_secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(wire::ads_with_default_timeout()),
    }
}

fn agent() -> core::ConfigSource {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: "sds-grpc".to_owned(),
        ..Default::default()
    };
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(
            source,
        )),
        ..Default::default()
    }
}

/// Validation by a secret's roots and by names.
#[allow(
    deprecated,
    reason = "the plain list of names is what every proxy of the field reads"
)]
pub fn validation(roots: SdsSecretConfig, names: Vec<StringMatcher>) -> ValidationContextType {
    validation_with(
        roots,
        CertificateValidationContext {
            match_subject_alt_names: names,
            ..Default::default()
        },
    )
}

pub fn validation_with(
    roots: SdsSecretConfig,
    context: CertificateValidationContext,
) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(roots),
        ..Default::default()
    })
}

/// TLS 1.2 to 1.3: what clients of the mesh offer.
pub fn client_parameters() -> TlsParameters {
    parameters(TlsProtocol::TlSv12)
}

fn parameters(lowest: TlsProtocol) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: lowest.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..Default::default()
    }
}

pub fn version(version: TlsVersion) -> TlsProtocol {
    match version {
        TlsVersion::Tls10 => TlsProtocol::TlSv10,
        TlsVersion::Tls11 => TlsProtocol::TlSv11,
        TlsVersion::Tls12 => TlsProtocol::TlSv12,
        TlsVersion::Tls13 => TlsProtocol::TlSv13,
    }
}

pub fn alpn(protocols: &[&str]) -> Vec<String> {
    protocols
        .iter()
        .map(|protocol| (*protocol).to_owned())
        .collect()
}

/// The workload's certificate and the mesh's roots.
pub fn workload_context(protocols: Vec<String>, peers: Vec<StringMatcher>) -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(client_parameters()),
        alpn_protocols: protocols,
        tls_certificate_sds_secret_configs: vec![agent_secret("default")],
        validation_context_type: Some(validation(agent_secret("ROOTCA"), peers)),
        ..Default::default()
    }
}

/// The server side of mutual TLS in the mesh: a certificate of this trust domain or of an alias is required.
pub fn inbound_socket(mesh: &MeshConfig, protocols: &[&str]) -> core::TransportSocket {
    let domains = std::iter::once(&mesh.trust_domain).chain(mesh.trust_domain_aliases.iter());
    let peers = domains
        .map(|domain| wire::prefix(domain.id_prefix()))
        .collect();
    let lowest = if mesh.min_tls_13 {
        TlsProtocol::TlSv13
    } else {
        TlsProtocol::TlSv12
    };
    let mut context = workload_context(alpn(protocols), peers);
    context.tls_params = Some(TlsParameters {
        cipher_suites: alpn(&SERVER_CIPHERS),
        ..parameters(lowest)
    });
    let downstream = DownstreamTlsContext {
        common_tls_context: Some(context),
        require_client_certificate: Some(wire::boolean(true)),
        ..Default::default()
    };
    wire::transport_socket(SOCKET, &downstream)
}

/// `file-cert:<certificate>~<key>`
pub fn file_certificate(certificate: &str, key: &str) -> SdsSecretConfig {
    file_secret(&format!("file-cert:{certificate}~{key}"))
}

/// `file-root:<path>`, with the list of revoked certificates after `~` if any.
pub fn file_roots(path: &str, crl: Option<&Text>) -> SdsSecretConfig {
    match crl {
        Some(crl) => file_secret(&format!("file-root:{path}~{crl}")),
        None => file_secret(&format!("file-root:{path}")),
    }
}
