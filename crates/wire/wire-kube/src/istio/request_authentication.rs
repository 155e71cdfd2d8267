//! `security.istio.io` RequestAuthentication: which JWTs a workload accepts.

use std::time::Duration;

use super::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    struct RequestAuthentication {
        selector: Option<WorkloadSelector>,
        /// Deprecated form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        jwt_rules: Vec<JwtRule>,
    }
}

message! {
    struct JwtRule {
        issuer: String,
        audiences: Vec<String>,
        jwks_uri: String,
        jwks: String,
        from_headers: Vec<JwtHeader>,
        from_params: Vec<String>,
        from_cookies: Vec<String>,
        output_payload_to_header: String,
        forward_original_token: bool,
        output_claim_to_headers: Vec<ClaimToHeader>,
        timeout: Option<Duration>,
        space_delimited_claims: Vec<String>,
    }
}

message! {
    struct JwtHeader {
        name: String,
        prefix: String,
    }
}

message! {
    struct ClaimToHeader {
        header: String,
        claim: String,
    }
}
