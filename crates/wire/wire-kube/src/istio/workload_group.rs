//! `networking.istio.io` WorkloadGroup: the template of WorkloadEntries that register themselves.

use std::collections::BTreeMap;

use super::service_entry::WorkloadEntry;

message! {
    struct WorkloadGroup {
        metadata: Option<GroupMetadata>,
        template: Option<WorkloadEntry>,
        probe: Option<ReadinessProbe>,
    }
}

message! {
    struct GroupMetadata {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

message! {
    struct ReadinessProbe {
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        http_get: Option<HttpGet>,
        tcp_socket: Option<TcpSocket>,
        exec: Option<Exec>,
        grpc: Option<Grpc>,
    }
}

message! {
    struct HttpGet {
        path: String,
        port: u32,
        host: String,
        scheme: String,
        http_headers: Vec<HttpHeader>,
    }
}

message! {
    struct HttpHeader {
        name: String,
        value: String,
    }
}

message! {
    struct TcpSocket {
        host: String,
        port: u32,
    }
}

message! {
    struct Exec {
        command: Vec<String>,
    }
}

message! {
    struct Grpc {
        port: u32,
        service: String,
    }
}
