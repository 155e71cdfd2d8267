//! The tokens that say whose a pod is, signed by the runtime, as the API server does on Kubernetes.
//!
//! [`identity::jwt`] has the tokens themselves; here their key is kept: in the state folder, for
//! the owner only, so that tokens outlive a restart. The control plane asks by TokenReview whether
//! a token is good.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use identity::jwt::{TokenSigner, TokenVerifier};
use identity::{IdentityError, PrivateKey};

use crate::error::{Context, Error, Result};

/// Who issues tokens; Kubernetes' own name for it.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and checks the tokens of one state folder.
#[derive(Debug)]
pub struct Tokens {
    /// Makes them.
    pub signer: TokenSigner,
    /// Checks what [`Self::signer`] made.
    pub verifier: TokenVerifier,
}

impl Tokens {
    /// Reads the key, or makes one where there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no key that signs tokens.
    pub fn open(path: &Path) -> Result<Self> {
        let key = match fs::read_to_string(path) {
            Ok(text) => PrivateKey::from_pem(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(new_key(path)?),
            Err(error) => return Err(Error::system(format!("read {}", path.display()), error)),
        };
        let unusable = |error: IdentityError| {
            Error::Configuration(format!(
                "{}: {error}; remove it to get a new key",
                path.display()
            ))
        };
        let signer = key
            .and_then(|key| TokenSigner::new(&key, ISSUER))
            .map_err(unusable)?;
        let verifier = signer.verifier().map_err(unusable)?;
        Ok(Self { signer, verifier })
    }
}

/// Written whole or not at all.
fn new_key(path: &Path) -> Result<PrivateKey> {
    let key = PrivateKey::generate()
        .map_err(|error| Error::Peer(format!("no key for tokens can be made: {error}")))?;
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .context(|| format!("make {}", fresh.display()))?;
    file.write_all(key.to_pem().as_bytes())
        .context(|| format!("write {}", fresh.display()))?;
    fs::rename(&fresh, path).context(|| format!("write {}", path.display()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use identity::ServiceAccountName;
    use identity::jwt::TokenRequest;

    use super::*;

    #[test]
    fn a_token_outlives_the_runtime_that_signed_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let tokens = Tokens::open(&path).expect("a key");
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
        let request = TokenRequest {
            account: &ServiceAccountName::new("a", "b").expect("a name"),
            account_uid: "1",
            pod: Some(("p", "2")),
            node: None,
            audiences: &["istio-ca"],
            ttl: Duration::from_secs(600),
        };
        let now = SystemTime::now();
        let token = tokens.signer.sign(&request, now).expect("signed");
        let again = Tokens::open(&path).expect("the same key");
        let claims = again.verifier.verify(&token, &["istio-ca"], now);
        assert_eq!(claims.expect("good").sub, "system:serviceaccount:a:b");
        let other = Tokens::open(&folder.path().join("other.pem")).expect("another key");
        other
            .verifier
            .verify(&token, &[], now)
            .expect_err("signed by another");
    }

    #[test]
    fn a_broken_key_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        fs::write(&path, "").expect("written");
        let error = Tokens::open(&path).expect_err("refused").to_string();
        assert!(
            error.contains("key.pem") && error.contains("remove it"),
            "{error}"
        );
    }
}
