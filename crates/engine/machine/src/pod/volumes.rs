//! A pod's volumes as folders in the runtime's memory file system, and the mounts of its
//! containers.
//!
//! Files of ConfigMaps, Secrets, downward fields and tokens are written again when their source
//! changes or a token ages; each file is replaced at once, by rename. A missing source that is not
//! optional holds the pod.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use identity::jwt::{TokenRequest, TokenSigner};
use identity::{IdentityError, ServiceAccountName};
use serde_json::Value;
use stdx::{Clock as _, SystemClock};

use super::environment::{Environment, Missing, data_of, expand, pod_field, resource_of};
use super::live::Pod;
use super::trust::Trust;
use crate::container::spec::Mount;
use crate::context as runtime;
use crate::error::{Context, Error, Result};
use crate::names::{NOBODY, NODE_NAME};
use crate::namespaces::Privilege;
use crate::network::PodNetwork;
use crate::object;
use crate::store::Store;
use crate::store::kinds::{NODES, SERVICE_ACCOUNTS};
use inject::{PROXY_ID, STATUS_ANNOTATION};

/// Shortest life of a token, as the API server's.
const MIN_TOKEN_SECONDS: u64 = 600;

/// What writing volumes needs to know.
#[derive(Debug)]
pub struct Volumes<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// Its address.
    pub address: Ipv4Addr,
    /// The pod's folder.
    pub folder: &'a Path,
    /// Sources.
    pub store: &'a Store,
    /// For tokens.
    pub signer: &'a TokenSigner,
    /// Owner of the files, where users are told apart.
    pub owner: Option<(u32, u32)>,
    /// The runtime's state folder, which no pod but the control plane's may see.
    pub private: &'a Path,
}

/// Why volumes are not written.
#[derive(Debug)]
pub enum Problem {
    /// A source is not there yet.
    Waiting(Missing),
    /// It cannot be.
    Failed(Error),
}

impl From<Missing> for Problem {
    fn from(missing: Missing) -> Self {
        Problem::Waiting(missing)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Failed(error)
    }
}

/// The files of a volume by their paths: contents, and permissions where a file has its own.
type Files = BTreeMap<String, (Vec<u8>, Option<u32>)>;

/// The permissions that one item of a source asks for.
fn mode_of(item: &Value) -> Option<u32> {
    u32::try_from(object::number(item, "/mode")?).ok()
}

