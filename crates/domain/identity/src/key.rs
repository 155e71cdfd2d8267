//! Private keys. The bytes are wiped when the key is dropped, never printed, and leave only by
//! [`PrivateKey::to_pem`].

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{
    PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    pem::{self, PemObject},
};
use zeroize::Zeroizing;

use crate::{IdentityError, pem::encode};

/// A private key: ECDSA P-256 when generated here; ECDSA, RSA or Ed25519 when read.
pub struct PrivateKey {
    der: Zeroizing<Vec<u8>>,
    encoding: Encoding,
    algorithm: KeyAlgorithm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    Ecdsa,
    Rsa,
    Ed25519,
}

#[derive(Clone, Copy)]
enum Encoding {
    Pkcs8,
    Sec1,
    Pkcs1,
}

impl PrivateKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|e| IdentityError::Crypto(e.to_string()))?;
        let der = Zeroizing::new(pair.serialize_der());
        Ok(Self {
            der,
            encoding: Encoding::Pkcs8,
            algorithm: KeyAlgorithm::Ecdsa,
        })
    }

    /// Reads the first private key of a PEM text: PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA
    /// PRIVATE KEY`), not encrypted.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| match e {
            pem::Error::NoItemsFound if text.contains("ENCRYPTED PRIVATE KEY") => {
                IdentityError::Key(
                    "is encrypted with a passphrase; only unencrypted keys can be read".into(),
                )
            }
            pem::Error::NoItemsFound => {
                IdentityError::Key("no PEM block with a private key".into())
            }
            other => IdentityError::Key(other.to_string()),
        })?;
        let encoding = match &key {
            PrivateKeyDer::Pkcs8(_) => Encoding::Pkcs8,
            PrivateKeyDer::Sec1(_) => Encoding::Sec1,
            PrivateKeyDer::Pkcs1(_) => Encoding::Pkcs1,
            _ => return Err(IdentityError::Key("unknown PEM encoding of the key".into())),
        };
        let pair = KeyPair::try_from(&key).map_err(|_| {
            IdentityError::Key("is no valid ECDSA, RSA (2048 bits or more) or Ed25519 key".into())
        })?;
        let algorithm = algorithm_of(&pair);
        Ok(Self {
            der: Zeroizing::new(key.secret_der().to_vec()),
            encoding,
            algorithm,
        })
    }

    /// The key as PEM. For the CA's own key file and the Envoy on the same machine; nothing else
    /// may call this.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let label = match self.encoding {
            Encoding::Pkcs8 => "PRIVATE KEY",
            Encoding::Sec1 => "EC PRIVATE KEY",
            Encoding::Pkcs1 => "RSA PRIVATE KEY",
        };
        Zeroizing::new(encode(label, &self.der))
    }

    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The public half as PEM (`PUBLIC KEY`, SubjectPublicKeyInfo).
    pub fn public_key_pem(&self) -> Result<String, IdentityError> {
        Ok(self.pair()?.public_key_pem())
    }

    /// The public half as DER (SubjectPublicKeyInfo).
    pub fn public_key_der(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(self.pair()?.subject_public_key_info())
    }

    pub(crate) fn pair(&self) -> Result<KeyPair, IdentityError> {
        KeyPair::try_from(&self.to_der()).map_err(|e| IdentityError::Key(e.to_string()))
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        let der = self.der.to_vec();
        match self.encoding {
            Encoding::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
            Encoding::Sec1 => PrivateSec1KeyDer::from(der).into(),
            Encoding::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
        }
    }

    /// PKCS#8 bytes, whatever the key was read from.
    pub(crate) fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, IdentityError> {
        match self.encoding {
            Encoding::Pkcs8 => Ok(self.to_pem()),
            Encoding::Sec1 | Encoding::Pkcs1 => Err(IdentityError::Key(
                "must be in PKCS#8 form (`BEGIN PRIVATE KEY`)".into(),
            )),
        }
    }
}

fn algorithm_of(pair: &KeyPair) -> KeyAlgorithm {
    let name = format!("{:?}", pair.algorithm());
    if name.contains("ECDSA") {
        KeyAlgorithm::Ecdsa
    } else if name.contains("ED25519") {
        KeyAlgorithm::Ed25519
    } else {
        KeyAlgorithm::Rsa
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, redacted)", self.algorithm)
    }
}
