//! Service-account tokens: signed and verified here as a Kubernetes API server does for projected
//! tokens (ES256).
//!
//! Time is an argument: `jsonwebtoken`'s own clock checks are switched off and made here.
//! Verification is strict: our algorithm only, our key id, our issuer, one of the wanted audiences,
//! inside `[nbf, exp)`.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};

use crate::{IdentityError, PrivateKey, ServiceAccountName};
use wire::WireClaims;

mod wire;

#[cfg(test)]
mod tests;

/// A token larger than this is refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Signs tokens. Keeps the key of one issuer.
pub struct TokenSigner {
    issuer: String,
    key_id: String,
    encoding: EncodingKey,
    public_pem: String,
    public_point: Vec<u8>,
}

/// Verifies tokens of one issuer.
pub struct TokenVerifier {
    issuer: String,
    key_id: String,
    decoding: DecodingKey,
}

/// What a new token is for.
#[derive(Debug, Clone)]
pub struct TokenRequest<'a> {
    pub account: &'a ServiceAccountName,
    /// Uid of the ServiceAccount object.
    pub account_uid: &'a str,
    /// Name and uid of the pod that the token is bound to.
    pub pod: Option<(&'a str, &'a str)>,
    /// Name and uid of the pod's node.
    pub node: Option<(&'a str, &'a str)>,
    pub audiences: &'a [&'a str],
    pub ttl: Duration,
}

/// The claims of a projected service-account token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub aud: Vec<String>,
    /// Seconds since 1970, as are `iat` and `nbf`.
    pub exp: u64,
    pub iat: u64,
    pub iss: String,
    pub jti: String,
    pub kubernetes: KubernetesClaims,
    pub nbf: u64,
    pub sub: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesClaims {
    pub namespace: String,
    pub node: Option<Named>,
    pub pod: Option<Named>,
    pub serviceaccount: Named,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

impl TokenSigner {
    /// The key must be ECDSA P-256 in PKCS#8 (what [`PrivateKey::generate`] makes).
    pub fn new(key: &PrivateKey, issuer: &str) -> Result<Self, IdentityError> {
        let encoding = EncodingKey::from_ec_pem(key.to_pkcs8_pem()?.as_bytes())
            .map_err(|e| IdentityError::Key(format!("for signing tokens: {e}")))?;
        let der = key.public_key_der()?;
        let key_id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &der));
        // The last 65 bytes of a P-256 SubjectPublicKeyInfo are 0x04, x, y.
        let public_point = match der.len().checked_sub(65).and_then(|at| der.get(at..)) {
            Some([4, point @ ..]) => point.to_vec(),
            _ => {
                return Err(IdentityError::Key(
                    "for signing tokens must be ECDSA P-256".into(),
                ));
            }
        };
        Ok(Self {
            issuer: issuer.to_owned(),
            key_id,
            encoding,
            public_pem: key.public_key_pem()?,
            public_point,
        })
    }

    pub fn sign(
        &self,
        request: &TokenRequest<'_>,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let issued = seconds(now);
        let named = |(name, uid): (&str, &str)| Named {
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let claims = Claims {
            aud: request.audiences.iter().map(|a| (*a).to_owned()).collect(),
            exp: issued.saturating_add(request.ttl.as_secs()),
            iat: issued,
            nbf: issued,
            iss: self.issuer.clone(),
            jti: random_id()?,
            kubernetes: KubernetesClaims {
                namespace: request.account.namespace().to_owned(),
                node: request.node.map(named),
                pod: request.pod.map(named),
                serviceaccount: named((request.account.name(), request.account_uid)),
            },
            sub: request.account.subject(),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &WireClaims::from(claims), &self.encoding)
            .map_err(|e| IdentityError::Crypto(e.to_string()))
    }

    pub fn verifier(&self) -> Result<TokenVerifier, IdentityError> {
        let decoding = DecodingKey::from_ec_pem(self.public_pem.as_bytes())
            .map_err(|e| IdentityError::Crypto(e.to_string()))?;
        Ok(TokenVerifier {
            issuer: self.issuer.clone(),
            key_id: self.key_id.clone(),
            decoding,
        })
    }

    /// The public key as a JSON Web Key Set, as `/openid/v1/jwks` answers.
    pub fn jwks(&self) -> String {
        let (x, y) = self.public_point.split_at(self.public_point.len() / 2);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
        .to_string()
    }
}

impl TokenVerifier {
    /// The claims of a good token that is meant for one of `audiences` (any, when that is empty).
    pub fn verify(
        &self,
        token: &str,
        audiences: &[&str],
        now: SystemTime,
    ) -> Result<Claims, IdentityError> {
        let refuse = |why: &str| Err(IdentityError::Token(why.to_owned()));
        if token.len() > MAX_TOKEN_BYTES {
            return refuse("is larger than 16 KiB");
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| IdentityError::Token("is no JWT".into()))?;
        if header.kid.as_deref() != Some(self.key_id.as_str()) {
            return refuse("was signed with a key that is not known here");
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<WireClaims>(token, &self.decoding, &validation)
            .map_err(|e| IdentityError::Token(e.to_string()))?;
        let claims = Claims::from(decoded.claims);
        let now = seconds(now);
        if claims.iss != self.issuer {
            return refuse("has another issuer");
        }
        if now >= claims.exp {
            return refuse("has expired");
        }
        if now < claims.nbf {
            return refuse("is not valid yet");
        }
        if !audiences.is_empty() && !claims.aud.iter().any(|a| audiences.contains(&a.as_str())) {
            return refuse("is meant for another audience");
        }
        claims.account()?;
        Ok(claims)
    }
}

impl Claims {
    /// The account, checked to be the same in `sub` and in `kubernetes.io`.
    pub fn account(&self) -> Result<ServiceAccountName, IdentityError> {
        let account = ServiceAccountName::parse_subject(&self.sub)?;
        let inner = &self.kubernetes;
        if account.namespace() != inner.namespace || account.name() != inner.serviceaccount.name {
            return Err(IdentityError::Token(
                "its subject and its kubernetes.io claims differ".into(),
            ));
        }
        Ok(account)
    }
}

/// `exp` of any JWT, unverified: for a client that wants to know when to read its token again.
pub fn unverified_expiry(token: &str) -> Option<u64> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&payload)
        .ok()?
        .get("exp")?
        .as_u64()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn random_id() -> Result<String, IdentityError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| IdentityError::Crypto("no random numbers".into()))?;
    Ok(crate::peer::hex(&bytes))
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({}, key redacted)", self.issuer)
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenVerifier({})", self.issuer)
    }
}
