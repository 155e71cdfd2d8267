//! TokenReview and the token part of service accounts.

use http::StatusCode;
use serde_json::{Value, json};

use super::route::Target;
use super::{Answer, json as respond};
use crate::kubelet::Context;
use crate::object;
use crate::store::Refusal;
use crate::store::kinds::{PODS, SERVICE_ACCOUNTS};
use crate::token::{ISSUER, Subject};

/// The longest life of a token that somebody asks for.
const MAX_TOKEN_SECONDS: i64 = 86_400;

/// Whether a token is good, and whose it is. A token that is bound to a pod is good only while that pod is there.
pub fn token_review(context: &Context, review: &Value) -> Answer {
    let audiences: Vec<String> = object::list(review, "/spec/audiences")
        .iter()
        .filter_map(Value::as_str)
        .map(String::from)
        .collect();
    let now = jiff::Timestamp::now().as_second();
    let checked = context
        .signer
        .check(object::text(review, "/spec/token"), &audiences, now)
        .and_then(|claims| still_there(context, claims));
    let status = match checked {
        Err(message) => json!({"authenticated": false, "error": message}),
        Ok(claims) => {
            let text = |pointer: &str| object::text(&claims, pointer).to_string();
            let namespace = text("/kubernetes.io/namespace");
            let extra = json!({
                "authentication.kubernetes.io/pod-name": [text("/kubernetes.io/pod/name")],
                "authentication.kubernetes.io/pod-uid": [text("/kubernetes.io/pod/uid")],
                "authentication.kubernetes.io/node-name": [crate::kubelet::NODE_NAME],
            });
            let groups = [
                "system:serviceaccounts".to_string(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ];
            let given = claims.get("aud").cloned().unwrap_or_default();
            let granted = if audiences.is_empty() {
                given
            } else {
                audiences.into()
            };
            json!({
                "authenticated": true, "audiences": granted,
                "user": {"username": text("/sub"), "uid": text("/kubernetes.io/serviceaccount/uid"), "groups": groups, "extra": extra},
            })
        }
    };
    let answer = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": review.get("spec"), "status": status});
    Ok(respond(StatusCode::CREATED, &answer))
}

/// Whoever could open the socket owns the machine's mesh and may do everything.
pub fn access_review() -> Answer {
    let answer = json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
        "status": {"allowed": true, "reason": "the owner of the socket may do everything"},
    });
    Ok(respond(StatusCode::CREATED, &answer))
}

/// Who asks: the socket's owner.
pub fn self_review() -> Answer {
    let uid = nix::unistd::geteuid();
    let name = match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    };
    let answer = json!({
        "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "status": {"userInfo": {"username": name, "uid": uid.to_string(), "groups": ["system:masters", "system:authenticated"]}},
    });
    Ok(respond(StatusCode::CREATED, &answer))
}

fn still_there(context: &Context, claims: Value) -> Result<Value, String> {
    let namespace = object::text(&claims, "/kubernetes.io/namespace");
    let pod = object::text(&claims, "/kubernetes.io/pod/name");
    if !pod.is_empty() {
        let uid = object::text(&claims, "/kubernetes.io/pod/uid");
        let present = context.store.find(&PODS, namespace, pod);
        if present.is_none_or(|present| object::uid(&present) != uid) {
            return Err("the token's pod is gone".into());
        }
    }
    Ok(claims)
}

/// A new token for a service account.
pub fn token_request(context: &Context, target: &Target, request: &Value) -> Answer {
    let namespace = target.namespace.clone().unwrap_or_else(|| "default".into());
    let name = target.name.clone().unwrap_or_default();
    let account = context.store.read(&SERVICE_ACCOUNTS, &namespace, &name)?;
    let mut audiences: Vec<String> = object::list(request, "/spec/audiences")
        .iter()
        .filter_map(Value::as_str)
        .map(String::from)
        .collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let seconds = object::number(request, "/spec/expirationSeconds")
        .unwrap_or(3_600)
        .clamp(600, MAX_TOKEN_SECONDS);
    let now = jiff::Timestamp::now();
    let subject = Subject {
        namespace,
        account: name,
        account_uid: object::uid(&account).into(),
        pod: None,
    };
    let token = context
        .signer
        .sign(&subject, &audiences, now.as_second(), seconds)
        .map_err(|error| Refusal::Unavailable(error.to_string()))?;
    let expires = now
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    let status = json!({"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let answer = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "spec": {"audiences": audiences, "expirationSeconds": seconds}, "status": status});
    Ok(respond(StatusCode::CREATED, &answer))
}
