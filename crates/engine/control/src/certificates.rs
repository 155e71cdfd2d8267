//! `istio.v1.auth.IstioCertificateService`: signs the public key of a CSR for the identity that the caller has proved.
//!
//! Of the request only the key and the lifetime count (row SEC-002). No lifetime, or zero, means
//! the mesh's default; one above the authority's maximum is refused, not cut: who asks for it plans
//! with it. Impersonation (a node proxy asking for its pods) is refused by name.

use std::{sync::Arc, time::Duration};

use identity::IdentityError;
use stdx::Clock;
use tonic::{Request, Response, Status};
use wire_envoy::pb::istio::auth::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::IstioCertificateService,
};

use crate::{authenticate::Authenticator, authority::Current, metrics::Metrics};

pub struct CertificateService {
    pub authority: Current,
    pub authenticator: Arc<Authenticator>,
    pub default_ttl: Duration,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let metrics = &self.metrics.authority;
        metrics.csr_count.inc();
        let caller = self
            .authenticator
            .authenticate(&request)
            .await
            .inspect_err(|_| {
                metrics.authentication_failures.inc();
            })?;
        let IstioCertificateRequest {
            csr,
            validity_duration,
            metadata,
        } = request.into_inner();
        let impersonates = metadata.is_some_and(|m| m.fields.contains_key("ImpersonatedIdentity"));
        if impersonates {
            metrics.id_extraction_errors.inc();
            return Err(Status::permission_denied(
                "impersonating another identity is not supported",
            ));
        }
        let asked = u64::try_from(validity_duration)
            .ok()
            .filter(|seconds| *seconds > 0);
        let ttl = asked.map_or(self.default_ttl, Duration::from_secs);
        let signed = self
            .authority
            .load()
            .sign(&csr, &caller.id, Some(ttl), self.clock.wall());
        let chain = signed.map_err(|error| {
            tracing::warn!(caller = %caller.id, %error, "refused to sign a certificate");
            match error {
                IdentityError::Crypto(_) | IdentityError::AuthorityExpired { .. } => {
                    metrics.signing_errors.inc();
                    Status::internal(error.to_string())
                }
                _ => {
                    metrics.csr_parsing_errors.inc();
                    Status::invalid_argument(error.to_string())
                }
            }
        })?;
        metrics.issued.inc();
        tracing::debug!(caller = %caller.id, ttl_seconds = ttl.as_secs(), "signed a certificate");
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: chain.to_pem_blocks(),
        }))
    }
}

#[cfg(test)]
mod tests;
