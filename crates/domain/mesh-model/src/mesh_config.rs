//! MeshConfig with Istio's defaults filled in (reference 1.8).

use std::{sync::Arc, time::Duration};

use identity::TrustDomain;

use crate::destination_rule::{LocalityLb, TrafficPolicy};
use crate::matching::Millionths;
use crate::object::{ExportTo, Text};
use crate::sidecar::OutboundMode;
use crate::virtual_service::Retries;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    pub trust_domain: TrustDomain,
    pub trust_domain_aliases: Arc<[TrustDomain]>,
    pub root_namespace: Text,
    /// `cluster.local`
    pub cluster_domain: Text,
    pub connect_timeout: Duration,
    /// `None`: waits for ever.
    pub protocol_detection_timeout: Option<Duration>,
    pub outbound: OutboundMode,
    /// Inbound traffic goes to 127.0.0.1 instead of the pod's address.
    pub inbound_to_localhost: bool,
    pub auto_mtls: bool,
    pub access_log: Option<AccessLogFile>,
    pub enable_tracing: bool,
    /// Default sampling.
    pub tracing_sampling: Millionths,
    pub locality_lb: LocalityLb,
    pub default_service_export_to: ExportToDefault,
    pub default_virtual_service_export_to: ExportToDefault,
    pub default_destination_rule_export_to: ExportToDefault,
    pub h2_upgrade: bool,
    pub dns_refresh_rate: Duration,
    pub path_normalization: PathNormalization,
    pub default_http_retry: Option<Retries>,
    pub default_traffic_policy: TrafficPolicy,
    pub min_tls_13: bool,
    pub disable_listener_log: bool,
    pub extension_providers: Arc<[ExtensionProvider]>,
    pub default_providers: DefaultProviders,
    pub enable_prometheus_merge: bool,
    pub tcp_keepalive: Option<crate::destination_rule::Keepalive>,
    pub gateway_trusted_proxies: u32,
    /// `drainDuration`, `terminationDrainDuration`.
    pub drain: Duration,
    pub termination_drain: Duration,
    pub proxy_listen_port: u16,
    pub proxy_inbound_listen_port: u16,
}

/// `defaultServiceExportTo` and the like, before `.` is replaced by an object's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportToDefault {
    All,
    Own,
    None,
    Namespaces(Arc<[Text]>),
}

impl ExportToDefault {
    pub fn for_namespace(&self, own: &Text) -> ExportTo {
        match self {
            Self::All => ExportTo::All,
            Self::None => ExportTo::None,
            Self::Own => ExportTo::Namespaces(Arc::new([own.clone()])),
            Self::Namespaces(names) => ExportTo::Namespaces(names.clone()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogFile {
    pub path: Text,
    /// `None`: Istio's default of the encoding.
    pub format: Option<AccessLogFormat>,
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFormat {
    Text(Text),
    /// JSON text of an object: key → format string.
    Json(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathNormalization {
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionProvider {
    pub name: Text,
    pub kind: ProviderKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    FileAccessLog {
        path: Text,
        format: Option<AccessLogFormat>,
        omit_empty_values: bool,
    },
    Zipkin {
        service: Text,
        port: u16,
        max_tag_length: Option<u32>,
        trace_id_64bit: bool,
        path: Text,
        w3c_too: bool,
    },
    OpenTelemetry {
        service: Text,
        port: u16,
        max_tag_length: Option<u32>,
        http: Option<OpenTelemetryHttp>,
    },
    Prometheus,
    /// Known to Istio, not supported here yet; named when something refers to it.
    Unsupported {
        kind: Text,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTelemetryHttp {
    pub path: Text,
    pub timeout: Option<Duration>,
    pub headers: Arc<[(Text, Text)]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DefaultProviders {
    pub access_logging: Arc<[Text]>,
    pub tracing: Arc<[Text]>,
    pub metrics: Arc<[Text]>,
}
