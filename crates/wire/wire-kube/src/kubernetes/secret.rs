//! Secret and ConfigMap.

use std::collections::BTreeMap;

use crate::meta::ObjectMeta;

message! {
    partial struct Secret {
        metadata: ObjectMeta,
        r#type: String,
        /// Base64.
        data: BTreeMap<String, String>,
        /// Plain; wins over `data`.
        string_data: BTreeMap<String, String>,
    }
}

message! {
    partial struct ConfigMap {
        metadata: ObjectMeta,
        data: BTreeMap<String, String>,
        /// Base64.
        binary_data: BTreeMap<String, String>,
    }
}
