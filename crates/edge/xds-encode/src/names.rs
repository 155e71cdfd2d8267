//! Names that Istio's tools, dashboards and users rely on (reference 1.9).

use std::fmt;

use mesh_model::object::Text;

pub const BLACK_HOLE: &str = "BlackHoleCluster";
pub const PASSTHROUGH: &str = "PassthroughCluster";
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// A cluster's name: `outbound|<port>|<subset>|<host>`, or `outbound_.<port>_.<subset>_.<host>`, which is also an SNI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundName {
    pub port: u16,
    /// Empty: all endpoints.
    pub subset: Text,
    pub host: Text,
}

impl OutboundName {
    pub fn new(host: &str, subset: Option<&str>, port: u16) -> Self {
        Self {
            port,
            subset: subset.unwrap_or_default().into(),
            host: host.into(),
        }
    }

    /// Reads both forms; the flag says that it was the SNI form.
    pub fn parse(name: &str) -> Option<(Self, bool)> {
        let (rest, separator, dotted) = match name.strip_prefix("outbound|") {
            Some(rest) => (rest, "|", false),
            None => (name.strip_prefix("outbound_.")?, "_.", true),
        };
        let (port, rest) = rest.split_once(separator)?;
        let (subset, host) = rest.split_once(separator)?;
        Some((
            Self {
                port: port.parse().ok()?,
                subset: subset.into(),
                host: host.into(),
            },
            dotted,
        ))
    }

    /// Form that is a DNS name.
    pub fn sni(&self) -> String {
        format!("outbound_.{}_.{}_.{}", self.port, self.subset, self.host)
    }
}

impl fmt::Display for OutboundName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outbound|{}|{}|{}", self.port, self.subset, self.host)
    }
}

pub fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// A statistics prefix with the separator that Istio's tags expect.
pub fn stat_name(name: &str) -> String {
    format!("{name};")
}
