//! EndpointSlice.

use crate::meta::ObjectMeta;

message! {
    partial struct EndpointSlice {
        metadata: ObjectMeta,
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }
}

message! {
    partial struct Endpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        hostname: String,
        node_name: String,
        zone: String,
        target_ref: Option<ObjectReference>,
    }
}

message! {
    /// Absent means unknown, which counts as ready.
    partial struct EndpointConditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
}

message! {
    partial struct ObjectReference {
        kind: String,
        name: String,
        namespace: String,
        uid: String,
    }
}

message! {
    partial struct EndpointPort {
        name: String,
        protocol: String,
        port: Option<u32>,
        app_protocol: String,
    }
}
