//! The names that a sidecar's DNS proxy answers by itself (`istio.networking.nds.v1.NameTable`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Fully qualified name, lower case, without a final dot → addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameTable(pub BTreeMap<Arc<str>, NameEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameEntry {
    /// May be empty: the name exists, but has no address of the wanted family.
    pub addresses: Arc<[IpAddr]>,
    /// A Kubernetes service, so that its shorter names (`reviews`, `reviews.default`, …) are
    /// answered too.
    pub kubernetes: bool,
    pub short_name: Option<Arc<str>>,
    pub namespace: Option<Arc<str>>,
}
