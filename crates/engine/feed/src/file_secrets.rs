//! Secrets that a control plane leaves to the agent beside the proxy: files of the workload's own
//! machine, by names that tell them.
//!
//! `file-root:system` is the machine's trust store, `file-root:PATH` trusted roots in PEM, and
//! `file-cert:CERT~KEY` a certificate chain with its key (Istio's names, from `caCertificates`,
//! `clientCertificate`/`privateKey` and a Gateway's `serverCertificate`). Read by the proxy itself,
//! or by the agent for a stock Envoy, and read again when a file changes. Files are looked at every
//! [`INTERVAL`] rather than watched: a mounted Secret is replaced by a link to another folder,
//! which no file's own events tell.
//!
//! A file that cannot be read at first is told by name, and what needs it is refused. One that was
//! good and can no longer be read leaves the last good value in use, since files are often replaced
//! in more than one step.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use identity::{TlsCertificate, TrustBundle};
use proxy_config::{
    Secret, SecretName,
    secret::{Certificate, SecretValue},
};
use tokio::{sync::mpsc, task::JoinSet};

#[cfg(test)]
mod tests;

/// How often files are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// A larger file holds no certificate.
const MAX_BYTES: u64 = 4 << 20;

/// Which files a secret's name tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSecret {
    SystemRoots,
    Roots(PathBuf),
    Certificate { chain: PathBuf, key: PathBuf },
}

/// What became of a secret's files.
#[derive(Debug, Clone)]
pub struct Answer {
    pub name: String,
    /// Why it cannot be used: file and reason.
    pub secret: Result<Arc<Secret>, String>,
}

/// One task for each secret that is followed.
pub struct FileSecrets {
    answers: mpsc::Sender<Answer>,
    running: HashMap<String, JoinSet<()>>,
}

impl FileSecret {
    /// `None`: the secret comes from elsewhere.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(path) = name.strip_prefix("file-root:") {
            return Some(match path {
                "system" => Self::SystemRoots,
                path => Self::Roots(path.into()),
            });
        }
        let (chain, key) = name.strip_prefix("file-cert:")?.split_once('~')?;
        Some(Self::Certificate {
            chain: chain.into(),
            key: key.into(),
        })
    }

    /// Reads it. The machine's store is read leniently (what no TLS library takes is left out),
    /// named files strictly.
    ///
    /// # Errors
    /// The file and what is wrong with it; never anything of a key.
    pub fn read(&self) -> Result<SecretValue, String> {
        match self {
            Self::SystemRoots => {
                let roots = TrustBundle::system().map_err(|e| e.to_string())?;
                Ok(of_roots(roots.usable_pem()))
            }
            Self::Roots(path) => {
                let pem = text(path)?;
                TrustBundle::from_pem(&pem).map_err(|e| format!("{}: {e}", path.display()))?;
                Ok(of_roots(pem))
            }
            Self::Certificate { chain, key } => {
                let (chain_pem, key_pem) = (text(chain)?, text(key)?);
                TlsCertificate::from_pem(&chain_pem, &key_pem)
                    .map_err(|e| format!("{} with {}: {e}", chain.display(), key.display()))?;
                Ok(SecretValue::Certificate(Arc::new(Certificate {
                    chain_pem: chain_pem.into(),
                    key_pem: key_pem.into(),
                    ocsp_staple: None,
                })))
            }
        }
    }

    /// Changes whenever one of the files does.
    fn state(&self) -> Vec<Option<(u64, u64, i64, i64)>> {
        let of = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        match self {
            Self::SystemRoots => Vec::new(),
            Self::Roots(path) => vec![of(path)],
            Self::Certificate { chain, key } => vec![of(chain), of(key)],
        }
    }
}

fn of_roots(pem: String) -> SecretValue {
    SecretValue::Roots {
        pem: pem.into(),
        crl_pem: None,
    }
}

fn text(path: &Path) -> Result<String, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let size = fs::metadata(path).map_err(|e| wrong(&e))?.len();
    if size > MAX_BYTES {
        return Err(wrong(&format!("has {size} bytes, more than {MAX_BYTES}")));
    }
    fs::read_to_string(path).map_err(|e| wrong(&e))
}

impl FileSecrets {
    pub fn new(answers: mpsc::Sender<Answer>) -> Self {
        Self {
            answers,
            running: HashMap::new(),
        }
    }

    /// Starts and ends tasks so that exactly those of these names that tell of files are followed.
    pub fn follow(&mut self, names: &BTreeSet<String>) {
        self.running.retain(|name, _| names.contains(name));
        for name in names {
            let Some(secret) = FileSecret::parse(name) else {
                continue;
            };
            if !self.running.contains_key(name) {
                let mut task = JoinSet::new();
                task.spawn(keep_read(name.clone(), secret, self.answers.clone()));
                self.running.insert(name.clone(), task);
            }
        }
    }
}

/// Answers at first, and whenever what is read differs.
async fn keep_read(name: String, secret: FileSecret, answers: mpsc::Sender<Answer>) {
    let mut seen = None;
    let mut last: Option<Result<SecretValue, String>> = None;
    loop {
        let (reader, before) = (secret.clone(), seen.clone());
        // Files may be on a slow disk or a network's.
        let read = tokio::task::spawn_blocking(move || {
            let now = reader.state();
            (before.as_ref() != Some(&now)).then(|| (now, reader.read()))
        });
        let Ok(read) = read.await else { return };
        if let Some((state, value)) = read {
            seen = Some(state);
            if last.as_ref() != Some(&value) {
                let answer = Answer {
                    name: name.clone(),
                    secret: value.clone().and_then(|value| named(&name, value)),
                };
                last = Some(value);
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn named(name: &str, value: SecretValue) -> Result<Arc<Secret>, String> {
    let name = SecretName::parse(name).map_err(|e| e.to_string())?;
    Ok(Arc::new(Secret { name, value }))
}
