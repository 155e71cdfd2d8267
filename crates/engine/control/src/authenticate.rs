//! Who calls: by client certificate of the mesh, or by service-account token that the API server
//! reviews (rows SEC-002, SEC-003).
//!
//! A certificate that was presented was verified by the handshake; it counts when it is of this
//! mesh's trust domain (others may share the root). A token is never trusted by itself: the API
//! server says whose it is, and for which audience.

use std::{collections::HashMap, time::Duration};

use aws_lc_rs::digest;
use identity::{ServiceAccountName, SpiffeId, TrustDomain};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::peer::Peer;

/// Audience of the tokens that proxies present.
const AUDIENCE: &str = "istio-ca";
/// A good review holds this long, so that a reconnecting mesh does not ask the API server once per
/// call.
const REVIEW_LIFETIME: Duration = Duration::from_secs(60);
/// Reviewed tokens that are remembered; one that finds no place is reviewed each time.
const MAX_CACHED_REVIEWS: usize = 10_000;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub id: SpiffeId,
    pub account: ServiceAccountName,
}

pub struct Authenticator {
    client: Client,
    trust_domain: TrustDomain,
    /// By the token's SHA-256, so that no token stays in memory.
    reviews: Mutex<HashMap<Vec<u8>, (Instant, ServiceAccountName)>>,
}

impl Authenticator {
    pub fn new(client: Client, trust_domain: TrustDomain) -> Self {
        Self {
            client,
            trust_domain,
            reviews: Mutex::default(),
        }
    }

    /// The caller of a gRPC request: its certificate, else its bearer token.
    pub async fn authenticate<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let certified = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.id.clone());
        if let Some(id) = certified
            .clone()
            .filter(|id| *id.trust_domain() == self.trust_domain)
        {
            let account = id.service_account().ok_or_else(|| {
                Status::unauthenticated(format!("{id} does not name a service account"))
            })?;
            return Ok(Caller { id, account });
        }
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| match certified {
                Some(id) => Status::unauthenticated(format!(
                    "{id} is not of the trust domain `{}`, and no bearer token was given",
                    self.trust_domain.as_str()
                )),
                None => Status::unauthenticated(
                    "neither a client certificate nor a bearer token was given",
                ),
            })?;
        let account = self.review(token).await?;
        Ok(Caller {
            id: SpiffeId::workload(&self.trust_domain, &account),
            account,
        })
    }

    async fn review(&self, token: &str) -> Result<ServiceAccountName, Status> {
        let digest = digest::digest(&digest::SHA256, token.as_bytes())
            .as_ref()
            .to_vec();
        let now = Instant::now();
        if let Some((_, account)) = self
            .reviews
            .lock()
            .get(&digest)
            .filter(|(until, _)| *until > now)
        {
            return Ok(account.clone());
        }
        let account = self.ask(token).await?;
        let mut reviews = self.reviews.lock();
        if reviews.len() >= MAX_CACHED_REVIEWS {
            reviews.retain(|_, (until, _)| *until > now);
        }
        if reviews.len() < MAX_CACHED_REVIEWS {
            reviews.insert(digest, (now + REVIEW_LIFETIME, account.clone()));
        }
        Ok(account)
    }

    async fn ask(&self, token: &str) -> Result<ServiceAccountName, Status> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![AUDIENCE.to_owned()]),
        };
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec,
            status: None,
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| {
                tracing::warn!(%error, "the API server did not review a token");
                Status::unavailable("the token could not be reviewed")
            })?;
        let status = answer.status.unwrap_or_default();
        if !status.authenticated.unwrap_or(false) {
            return Err(Status::unauthenticated(format!(
                "the token is not valid: {}",
                status
                    .error
                    .unwrap_or_else(|| "refused by the API server".into())
            )));
        }
        if !status
            .audiences
            .unwrap_or_default()
            .iter()
            .any(|audience| audience == AUDIENCE)
        {
            return Err(Status::unauthenticated(format!(
                "the token is not meant for `{AUDIENCE}`"
            )));
        }
        let subject = status
            .user
            .and_then(|user| user.username)
            .unwrap_or_default();
        ServiceAccountName::parse_subject(&subject).map_err(|_| {
            Status::unauthenticated(format!(
                "the token is of `{subject}`, which is not a service account"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
