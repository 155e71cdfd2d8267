//! Gateway: what a load balancer at the edge listens for (rows TM-070 … TM-079).

use std::sync::Arc;

use crate::object::{Host, Meta, Selector, Text};
use crate::port::Port;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub meta: Meta,
    /// Pods that are the gateway, in any namespace.
    pub selector: Selector,
    pub servers: Arc<[Server]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Number as clients of the gateway's Service see it; the pod's port is looked up from the Service.
    pub port: Port,
    pub bind: Option<Text>,
    pub hosts: Arc<[GatewayHost]>,
    pub tls: ServerTls,
    pub name: Option<Text>,
}

/// `ns/host`, `./host`, `*/host` or `host`: which namespaces' VirtualServices may bind which hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayHost {
    /// `None`: any.
    pub namespace: Option<Text>,
    pub host: Host,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTls {
    None,
    /// HTTP server that answers 301 to https.
    HttpsRedirect,
    Passthrough,
    AutoPassthrough,
    Terminate(Box<TerminateTls>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminateTls {
    pub mode: TerminateMode,
    pub certificates: ServerCertificates,
    /// Secret that holds only the CA, when it is apart.
    pub ca_credential_name: Option<Text>,
    /// Path of a CA file.
    pub ca_file: Option<Text>,
    pub subject_alt_names: Arc<[Text]>,
    pub spki_hashes: Arc<[Text]>,
    pub certificate_hashes: Arc<[Text]>,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
    pub cipher_suites: Arc<[Text]>,
    pub https_redirect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminateMode {
    Simple,
    Mutual,
    OptionalMutual,
    /// The workload's own certificate; peers of the mesh.
    IstioMutual,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCertificates {
    /// Secrets in the gateway workload's namespace (or `ns/name` by ReferenceGrant).
    Credentials(Arc<[Text]>),
    /// `(certificate path, key path)` in the gateway's file system.
    Files(Arc<[(Text, Text)]>),
    /// The workload's own.
    Workload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}
