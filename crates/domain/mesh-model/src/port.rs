//! Ports and the protocols that are declared for them.

use crate::object::Text;

/// A port of a service or gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Port {
    pub number: u16,
    pub name: Text,
    pub protocol: Protocol,
}

/// Declared by `appProtocol`, then by the port's name prefix; `Unsupported` is UDP or SCTP, which the mesh does not touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    Https,
    Tls,
    Tcp,
    Mongo,
    Redis,
    Mysql,
    /// Not declared: detected by sniffing.
    Auto,
    Udp,
}

impl Protocol {
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
    /// Forwarded as bytes, server may speak first.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Mongo | Self::Redis | Self::Mysql)
    }
    pub fn is_auto(self) -> bool {
        self == Self::Auto
    }
    /// Reads `appProtocol` or the part of a port name before `-`, case-insensitively. `None`: not a known protocol.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" | "kubernetes.io/wss" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::Mysql,
            "udp" => Self::Udp,
            _ => return None,
        })
    }
    /// Istio's name, upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::Mysql => "MySQL",
            Self::Auto => "UnsupportedProtocol",
            Self::Udp => "UDP",
        }
    }
}