impl Volumes<'_> {
    /// Writes all volumes that have contents, and makes the empty ones.
    pub fn write(&self) -> Result<(), Problem> {
        for volume in object::list(self.pod, "/spec/volumes") {
            self.write_one(volume)?;
        }
        Ok(())
    }

    fn write_one(&self, volume: &Value) -> Result<(), Problem> {
        let name = object::text(volume, "/name");
        let folder = self.folder.join("volumes").join(safe(name)?);
        if volume.get("hostPath").is_some() {
            return Ok(());
        }
        fs::create_dir_all(&folder).context(|| format!("make volume {name}"))?;
        if volume.get("emptyDir").is_some() {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))
                .context(|| format!("make volume {name}"))?;
            return Ok(());
        }
        let mut files = Files::new();
        if let Some(sources) = volume
            .pointer("/projected/sources")
            .and_then(Value::as_array)
        {
            for source in sources {
                self.collect(source, &mut files)?;
            }
        } else if !self.collect(volume, &mut files)? {
            let kind = volume
                .as_object()
                .and_then(|map| map.keys().find(|key| *key != "name"))
                .cloned()
                .unwrap_or_default();
            return Err(Problem::Failed(Error::Configuration(format!(
                "volume {name}: {kind} is not supported on one machine"
            ))));
        }
        let mode = [
            "/projected/defaultMode",
            "/configMap/defaultMode",
            "/secret/defaultMode",
            "/downwardAPI/defaultMode",
        ];
        let mode = mode
            .iter()
            .find_map(|pointer| object::number(volume, pointer))
            .unwrap_or(0o644);
        self.replace(&folder, &files, u32::try_from(mode).unwrap_or(0o644))
            .context(|| format!("write volume {name}"))?;
        Ok(())
    }

    /// Adds the files of one source; false when it is of a kind that is not known.
    fn collect(&self, source: &Value, files: &mut Files) -> Result<bool, Problem> {
        let namespace = object::namespace(self.pod);
        for (key, secret) in [("configMap", false), ("secret", true)] {
            let Some(reference) = source.get(key) else {
                continue;
            };
            let name = match object::text(reference, "/name") {
                "" => object::text(reference, "/secretName"),
                name => name,
            };
            let Some(data) = data_of(self.store, namespace, name, secret) else {
                if object::flag(reference, "/optional") {
                    return Ok(true);
                }
                return Err(Missing(format!("{} \"{name}\" not found", key.to_lowercase())).into());
            };
            match reference.get("items").and_then(Value::as_array) {
                None => files.extend(
                    data.into_iter()
                        .map(|(key, content)| (key, (content, None))),
                ),
                Some(items) => {
                    for item in items {
                        let key = object::text(item, "/key");
                        match data.get(key) {
                            Some(content) => files.insert(
                                object::text(item, "/path").into(),
                                (content.clone(), mode_of(item)),
                            ),
                            None if object::flag(reference, "/optional") => None,
                            None => {
                                return Err(
                                    Missing(format!("key {key} of \"{name}\" not found")).into()
                                );
                            }
                        };
                    }
                }
            }
            return Ok(true);
        }
        if let Some(reference) = source.get("downwardAPI") {
            for item in object::list(reference, "/items") {
                let value = match item.get("resourceFieldRef") {
                    Some(reference) => resource_of(reference, self.pod, None)?,
                    None => {
                        let path = object::text(item, "/fieldRef/fieldPath");
                        pod_field(self.pod, path, self.address)
                            .ok_or_else(|| Missing(format!("field {path} is not supported")))?
                    }
                };
                files.insert(
                    object::text(item, "/path").into(),
                    (value.into_bytes(), mode_of(item)),
                );
            }
            return Ok(true);
        }
        if let Some(wanted) = source.get("serviceAccountToken") {
            files.insert(
                object::text(wanted, "/path").into(),
                (self.token(wanted)?.into_bytes(), None),
            );
            return Ok(true);
        }
        Ok(false)
    }

    fn token(&self, wanted: &Value) -> Result<String, Problem> {
        let namespace = object::namespace(self.pod);
        let account = object::text(self.pod, "/spec/serviceAccountName");
        let account_object = self.store.find(&SERVICE_ACCOUNTS, namespace, account);
        let account_object = account_object
            .ok_or_else(|| Missing(format!("serviceaccount \"{account}\" not found")))?;
        let audience = match object::text(wanted, "/audience") {
            "" => crate::token::ISSUER,
            audience => audience,
        };
        let seconds = object::number(wanted, "/expirationSeconds")
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(3_600)
            .max(MIN_TOKEN_SECONDS);
        let node = self.store.find(&NODES, "", NODE_NAME);
        let refused = |error: IdentityError| {
            Error::Configuration(format!("the token of {namespace}/{account}: {error}"))
        };
        let request = TokenRequest {
            account: &ServiceAccountName::new(namespace, account).map_err(refused)?,
            account_uid: object::uid(&account_object),
            pod: Some((object::name(self.pod), object::uid(self.pod))),
            node: node.as_deref().map(|node| (NODE_NAME, object::uid(node))),
            audiences: &[audience],
            ttl: Duration::from_secs(seconds),
        };
        Ok(self
            .signer
            .sign(&request, SystemClock.wall())
            .map_err(refused)?)
    }

    fn replace(&self, folder: &Path, files: &Files, mode: u32) -> io::Result<()> {
        for (name, (content, own)) in files {
            let path = folder
                .join(relative(name).ok_or_else(|| {
                    io::Error::other(format!("`{name}` leads out of the volume"))
                })?);
            if fs::read(&path).is_ok_and(|present| present == *content) {
                continue;
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let fresh = path.with_extension("..new");
            fs::write(&fresh, content)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(own.unwrap_or(mode)))?;
            if let Some((user, group)) = self.owner {
                chown(&fresh, Some(user), Some(group))?;
            }
            fs::rename(&fresh, &path)?;
        }
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let wanted = files
                .keys()
                .any(|file| file == &name || file.starts_with(&format!("{name}/")));
            if !wanted && entry.path().is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// `/etc/hosts` and `/etc/resolv.conf`.
    pub fn write_network_files(&self) -> Result<()> {
        let folder = self.folder.join("etc");
        fs::create_dir_all(&folder).context(|| "make the pod's folder".into())?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
                .context(|| format!("write {}", path.display()))
        };
        write("hosts", hosts(self.pod, self.address))?;
        write("resolv.conf", resolv_conf(self.pod))?;
        write("hostname", format!("{}\n", object::name(self.pod)))
    }

    /// What a container with these variables sees.
    pub fn mounts(
        &self,
        container: &Value,
        trust: Trust,
        environment: &Environment,
    ) -> Result<Vec<Mount>> {
        let etc = self.folder.join("etc");
        let own = |name: &str| Mount {
            source: etc.join(name),
            target: Path::new("/etc").join(name),
            read_only: false,
        };
        let mut mounts = vec![own("hosts"), own("resolv.conf"), own("hostname")];
        for wanted in object::list(container, "/volumeMounts") {
            let name = object::text(wanted, "/name");
            let volume = object::list(self.pod, "/spec/volumes")
                .iter()
                .find(|volume| object::text(volume, "/name") == name);
            let volume = volume.ok_or_else(|| {
                Error::Configuration(format!("volumeMounts: no volume named {name}"))
            })?;
            let mut source = match object::text(volume, "/hostPath/path") {
                "" => self.folder.join("volumes").join(safe(name)?),
                path => {
                    if trust != Trust::Control && self.is_private(Path::new(path)) {
                        return Err(Error::Configuration(format!(
                            "volume {name}: hostPath {path} leads to the runtime's own state folder, which pods may not have"
                        )));
                    }
                    PathBuf::from(path)
                }
            };
            let part = match object::text(wanted, "/subPathExpr") {
                "" => object::text(wanted, "/subPath").to_string(),
                expression => expand(expression, environment),
            };
            if !part.is_empty() {
                source.push(relative(&part).ok_or_else(|| {
                    Error::Configuration(format!("subPath {part} leads out of the volume"))
                })?);
                if volume.get("emptyDir").is_some() && !source.exists() {
                    // As the volume itself: whoever the application is, it may write there.
                    fs::create_dir_all(&source)
                        .and_then(|()| {
                            fs::set_permissions(&source, fs::Permissions::from_mode(0o777))
                        })
                        .context(|| format!("make {part} in volume {name}"))?;
                }
            }
            let read_only = object::flag(wanted, "/readOnly");
            mounts.push(Mount {
                source,
                target: PathBuf::from(object::text(wanted, "/mountPath")),
                read_only,
            });
        }
        // Parents before what lies inside of them.
        mounts.sort_by_key(|mount| mount.target.components().count());
        Ok(mounts)
    }

    /// Whether a path of the machine lies in the state folder or around it.
    fn is_private(&self, path: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let (path, private) = (real(path), real(self.private));
        path.starts_with(&private) || private.starts_with(&path)
    }
}

