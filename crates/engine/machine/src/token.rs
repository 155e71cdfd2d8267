//! Service-account tokens: who a pod is, signed by the runtime, as the API server does on Kubernetes.
//!
//! JWTs with ES256, in the shape of projected service-account tokens. The key stays in the state folder, for the owner only, so
//! that tokens outlive a restart; the control plane asks by TokenReview whether one is good.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};

/// Who issues tokens; Kubernetes' own name for it.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and checks tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Signer")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Namespace of pod and account.
    pub namespace: String,
    /// The service account.
    pub account: String,
    /// The account's uid.
    pub account_uid: String,
    /// Name and uid of the pod, for tokens bound to one.
    pub pod: Option<(String, String)>,
}

impl Signer {
    /// Reads the key, or makes one where there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let document = match fs::read(path) {
            Ok(document) => document,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => new_key(path)?,
            Err(error) => return Err(Error::system(format!("read {}", path.display()), error)),
        };
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document).map_err(
            |_| {
                Error::Configuration(format!(
                    "{} is not a P-256 key in PKCS#8; remove it to get a new one",
                    path.display()
                ))
            },
        )?;
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.public_key().as_ref());
        Ok(Self {
            key_id: BASE64.encode(digest.as_ref()),
            key,
        })
    }

    /// A token for these audiences that is good from `now` for `seconds` (both in Unix seconds).
    pub fn sign(
        &self,
        subject: &Subject,
        audiences: &[String],
        now: i64,
        seconds: i64,
    ) -> Result<String> {
        let mut bound = json!({
            "namespace": subject.namespace,
            "serviceaccount": {"name": subject.account, "uid": subject.account_uid},
        });
        if let Some((name, uid)) = &subject.pod {
            bound["pod"] = json!({"name": name, "uid": uid});
            bound["node"] = json!({"name": crate::kubelet::NODE_NAME});
        }
        let claims = json!({
            "aud": audiences, "iss": ISSUER, "iat": now, "nbf": now, "exp": now + seconds,
            "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": bound,
            "sub": format!("system:serviceaccount:{}:{}", subject.namespace, subject.account),
        });
        let header = json!({"alg": "ES256", "kid": self.key_id, "typ": "JWT"});
        let body = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(&SystemRandom::new(), body.as_bytes())
            .map_err(|_| Error::Peer("a token could not be signed".into()))?;
        Ok(format!("{body}.{}", BASE64.encode(signature.as_ref())))
    }

    /// The claims of a token that we signed and that is good at `now` for one of these audiences (any, when none is given).
    ///
    /// # Errors
    /// Why it is not good.
    pub fn check(&self, token: &str, audiences: &[String], now: i64) -> Result<Value, String> {
        let (body, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let signature = BASE64.decode(signature).map_err(|_| "not a token")?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(body.as_bytes(), &signature)
            .map_err(|_| "the signature is not ours")?;
        let claims = body
            .split_once('.')
            .and_then(|(_, claims)| BASE64.decode(claims).ok())
            .ok_or("not a token")?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| "not a token")?;
        let number = |key: &str| claims.get(key).and_then(Value::as_i64).unwrap_or(0);
        if now >= number("exp") {
            return Err("the token has expired".into());
        }
        if now < number("nbf") {
            return Err("the token is not valid yet".into());
        }
        let fits = |audience: &Value| {
            audience
                .as_str()
                .is_some_and(|audience| audiences.iter().any(|wanted| wanted == audience))
        };
        if !audiences.is_empty()
            && !claims
                .get("aud")
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().any(fits))
        {
            return Err(format!("the token is not for {}", audiences.join(", ")));
        }
        Ok(claims)
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let part =
            |range: std::ops::Range<usize>| BASE64.encode(point.get(range).unwrap_or_default());
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": part(1..33), "y": part(33..65)}]})
    }
}

fn new_key(path: &Path) -> Result<Vec<u8>> {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Peer("no key could be made".into()))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .context(|| format!("make {}", path.display()))?;
    file.write_all(document.as_ref())
        .context(|| format!("write {}", path.display()))?;
    Ok(document.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_good_for_its_audience_and_time_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let signer = Signer::open(&path).expect("a key");
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
        let subject = Subject {
            namespace: "a".into(),
            account: "b".into(),
            account_uid: "1".into(),
            pod: Some(("p".into(), "2".into())),
        };
        let audience = vec!["istio-ca".to_string()];
        let token = signer
            .sign(&subject, &audience, 1_000, 600)
            .expect("signed");
        let again = Signer::open(&path).expect("the same key");
        let claims = again.check(&token, &audience, 1_100).expect("good");
        assert_eq!(claims["sub"], "system:serviceaccount:a:b");
        assert_eq!(claims["kubernetes.io"]["pod"]["name"], "p");
        again
            .check(&token, &["other".into()], 1_100)
            .expect_err("another audience");
        again.check(&token, &audience, 1_600).expect_err("expired");
        again.check(&token, &audience, 999).expect_err("not yet");
        let mut forged = token.clone();
        forged.replace_range(
            forged.find('.').expect("a dot") + 2..forged.find('.').expect("a dot") + 3,
            "_",
        );
        again.check(&forged, &audience, 1_100).expect_err("forged");
    }
}
