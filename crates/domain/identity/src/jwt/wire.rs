//! The claims of a projected service-account token as JSON (RFC 7519; `kubernetes.io` as the
//! Kubernetes API server writes it). Only [`super`] knows these types: it checks what was read and
//! hands out [`Claims`].

use serde::{Deserialize, Serialize};

use super::{Claims, KubernetesClaims, Named};

#[derive(Serialize, Deserialize)]
pub(super) struct WireClaims {
    aud: OneOrMany,
    exp: u64,
    iat: u64,
    iss: String,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: WireKubernetes,
    #[serde(default)]
    nbf: u64,
    sub: String,
}

#[derive(Serialize, Deserialize)]
struct WireKubernetes {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<WireNamed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<WireNamed>,
    serviceaccount: WireNamed,
}

#[derive(Serialize, Deserialize)]
struct WireNamed {
    name: String,
    uid: String,
}

/// RFC 7519 section 4.1.3: one audience may stand alone.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<WireClaims> for Claims {
    fn from(wire: WireClaims) -> Self {
        let WireClaims {
            aud,
            exp,
            iat,
            iss,
            jti,
            kubernetes,
            nbf,
            sub,
        } = wire;
        let WireKubernetes {
            namespace,
            node,
            pod,
            serviceaccount,
        } = kubernetes;
        Self {
            aud: match aud {
                OneOrMany::One(one) => vec![one],
                OneOrMany::Many(many) => many,
            },
            exp,
            iat,
            iss,
            jti,
            kubernetes: KubernetesClaims {
                namespace,
                node: node.map(Named::from),
                pod: pod.map(Named::from),
                serviceaccount: serviceaccount.into(),
            },
            nbf,
            sub,
        }
    }
}

impl From<Claims> for WireClaims {
    fn from(claims: Claims) -> Self {
        let Claims {
            aud,
            exp,
            iat,
            iss,
            jti,
            kubernetes,
            nbf,
            sub,
        } = claims;
        let KubernetesClaims {
            namespace,
            node,
            pod,
            serviceaccount,
        } = kubernetes;
        Self {
            aud: OneOrMany::Many(aud),
            exp,
            iat,
            iss,
            jti,
            kubernetes: WireKubernetes {
                namespace,
                node: node.map(WireNamed::from),
                pod: pod.map(WireNamed::from),
                serviceaccount: serviceaccount.into(),
            },
            nbf,
            sub,
        }
    }
}

impl From<WireNamed> for Named {
    fn from(WireNamed { name, uid }: WireNamed) -> Self {
        Self { name, uid }
    }
}

impl From<Named> for WireNamed {
    fn from(Named { name, uid }: Named) -> Self {
        Self { name, uid }
    }
}
