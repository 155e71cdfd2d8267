//! What a caller may read: private keys of Secrets, where the API server says that its service
//! account may list its namespace's.
//!
//! A proxy names its own role in its node, so that role proves nothing; istiod asks the same
//! question for the same reason (row CP-007).

use identity::ServiceAccountName;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

pub struct Authorizer {
    client: Client,
}

impl Authorizer {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Without an answer nobody may.
    pub async fn may_read_secrets(&self, account: &ServiceAccountName) -> bool {
        let (namespace, name) = (account.namespace(), account.name());
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            resource: Some("secrets".to_owned()),
            verb: Some("list".to_owned()),
            ..Default::default()
        };
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{name}")),
                resource_attributes: Some(attributes),
                ..Default::default()
            },
            status: None,
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.is_some_and(|status| status.allowed),
            Err(error) => {
                tracing::warn!(%error, "the API server did not say who may read Secrets");
                false
            }
        }
    }
}
