//! How a policy names the workloads or objects that it is for.

use std::collections::BTreeMap;

message! {
    /// `matchLabels`, as security, telemetry and extension kinds have it.
    struct WorkloadSelector {
        match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// `labels`, as networking kinds have it.
    struct LabelSelector {
        labels: BTreeMap<String, String>,
    }
}

message! {
    struct PolicyTargetReference {
        group: String,
        kind: String,
        name: String,
        namespace: String,
    }
}
