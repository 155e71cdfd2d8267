//! `networking.istio.io` Gateway: the ports that a gateway workload opens, for which hosts, with which TLS.

use std::collections::BTreeMap;

message! {
    struct Gateway {
        servers: Vec<Server>,
        selector: BTreeMap<String, String>,
    }
}

message! {
    struct Server {
        port: Option<Port>,
        bind: String,
        hosts: Vec<String>,
        tls: Option<ServerTlsSettings>,
        /// Not implemented by Istio either.
        default_endpoint: String,
        name: String,
    }
}

message! {
    struct Port {
        number: u32,
        protocol: String,
        name: String,
        /// Deprecated, ignored by Istio.
        target_port: u32,
    }
}

message! {
    struct ServerTlsSettings {
        https_redirect: bool,
        mode: ServerTlsMode,
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
        ca_crl: String,
        tls_certificates: Vec<TlsCertificate>,
        credential_name: String,
        credential_names: Vec<String>,
        ca_cert_credential_name: String,
        subject_alt_names: Vec<String>,
        verify_certificate_spki: Vec<String>,
        verify_certificate_hash: Vec<String>,
        min_protocol_version: TlsProtocol,
        max_protocol_version: TlsProtocol,
        cipher_suites: Vec<String>,
        insecure_skip_verify: Option<bool>,
    }
}

message! {
    struct TlsCertificate {
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
    }
}

names! {
    enum ServerTlsMode {
        Passthrough = 0 "PASSTHROUGH",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        AutoPassthrough = 3 "AUTO_PASSTHROUGH",
        IstioMutual = 4 "ISTIO_MUTUAL",
        OptionalMutual = 5 "OPTIONAL_MUTUAL",
    }
}

names! {
    enum TlsProtocol {
        Auto = 0 "TLS_AUTO",
        V10 = 1 "TLSV1_0",
        V11 = 2 "TLSV1_1",
        V12 = 3 "TLSV1_2",
        V13 = 4 "TLSV1_3",
    }
}
