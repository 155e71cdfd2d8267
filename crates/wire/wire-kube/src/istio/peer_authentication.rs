//! `security.istio.io` PeerAuthentication: whether a workload asks for mutual TLS.

use std::collections::BTreeMap;

use super::selector::WorkloadSelector;

message! {
    struct PeerAuthentication {
        selector: Option<WorkloadSelector>,
        mtls: Option<MutualTls>,
        /// By port of the workload, written as text since it is a map's key.
        port_level_mtls: BTreeMap<String, MutualTls>,
    }
}

message! {
    struct MutualTls {
        mode: MutualTlsMode,
    }
}

names! {
    enum MutualTlsMode {
        Unset = 0 "UNSET",
        Disable = 1 "DISABLE",
        Permissive = 2 "PERMISSIVE",
        Strict = 3 "STRICT",
    }
}