fn safe(name: &str) -> Result<&str> {
    match !name.is_empty() && !name.contains('/') && name != ".." && name != "." {
        true => Ok(name),
        false => Err(Error::Configuration(format!(
            "`{name}` is not the name of a volume"
        ))),
    }
}

/// A path that stays inside of the folder it is joined to.
fn relative(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let inside = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    (inside && path.components().next().is_some()).then_some(path)
}

fn hosts(pod: &Value, address: Ipv4Addr) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let name = match object::text(pod, "/spec/hostname") {
        "" => object::name(pod),
        name => name,
    };
    let subdomain = object::text(pod, "/spec/subdomain");
    if subdomain.is_empty() {
        text.push_str(&format!("{address}\t{name}\n"));
    } else {
        text.push_str(&format!(
            "{address}\t{name}.{subdomain}.{}.svc.cluster.local\t{name}\n",
            object::namespace(pod)
        ));
    }
    for alias in object::list(pod, "/spec/hostAliases") {
        let names: Vec<&str> = object::list(alias, "/hostnames")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        text.push_str(&format!(
            "{}\t{}\n",
            object::text(alias, "/ip"),
            names.join("\t")
        ));
    }
    text
}

fn resolv_conf(pod: &Value) -> String {
    let list = |pointer: &str| {
        object::list(pod, pointer)
            .iter()
            .filter_map(Value::as_str)
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let mut search = Vec::new();
    let mut servers = Vec::new();
    let mut options = vec!["ndots:5".to_string()];
    if object::text(pod, "/spec/dnsPolicy") == "None" {
        options.clear();
    } else {
        servers.push(crate::network::DNS_ADDRESS.to_string());
        search = vec![
            format!("{}.svc.cluster.local", object::namespace(pod)),
            "svc.cluster.local".into(),
            "cluster.local".into(),
        ];
    }
    servers.extend(list("/spec/dnsConfig/nameservers"));
    search.extend(list("/spec/dnsConfig/searches"));
    for option in object::list(pod, "/spec/dnsConfig/options") {
        let (name, value) = (
            object::text(option, "/name"),
            object::text(option, "/value"),
        );
        options.retain(|present| present.split(':').next() != Some(name));
        options.push(if value.is_empty() {
            name.to_string()
        } else {
            format!("{name}:{value}")
        });
    }
    let mut text = String::new();
    for server in servers.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// The volumes of a pod as its worker writes them.
pub fn volumes_of<'a>(
    context: &'a runtime::Context,
    pod: &'a Pod,
    network: &PodNetwork,
) -> Volumes<'a> {
    let injected = object::annotations(&pod.object).contains_key(STATUS_ANNOTATION);
    let group = object::number(&pod.object, "/spec/securityContext/fsGroup")
        .and_then(|group| u32::try_from(group).ok());
    let owner = match (context.privilege, injected) {
        (Privilege::User, _) => None,
        (Privilege::Root, true) => Some((PROXY_ID, group.unwrap_or(PROXY_ID))),
        (Privilege::Root, false) => Some((NOBODY, group.unwrap_or(NOBODY))),
    };
    Volumes {
        pod: &pod.object,
        address: network.address,
        folder: &pod.folder,
        store: &context.store,
        signer: &context.tokens.signer,
        owner,
        private: context.state.root(),
    }
}

