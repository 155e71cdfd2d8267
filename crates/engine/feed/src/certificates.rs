//! The workload's certificate: a key made here, signed by the control plane's CA, renewed long
//! before it ends.
//!
//! The key never leaves the process. A new key is made for each certificate. The roots are those
//! that the CA answers with and those of the root file, so that peers of an old and a new root are
//! both trusted while the root is rotated.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{
    CertificateChain, IdentityHandle, PrivateKey, SigningRequest, SpiffeId, TrustBundle,
    WorkloadIdentity,
};
use stdx::{Clock, Rng};
use tonic::Request;
use wire_envoy::pb::istio::auth::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};

use crate::{
    FeedError,
    backoff::Backoff,
    dial::Dialer,
    settings::{Certificates, Limits},
    status::Status,
};

/// An answer to a CSR must come within this.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// No sooner than this after a success, whatever the lifetime.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);

/// Gets and renews the certificate for as long as it is polled.
pub struct CertificateKeeper {
    pub settings: Certificates,
    pub limits: Limits,
    pub dialer: Dialer,
    pub identity: IdentityHandle,
    pub status: Arc<Status>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl CertificateKeeper {
    pub async fn run(self) {
        let mut backoff = Backoff::new(self.limits.retry_first, self.limits.retry_limit);
        loop {
            let wait = match self.obtain().await {
                Ok(identity) => {
                    backoff.reset();
                    self.publish(identity)
                }
                Err(error) => {
                    self.status.certificate_failed(&error.to_string());
                    let wait = backoff.next(&*self.rng);
                    tracing::warn!(%error, retry_in = ?wait, "no certificate");
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Makes the identity current and says when to renew it.
    fn publish(&self, identity: WorkloadIdentity) -> Duration {
        let leaf = identity.certificate().leaf().clone();
        let wait = renewal(
            self.clock.wall(),
            leaf.not_after_time(),
            &self.settings,
            &*self.rng,
        );
        tracing::info!(id = %identity.id(), serial = leaf.serial, renew_in = ?wait, "certificate obtained");
        self.identity.publish(identity);
        self.status.certificate_obtained(leaf);
        wait
    }

    async fn obtain(&self) -> Result<WorkloadIdentity, FeedError> {
        let expected = SpiffeId::workload(&self.settings.trust_domain, &self.settings.account);
        let key = PrivateKey::generate()?;
        let csr = SigningRequest::new(&key, &expected)?;
        let chain = self.call(&csr).await?;
        let mut bundle = TrustBundle::from_pem(&chain.last().to_pem())?;
        if let Some(tls) = &self.settings.server.tls
            && let Ok(text) = tokio::fs::read_to_string(&tls.root_file).await
        {
            bundle = bundle.union(&TrustBundle::from_pem(&text)?);
        }
        let identity = WorkloadIdentity::new(key, chain, bundle)?;
        if *identity.id() != expected {
            tracing::warn!(id = %identity.id(), %expected, "the certificate service gave another identity than expected");
        }
        Ok(identity)
    }

    async fn call(&self, csr: &SigningRequest) -> Result<CertificateChain, FeedError> {
        self.status.certificate_requested();
        let server = &self.settings.server;
        let dialed = self.dialer.dial(server).await?;
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.as_pem().to_owned(),
            validity_duration: i64::try_from(self.settings.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: None,
        });
        request.set_timeout(CALL_TIMEOUT);
        if let Some(authorization) = dialed.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization);
        }
        if let Ok(cluster) = self.settings.cluster_id.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        let mut client = IstioCertificateServiceClient::new(dialed.channel);
        let called = tokio::time::timeout(CALL_TIMEOUT, client.create_certificate(request)).await;
        let failed = |status: String| FeedError::Call {
            server: server.address.to_string(),
            status,
        };
        let answer = called
            .map_err(|_| failed("no answer in time".into()))?
            .map_err(|status| failed(format!("{}: {}", status.code(), status.message())))?
            .into_inner();
        if answer.cert_chain.len() < 2 {
            return Err(FeedError::Certificate(format!(
                "{} certificates instead of a chain with its root",
                answer.cert_chain.len()
            )));
        }
        Ok(CertificateChain::from_pem_blocks(&answer.cert_chain)?)
    }
}

/// The configured share of what is left of the lifetime, give or take the jitter.
fn renewal(
    now: SystemTime,
    not_after: SystemTime,
    settings: &Certificates,
    rng: &dyn Rng,
) -> Duration {
    let left = not_after.duration_since(now).unwrap_or_default();
    let share = settings.renew_after + settings.jitter * (2.0 * rng.fraction() - 1.0);
    left.mul_f64(share.clamp(0.0, 1.0)).max(SHORTEST_RENEWAL)
}
