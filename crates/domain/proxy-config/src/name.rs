//! Names of resources: cheap to clone, compared by content, never empty.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A resource name that was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a resource name must not be empty")]
pub struct EmptyName;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Refuses the empty name.
            pub fn parse(name: impl AsRef<str>) -> Result<Self, EmptyName> {
                let name = name.as_ref();
                if name.is_empty() { Err(EmptyName) } else { Ok(Self(name.into())) }
            }
            pub fn as_str(&self) -> &str { &self.0 }
            /// The shared string itself, for labels and records.
            pub fn shared(&self) -> Arc<str> { self.0.clone() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", &*self.0) }
        }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
        impl AsRef<str> for $name { fn as_ref(&self) -> &str { &self.0 } }
    )*};
}

names! {
    /// `outbound|9080|v1|reviews.default.svc.cluster.local`, `PassthroughCluster`, …
    ClusterName;
    /// `virtualInbound`, `0.0.0.0_9080`, …
    ListenerName;
    /// `9080`, `inbound|9080||`, `http.8080`, …
    RouteTableName;
    /// `default`, `ROOTCA`, `kubernetes://bookinfo-tls`, …
    SecretName;
}
