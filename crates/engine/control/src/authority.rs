//! The mesh's certificate authority: where its key comes from, and how the root reaches every
//! namespace.
//!
//! In order: the Secret `cacerts` in the root namespace (plug-in CA, row SEC-006), the files of a
//! `cacerts` folder in the CA directory, the self-signed root kept in the CA directory, a new
//! self-signed root written there (directory 0700, files 0600, each whole or absent). What is found
//! but cannot be used ends the start: a mesh never changes its root by accident. The public root
//! goes to a ConfigMap `istio-ca-root-cert` in each namespace (row SEC-008), where agents and
//! proxies read it.
//!
//! A plugged authority is looked at again every few seconds: a new signing certificate under the
//! same root takes over at once, and workloads get it with their next certificate. Another root is
//! refused by name: no proxy would trust what it signs until all have both (root rotation is not
//! supported yet).

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use identity::{AuthorityPem, CertificateAuthority, CertificateChain, TrustDomain};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};

use mesh_model::Snapshot;
use tokio::{sync::watch, time::timeout};

use crate::{error::ControlError, metrics::AuthorityMetrics};

const KEY_FILE: &str = "ca-key.pem";
const PLUGGED_SECRET: &str = "cacerts";
/// Name and key of the ConfigMap that carries the root.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
pub const ROOT_KEY: &str = "root-cert.pem";
/// How often the published root is compared in every namespace.
const ROOT_CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// The pause after a root could not be published.
const ROOT_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often a plugged authority is compared with the one in force.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The authority in force.
pub type Current = Arc<ArcSwap<CertificateAuthority>>;

/// Where an authority may be found.
#[derive(Clone)]
pub struct Place {
    pub client: Client,
    pub root_namespace: String,
    pub directory: PathBuf,
}

/// Finds the authority, or makes one whose root is valid from `now` on.
pub async fn load(
    place: &Place,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CertificateAuthority, ControlError> {
    if let Some((pem, source)) = plugged(place).await? {
        return parsed(&pem, &source);
    }
    let directory = &place.directory;
    if directory.join(KEY_FILE).exists() {
        let pem = read_files(directory)?;
        warn_if_readable_by_others(&directory.join(KEY_FILE));
        return parsed(&pem, &directory.display().to_string());
    }
    let authority = CertificateAuthority::self_signed(trust_domain, now)?;
    write_files(directory, &authority.to_pem())?;
    tracing::info!(directory = %directory.display(), "made a new self-signed root certificate");
    Ok(authority)
}

fn parsed(pem: &AuthorityPem, source: &str) -> Result<CertificateAuthority, ControlError> {
    CertificateAuthority::from_pem(pem)
        .map_err(|e| ControlError::Authority(format!("{source}: {e}")))
}

/// The plug-in authority and where it is from, if there is one.
async fn plugged(place: &Place) -> Result<Option<(AuthorityPem, String)>, ControlError> {
    let Place {
        client,
        root_namespace,
        directory,
    } = place;
    if let Some(pem) = plugged_secret(client, root_namespace).await? {
        return Ok(Some((
            pem,
            format!("Secret {root_namespace}/{PLUGGED_SECRET}"),
        )));
    }
    let folder = directory.join(PLUGGED_SECRET);
    // A plugged folder that lacks its key is a mistake to report, not a reason to make another
    // root.
    if !folder.is_dir() {
        return Ok(None);
    }
    let pem = read_files(&folder)?;
    warn_if_readable_by_others(&folder.join(KEY_FILE));
    Ok(Some((pem, folder.display().to_string())))
}

/// Takes over what is plugged in while the control plane runs. What cannot be used is said once and
/// changes nothing.
pub async fn keep_plugged(place: Place, current: Current, metrics: AuthorityMetrics) {
    let mut said = None;
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let outcome = reload(&place, &current).await.and_then(|source| {
            show_ends(&current.load(), &metrics)?;
            Ok(source)
        });
        let problem = outcome.as_ref().err().map(ToString::to_string);
        match (outcome, &problem) {
            (Ok(Some(source)), _) => {
                tracing::info!(%source, "the certificate authority was replaced by a new one of the same root")
            }
            (Err(error), problem) if said != *problem => {
                tracing::error!(%error, "the certificate authority stays as it was")
            }
            _ => {}
        }
        said = problem;
    }
}

/// `Some`: what is plugged in was new and has taken over.
async fn reload(place: &Place, current: &Current) -> Result<Option<String>, ControlError> {
    let Some((pem, source)) = plugged(place).await? else {
        return Ok(None);
    };
    let held = current.load();
    let new = parsed(&pem, &source)?;
    let (before, after) = (held.to_pem(), new.to_pem());
    if before.ca_cert == after.ca_cert && before.cert_chain == after.cert_chain {
        return Ok(None);
    }
    if new.bundle() != held.bundle() {
        return Err(ControlError::Authority(format!(
            "{source} has another root certificate: root rotation is not supported yet; restart the mesh to begin with the new root, or plug in an authority of the present one"
        )));
    }
    current.store(Arc::new(new));
    Ok(Some(source))
}

