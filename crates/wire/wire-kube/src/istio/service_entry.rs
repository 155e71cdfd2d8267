//! `networking.istio.io` ServiceEntry and WorkloadEntry: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;

use super::selector::LabelSelector;

message! {
    struct ServiceEntry {
        hosts: Vec<String>,
        addresses: Vec<String>,
        ports: Vec<ServicePort>,
        location: Location,
        resolution: Resolution,
        endpoints: Vec<WorkloadEntry>,
        workload_selector: Option<LabelSelector>,
        export_to: Vec<String>,
        subject_alt_names: Vec<String>,
    }
}

message! {
    struct ServicePort {
        number: u32,
        protocol: String,
        name: String,
        target_port: u32,
    }
}

names! {
    enum Location {
        MeshExternal = 0 "MESH_EXTERNAL",
        MeshInternal = 1 "MESH_INTERNAL",
    }
}

names! {
    enum Resolution {
        None = 0 "NONE",
        Static = 1 "STATIC",
        Dns = 2 "DNS",
        DnsRoundRobin = 3 "DNS_ROUND_ROBIN",
        DynamicDns = 4 "DYNAMIC_DNS",
    }
}

message! {
    /// Both a kind of its own and an endpoint of a ServiceEntry.
    struct WorkloadEntry {
        address: String,
        ports: BTreeMap<String, u32>,
        labels: BTreeMap<String, String>,
        network: String,
        locality: String,
        weight: u32,
        service_account: String,
    }
}
