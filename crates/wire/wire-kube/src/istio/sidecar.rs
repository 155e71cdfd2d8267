//! `networking.istio.io` Sidecar: what a workload's proxy accepts and what it can reach.

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::ServerTlsSettings;
use super::selector::LabelSelector;
use super::virtual_service::Destination;

message! {
    struct Sidecar {
        workload_selector: Option<LabelSelector>,
        ingress: Vec<IngressListener>,
        egress: Vec<EgressListener>,
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    struct SidecarPort {
        number: u32,
        protocol: String,
        name: String,
        /// Deprecated, ignored by Istio.
        target_port: u32,
    }
}

message! {
    struct IngressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        default_endpoint: String,
        tls: Option<ServerTlsSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    struct EgressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        hosts: Vec<String>,
    }
}

names! {
    enum CaptureMode {
        Default = 0 "DEFAULT",
        Iptables = 1 "IPTABLES",
        None = 2 "NONE",
    }
}

message! {
    struct OutboundTrafficPolicy {
        mode: OutboundMode,
        egress_proxy: Option<Destination>,
    }
}

names! {
    /// REGISTRY_ONLY comes first: `outboundTrafficPolicy: {}` means it.
    enum OutboundMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
    }
}