async fn plugged_secret(
    client: &Client,
    namespace: &str,
) -> Result<Option<AuthorityPem>, ControlError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = secrets.get_opt(PLUGGED_SECRET).await? else {
        return Ok(None);
    };
    let data = secret.data.unwrap_or_default();
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| data.get(*name));
        found.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
    };
    let needed = |names: &[&str]| {
        text(names).ok_or_else(|| {
            ControlError::Authority(format!(
                "Secret {namespace}/{PLUGGED_SECRET} has no key `{}`",
                names.join("` or `")
            ))
        })
    };
    Ok(Some(AuthorityPem {
        ca_cert: needed(&["ca-cert.pem", "tls.crt"])?,
        ca_key: needed(&["ca-key.pem", "tls.key"])?.into(),
        cert_chain: text(&["cert-chain.pem"]).unwrap_or_default(),
        root_cert: needed(&["root-cert.pem", "ca.crt"])?,
    }))
}

fn read_files(folder: &Path) -> Result<AuthorityPem, ControlError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path)
            .map_err(|e| ControlError::Authority(format!("{}: {e}", path.display())))
    };
    Ok(AuthorityPem {
        ca_cert: read("ca-cert.pem")?,
        ca_key: read(KEY_FILE)?.into(),
        cert_chain: if folder.join("cert-chain.pem").exists() {
            read("cert-chain.pem")?
        } else {
            String::new()
        },
        root_cert: read("root-cert.pem")?,
    })
}

fn write_files(folder: &Path, pem: &AuthorityPem) -> Result<(), ControlError> {
    let failed = |e: std::io::Error| ControlError::Authority(format!("{}: {e}", folder.display()));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    // The folder may have been made by somebody with a wider mode.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    // The key comes last: its presence says that the set is whole.
    for (name, text) in [
        ("root-cert.pem", pem.root_cert.as_str()),
        ("ca-cert.pem", &pem.ca_cert),
        (KEY_FILE, pem.ca_key.as_str()),
    ] {
        write_whole(&folder.join(name), text).map_err(failed)?;
    }
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// Writes beside the file and renames, so that a crash leaves the file whole or absent.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    // What an earlier crash left behind may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn warn_if_readable_by_others(key: &Path) {
    if fs::metadata(key).is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
        tracing::warn!(key = %key.display(), "the certificate authority's key can be read by others: chmod 600");
    }
}

/// Shows when the first of the root certificates and the authority's own certificate end.
pub fn show_ends(
    authority: &CertificateAuthority,
    metrics: &AuthorityMetrics,
) -> Result<(), ControlError> {
    let root = CertificateChain::from_pem(&authority.to_pem().root_cert)?;
    metrics.lasts(root.leaf()?.not_after_time(), authority.not_after());
    Ok(())
}

/// Writes the root to `namespace` unless it is there already.
pub async fn publish_root(
    client: &Client,
    namespace: &str,
    root_pem: &str,
) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let data = [(ROOT_KEY.to_owned(), root_pem.to_owned())].into();
    match maps.get_opt(ROOT_CONFIG_MAP).await? {
        Some(found) if found.data.as_ref() == Some(&data) => Ok(()),
        Some(_) => {
            let patch = serde_json::json!({ "data": data });
            maps.patch(
                ROOT_CONFIG_MAP,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .map(drop)
        }
        None => {
            let labels = [("istio.io/config".to_owned(), "true".to_owned())].into();
            let metadata = ObjectMeta {
                name: Some(ROOT_CONFIG_MAP.into()),
                labels: Some(labels),
                ..Default::default()
            };
            match maps
                .create(
                    &PostParams::default(),
                    &ConfigMap {
                        metadata,
                        data: Some(data),
                        ..Default::default()
                    },
                )
                .await
            {
                // Somebody else wrote it meanwhile; the next change of the namespace compares
                // again.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        }
    }
}

/// Publishes the root to every namespace of the mesh: as they come, and again from time to time, as
/// a ConfigMap can be deleted or a write fail.
pub async fn keep_roots_published(
    client: Client,
    root_pem: String,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
) {
    let mut published: BTreeSet<Arc<str>> = BTreeSet::new();
    loop {
        let wanted: BTreeSet<Arc<str>> = snapshots
            .borrow_and_update()
            .iter()
            .flat_map(|s| s.namespaces.keys().cloned())
            .collect();
        published.retain(|namespace| wanted.contains(namespace));
        for namespace in wanted.difference(&published.clone()) {
            match publish_root(&client, namespace, &root_pem).await {
                Ok(()) => drop(published.insert(namespace.clone())),
                Err(error) => {
                    tracing::warn!(%namespace, %error, "could not publish the root certificate; tried again later")
                }
            }
        }
        let pause = if published.len() == wanted.len() {
            ROOT_CHECK_INTERVAL
        } else {
            ROOT_RETRY_INTERVAL
        };
        match timeout(pause, snapshots.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => published.clear(),
        }
    }
}

#[cfg(test)]
mod tests;
