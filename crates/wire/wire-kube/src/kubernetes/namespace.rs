//! Namespace and ServiceAccount: only their metadata matters.

use crate::meta::ObjectMeta;

message! {
    partial struct Namespace {
        metadata: ObjectMeta,
    }
}

message! {
    partial struct ServiceAccount {
        metadata: ObjectMeta,
    }
}