/// Writes the volumes of a pod, one writer at a time.
pub fn write_volumes_of(
    context: &runtime::Context,
    pod: &Pod,
    network: &PodNetwork,
) -> Result<(), Problem> {
    let _alone = pod.writing.lock();
    volumes_of(context, pod, network).write()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::kinds::{CONFIG_MAPS, NAMESPACES};

    #[test]
    fn volumes_are_written_replaced_and_their_sources_awaited() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = identity::PrivateKey::generate().expect("a key");
        let signer = TokenSigner::new(&key, "us").expect("a signer");
        let store = Store::default();
        store
            .create(&NAMESPACES, json!({"metadata": {"name": "n"}}))
            .expect("a namespace");
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"volumes": [
            {"name": "v", "configMap": {"name": "m"}},
            {"name": "w", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}},
        ]}});
        let volumes = Volumes {
            pod: &pod,
            address: Ipv4Addr::LOCALHOST,
            folder: folder.path(),
            store: &store,
            signer: &signer,
            owner: None,
            private: Path::new("/nowhere"),
        };
        assert!(
            matches!(volumes.write(), Err(Problem::Waiting(Missing(text))) if text == "configmap \"m\" not found")
        );
        store
            .create(
                &CONFIG_MAPS,
                json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"a": "1", "b": "2"}}),
            )
            .expect("a map");
        volumes.write().expect("written");
        let read = |path: &str| fs::read_to_string(folder.path().join("volumes").join(path)).ok();
        assert_eq!(
            (read("v/a").as_deref(), read("w/name").as_deref()),
            (Some("1"), Some("p"))
        );
        store
            .update(
                &CONFIG_MAPS,
                json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"a": "3"}}),
                crate::store::Part::Main,
            )
            .expect("changed");
        volumes.write().expect("written");
        assert_eq!((read("v/a").as_deref(), read("v/b")), (Some("3"), None));
    }

    #[test]
    fn the_state_folder_is_not_given_to_pods() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        fs::create_dir_all(state.join("control")).expect("a folder");
        fs::create_dir(folder.path().join("other")).expect("a folder");
        std::os::unix::fs::symlink(&state, folder.path().join("link")).expect("a link");
        let key = identity::PrivateKey::generate().expect("a key");
        let signer = TokenSigner::new(&key, "us").expect("a signer");
        let store = Store::default();
        let mounts = |path: &Path, trust| {
            let pod = json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": path}}]}});
            let volumes = Volumes {
                pod: &pod,
                address: Ipv4Addr::LOCALHOST,
                folder: folder.path(),
                store: &store,
                signer: &signer,
                owner: None,
                private: &state,
            };
            let container = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
            volumes
                .mounts(&container, trust, &Environment::new())
                .map(drop)
        };
        let root = folder.path();
        for path in [root, &state, &state.join("control"), &root.join("link")] {
            mounts(path, Trust::Application).expect_err("refused");
            mounts(path, Trust::Proxy).expect_err("refused");
            mounts(path, Trust::Control).expect("its own");
        }
        mounts(&root.join("other"), Trust::Application).expect("another folder");
    }

    #[test]
    fn a_path_cannot_leave_its_volume() {
        assert_eq!(relative("a/b"), Some(Path::new("a/b")));
        assert_eq!(relative("../a"), None);
        assert_eq!(relative("/a"), None);
        assert_eq!(relative(""), None);
    }

    #[test]
    fn resolv_conf_has_the_search_list() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}});
        assert_eq!(
            resolv_conf(&pod),
            "nameserver 10.96.0.10\nsearch n.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:2\n"
        );
    }
}
