//! What is wrong with an object, in the words its author needs.
//!
//! Codes are stable. Where Istio's analysis has a code for the same thing, that code is used (`IST0106`); what is ours has `TB`.
//! Whoever shows a problem adds the object's name and the place in its file.

use wire_kube::read::{Fault, FaultKind};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object, or the part that is named, does not work. From [`crate::parse`]: the object is not used, and its last good
    /// version stays in force.
    Error,
    /// The object works, but a part of it has no effect or not the effect that one might expect.
    Warning,
    Info,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "Error",
            Self::Warning => "Warning",
            Self::Info => "Info",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    pub severity: Severity,
    pub code: &'static str,
    /// Path of the field in the object (`spec.http[0].route[1].weight`); empty when it is about the whole object.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// The codes in use.
pub mod code {
    /// A feature that is on its way out.
    pub const DEPRECATED: &str = "IST0002";
    /// Something that is referred to does not exist.
    pub const REFERENCE_NOT_FOUND: &str = "IST0101";
    /// A namespace whose pods get no proxy.
    pub const NAMESPACE_NOT_INJECTED: &str = "IST0102";
    /// A pod that should have a proxy and has none.
    pub const POD_WITHOUT_PROXY: &str = "IST0103";
    /// A value that the kind does not allow.
    pub const INVALID: &str = "IST0106";
    /// Two VirtualServices for one host in the mesh.
    pub const MESH_HOST_CONFLICT: &str = "IST0109";
    /// Two Sidecars select one workload.
    pub const SIDECAR_SELECTOR_CONFLICT: &str = "IST0110";
    /// Two Sidecars without a selector in one namespace.
    pub const SIDECAR_DEFAULT_CONFLICT: &str = "IST0111";
    /// A destination port is needed, because the service has several.
    pub const DESTINATION_PORT_REQUIRED: &str = "IST0112";
    /// A port name without protocol.
    pub const PORT_NAME: &str = "IST0118";
    /// Two kinds of labels for injection.
    pub const INJECTION_LABELS: &str = "IST0123";
    /// A selector that selects nothing.
    pub const NO_MATCHING_WORKLOADS: &str = "IST0127";
    /// TLS without verification.
    pub const NO_VERIFICATION: &str = "IST0128";
    /// A route that an earlier one hides.
    pub const UNREACHABLE_RULE: &str = "IST0130";
    /// A match that an earlier one makes useless.
    pub const INEFFECTIVE_MATCH: &str = "IST0131";
    /// A host that no server of the gateway has.
    pub const HOST_NOT_IN_GATEWAY: &str = "IST0132";
    /// Valid, but doubtful.
    pub const DOUBTFUL: &str = "IST0133";
    /// A ServiceEntry with a TCP port and no address.
    pub const ADDRESSES_NEEDED: &str = "IST0134";
    /// Two Gateways of the same workloads with one certificate.
    pub const DUPLICATE_CERTIFICATE: &str = "IST0138";
    /// Two Gateways with one selector, port and host.
    pub const GATEWAY_CONFLICT: &str = "IST0145";
    /// JWT claims in routes without a RequestAuthentication.
    pub const JWT_ROUTING: &str = "IST0149";
    /// A telemetry provider that does not exist.
    pub const TELEMETRY_PROVIDER: &str = "IST0157";
    /// Two Telemetries with one selector.
    pub const TELEMETRY_SELECTOR_CONFLICT: &str = "IST0159";
    /// Two Telemetries without a selector in one namespace.
    pub const TELEMETRY_DEFAULT_CONFLICT: &str = "IST0160";
    /// A gateway's secret that is absent or of no use.
    pub const GATEWAY_CREDENTIAL: &str = "IST0161";
    /// A gateway's port that no Service has.
    pub const GATEWAY_PORT: &str = "IST0162";
    /// A subset without pods.
    pub const SUBSET_WITHOUT_PODS: &str = "IST0173";
    /// A DestinationRule for a host that is no service.
    pub const UNKNOWN_RULE_HOST: &str = "IST0174";
    /// A field that the kind does not have.
    pub const UNKNOWN_FIELD: &str = "TB0101";
    /// A field that Tanbark does not support yet.
    pub const UNSUPPORTED_FIELD: &str = "TB0102";
    /// A kind that Tanbark does not support yet.
    pub const UNSUPPORTED_KIND: &str = "TB0103";
    /// A kind or version that nobody serves.
    pub const UNKNOWN_KIND: &str = "TB0104";
    /// Two policies of the same scope; the oldest holds.
    pub const SCOPE_CONFLICT: &str = "TB0105";
    /// PeerAuthentication and DestinationRule disagree about mutual TLS.
    pub const MTLS_CONFLICT: &str = "TB0106";
    /// Two rules say something about the same host; the older one holds.
    pub const RULE_CONFLICT: &str = "TB0107";
}

impl Problem {
    pub fn new(
        severity: Severity,
        code: &'static str,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            path: path.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}] ", self.severity.as_str(), self.code)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let Fault {
            path,
            kind,
            message,
        } = fault;
        let (severity, code) = match kind {
            FaultKind::UnknownField => (Severity::Warning, code::UNKNOWN_FIELD),
            FaultKind::WrongType | FaultKind::UnknownName | FaultKind::BadDuration => {
                (Severity::Error, code::INVALID)
            }
        };
        Self {
            severity,
            code,
            path,
            message,
        }
    }
}
