//! What the certificate authority signs and how long it lasts (`citadel_server_…`).

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::kinds::{Count, add};

#[derive(Clone)]
pub struct AuthorityMetrics {
    pub csr_count: Count,
    /// The request is no CSR.
    pub csr_parsing_errors: Count,
    /// No certificate could be made for a good request.
    pub signing_errors: Count,
    /// The caller's identity was not one that it may ask for.
    pub id_extraction_errors: Count,
    pub issued: Count,
    pub authentication_failures: Count,
    root: Expiry,
    chain: Expiry,
}

/// When a certificate ends, as istiod shows it: the moment and the rest.
#[derive(Clone)]
struct Expiry {
    timestamp: Gauge,
    seconds: Gauge,
    at: Arc<Mutex<Option<SystemTime>>>,
}

impl AuthorityMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut count =
            |name: &str, help: &str| add(registry, &format!("citadel_server_{name}"), help);
        Self {
            csr_count: count("csr_count", "Certificate requests"),
            csr_parsing_errors: count(
                "csr_parsing_err_count",
                "Certificate requests that could not be read",
            ),
            signing_errors: count(
                "csr_sign_err_count",
                "Certificate requests that could not be signed",
            ),
            id_extraction_errors: count(
                "id_extraction_err_count",
                "Callers whose identity could not be made into a certificate's",
            ),
            issued: count("success_cert_issuance_count", "Certificates issued"),
            authentication_failures: count(
                "authentication_failure_count",
                "Callers that could not prove who they are",
            ),
            root: Expiry::new(registry, "root_cert"),
            chain: Expiry::new(registry, "cert_chain"),
        }
    }

    /// The authority in use: when its root and when its own certificate end.
    pub fn lasts(&self, root: SystemTime, chain: SystemTime) {
        *self.root.at.lock() = Some(root);
        *self.chain.at.lock() = Some(chain);
    }

    pub(super) fn refresh(&self, now: SystemTime) {
        self.root.refresh(now);
        self.chain.refresh(now);
    }
}

impl Expiry {
    fn new(registry: &mut Registry, what: &str) -> Self {
        Self {
            timestamp: add(
                registry,
                &format!("citadel_server_{what}_expiry_timestamp"),
                "When the certificate ends, in seconds since 1970",
            ),
            seconds: add(
                registry,
                &format!("citadel_server_{what}_expiry_seconds"),
                "Seconds until the certificate ends; negative after its end",
            ),
            at: Arc::default(),
        }
    }

    fn refresh(&self, now: SystemTime) {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_secs()).ok())
                .unwrap_or(0)
        };
        if let Some(at) = *self.at.lock() {
            self.timestamp.set(seconds(at));
            self.seconds.set(seconds(at) - seconds(now));
        }
    }
}
