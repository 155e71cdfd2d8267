//! Node: its labels tell the locality of the pods on it.

use crate::meta::ObjectMeta;

message! {
    partial struct Node {
        metadata: ObjectMeta,
        status: NodeStatus,
    }
}

message! {
    partial struct NodeStatus {
        addresses: Vec<NodeAddress>,
    }
}

message! {
    partial struct NodeAddress {
        r#type: String,
        address: String,
    }
}
