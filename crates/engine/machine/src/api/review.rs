//! TokenReview, SubjectAccessReview and the token part of service accounts.

use std::time::Duration;

use http::StatusCode;
use identity::jwt::{Claims, TokenRequest};
use identity::{IdentityError, ServiceAccountName};
use serde_json::{Value, json};
use stdx::{Clock as _, SystemClock};

use super::answer::{Answer, json as respond};
use super::route::Target;
use crate::context::Context;
use crate::object;
use crate::store::Refusal;
use crate::store::kinds::{PODS, SERVICE_ACCOUNTS};
use crate::token::ISSUER;

/// The longest life of a token that somebody asks for.
const MAX_TOKEN_SECONDS: i64 = 86_400;

/// Whether a token is good, and whose it is. A token that is bound to a pod is good only while that
/// pod is there.
pub fn token_review(context: &Context, review: &Value) -> Answer {
    let audiences = texts(review, "/spec/audiences");
    let wanted: Vec<&str> = audiences.iter().map(String::as_str).collect();
    let token = object::text(review, "/spec/token");
    let checked = context
        .tokens
        .verifier
        .verify(token, &wanted, SystemClock.wall())
        .map_err(|error| error.to_string())
        .and_then(|claims| still_there(context, claims));
    let status = match checked {
        Err(message) => json!({"authenticated": false, "error": message}),
        Ok(claims) => authenticated(&claims, &wanted),
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

/// The status for a good token; of the wanted audiences those that it has.
fn authenticated(claims: &Claims, wanted: &[&str]) -> Value {
    let inner = &claims.kubernetes;
    let mut extra = serde_json::Map::new();
    for (what, named) in [("pod", &inner.pod), ("node", &inner.node)] {
        let Some(named) = named else { continue };
        let key = |part: &str| format!("authentication.kubernetes.io/{what}-{part}");
        extra.insert(key("name"), json!([named.name]));
        if !named.uid.is_empty() {
            extra.insert(key("uid"), json!([named.uid]));
        }
    }
    let groups = [
        "system:serviceaccounts".to_string(),
        format!("system:serviceaccounts:{}", inner.namespace),
        "system:authenticated".into(),
    ];
    let mut granted = claims.aud.clone();
    granted.retain(|audience| wanted.is_empty() || wanted.contains(&audience.as_str()));
    json!({
        "authenticated": true, "audiences": granted,
        "user": {"username": claims.sub, "uid": inner.serviceaccount.uid, "groups": groups, "extra": extra},
    })
}

fn texts(object: &Value, pointer: &str) -> Vec<String> {
    let texts = object::list(object, pointer).iter();
    texts.filter_map(Value::as_str).map(String::from).collect()
}

fn still_there(context: &Context, claims: Claims) -> Result<Claims, String> {
    if let Some(pod) = &claims.kubernetes.pod {
        let namespace = &claims.kubernetes.namespace;
        let present = context.store.find(&PODS, namespace, &pod.name);
        if present.is_none_or(|present| object::uid(&present) != pod.uid) {
            return Err("the token's pod is gone".into());
        }
    }
    Ok(claims)
}

/// Whether somebody may do something. Nobody but the mesh's owner reaches this API, and Roles are
/// stored without being obeyed; so there is one rule: a service account may read the Secrets of its
/// namespace while one of the gateways there runs under it.
pub fn subject_access_review(context: &Context, review: &Value) -> Answer {
    let asked = |name: &str| object::text(review, &format!("/spec/resourceAttributes/{name}"));
    let namespace = asked("namespace");
    let account = object::text(review, "/spec/user")
        .strip_prefix("system:serviceaccount:")
        .and_then(|subject| subject.split_once(':'))
        .filter(|(own, _)| *own == namespace)
        .map(|(_, account)| account);
    let reads_secrets = asked("group").is_empty()
        && asked("resource") == "secrets"
        && matches!(asked("verb"), "get" | "list" | "watch");
    let allowed = reads_secrets
        && account.is_some_and(|account| {
            let (pods, _) = context.store.list(&PODS, Some(namespace));
            pods.iter().any(|pod| is_gateway_of(pod, account))
        });
    let reason = match allowed {
        true => "a gateway of the namespace runs under this service account",
        false => {
            "on one machine service accounts may do nothing but read the Secrets of their namespace, where a gateway runs under them"
        }
    };
    let status = json!({"allowed": allowed, "reason": reason});
    let answer = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": review.get("spec"), "status": status});
    Ok(respond(StatusCode::CREATED, &answer))
}

/// By what the runtime made of the pod, not by what runs in it.
fn is_gateway_of(pod: &Value, account: &str) -> bool {
    let template = object::text(pod, "/metadata/annotations/tanbark.io~1proxy");
    let own = match object::text(pod, "/spec/serviceAccountName") {
        "" => "default",
        name => name,
    };
    template == "gateway" && own == account
}

/// A new token for a service account.
pub fn token_request(context: &Context, target: &Target, request: &Value) -> Answer {
    let namespace = target.namespace.clone().unwrap_or_else(|| "default".into());
    let name = target.name.clone().unwrap_or_default();
    let account = context.store.read(&SERVICE_ACCOUNTS, &namespace, &name)?;
    let mut audiences = texts(request, "/spec/audiences");
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let seconds = object::number(request, "/spec/expirationSeconds")
        .unwrap_or(3_600)
        .clamp(600, MAX_TOKEN_SECONDS);
    let refused = |error: IdentityError| Refusal::Invalid(error.to_string());
    let wanted: Vec<&str> = audiences.iter().map(String::as_str).collect();
    let ttl = Duration::from_secs(seconds.unsigned_abs());
    let token_request = TokenRequest {
        account: &ServiceAccountName::new(&namespace, &name).map_err(refused)?,
        account_uid: object::uid(&account),
        pod: None,
        node: None,
        audiences: &wanted,
        ttl,
    };
    let token = context
        .tokens
        .signer
        .sign(&token_request, SystemClock.wall())
        .map_err(refused)?;
    let expires = object::timestamp()
        .checked_add(ttl)
        .unwrap_or(jiff::Timestamp::MAX);
    let status = json!({"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let answer = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "spec": {"audiences": audiences, "expirationSeconds": seconds}, "status": status});
    Ok(respond(StatusCode::CREATED, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_known_by_what_the_runtime_made_of_them() {
        let pod = |template: &str, account: &str| json!({"metadata": {"annotations": {inject::TEMPLATE_ANNOTATION: template}}, "spec": {"serviceAccountName": account}});
        assert!(is_gateway_of(&pod("gateway", "front"), "front"));
        assert!(!is_gateway_of(&pod("gateway", "front"), "cart"));
        assert!(!is_gateway_of(&pod("sidecar", "front"), "front"));
        assert!(is_gateway_of(&pod("gateway", ""), "default"));
    }
}
