//! Which crate may use which: the literal table, compared with what `cargo metadata` says.
//! Directory = layer, direction is downwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::fault::Fault;

/// Crate → the crates of this workspace that it may use. Test-only dependencies are free.
const EDGES: &[(&str, &[&str])] = &[
    // base
    ("stdx", &[]),
    ("telemetry", &["stdx"]),
    // wire
    ("wire-envoy", &[]),
    ("wire-kube", &[]),
    // domain: mesh-model and proxy-config never see each other
    ("identity", &["stdx"]),
    ("mesh-model", &["stdx", "identity"]),
    ("proxy-config", &["stdx", "identity", "telemetry"]),
    // edge
    (
        "ingest",
        &["stdx", "telemetry", "identity", "wire-kube", "mesh-model"],
    ),
    (
        "xds-encode",
        &["stdx", "identity", "wire-envoy", "mesh-model"],
    ),
    (
        "xds-decode",
        &[
            "stdx",
            "identity",
            "telemetry",
            "wire-envoy",
            "proxy-config",
        ],
    ),
    ("inject", &["wire-kube"]),
    ("xds-protocol", &["wire-envoy"]),
    // engine: the proxy knows no wire type, no Kubernetes
    ("proxy", &["stdx", "telemetry", "identity", "proxy-config"]),
    (
        "feed",
        &[
            "stdx",
            "telemetry",
            "identity",
            "wire-envoy",
            "proxy-config",
            "xds-protocol",
            "xds-decode",
            "proxy",
        ],
    ),
    ("graph", &[]),
    ("analyze", &["wire-kube", "mesh-model", "ingest"]),
    (
        "control",
        &[
            "analyze",
            "stdx",
            "identity",
            "wire-kube",
            "wire-envoy",
            "mesh-model",
            "ingest",
            "xds-encode",
            "xds-protocol",
        ],
    ),
    ("machine", &["stdx", "identity", "wire-kube", "inject"]),
    // programs
    (
        "tanbark",
        &[
            "analyze",
            "graph",
            "stdx",
            "identity",
            "mesh-model",
            "wire-kube",
            "wire-envoy",
            "ingest",
            "inject",
            "xds-encode",
            "control",
            "machine",
        ],
    ),
    (
        "tanbark-proxy",
        &["stdx", "telemetry", "identity", "proxy", "feed"],
    ),
    // development and samples
    ("captures", &[]),
    ("testkit", &[]),
    ("xtask", &[]),
    (
        "meaning",
        &[
            "ingest",
            "mesh-model",
            "proxy",
            "proxy-config",
            "telemetry",
            "wire-envoy",
            "wire-kube",
            "xds-decode",
            "xds-encode",
        ],
    ),
    ("acceptance", &["testkit"]),
    ("bookinfo", &[]),
    ("echo", &[]),
];

/// Packages from outside, and the crates that may not use them outside of tests: the folder, or the
/// only crate that may.
const OUTSIDERS: &[(&[&str], Users, &str)] = &[
    (
        &[
            "rustls",
            "rustls-webpki",
            "rustls-native-certs",
            "rcgen",
            "x509-parser",
            "jsonwebtoken",
        ],
        Users::Only("identity"),
        "only `identity` makes and reads what proves an identity",
    ),
    (
        &[
            "tokio",
            "tokio-util",
            "hyper",
            "tonic",
            "axum",
            "kube",
            "k8s-openapi",
            "prost",
            "prost-types",
        ],
        Users::NotBelow("crates/domain/"),
        "domain types know no wire and no runtime",
    ),
    (
        &["kube", "k8s-openapi", "tonic"],
        Users::Not("proxy"),
        "the data path knows neither Kubernetes nor xDS",
    ),
    (
        &["clap", "anyhow", "tracing-subscriber"],
        Users::NotBelow("crates/"),
        "libraries have their own errors and take their settings from a program",
    ),
];

enum Users {
    Only(&'static str),
    Not(&'static str),
    NotBelow(&'static str),
}

pub fn check(root: &Path) -> Result<Vec<Fault>> {
    let packages = packages(root)?;
    let actual = workspace_edges(&packages);
    let mut faults = outsiders(&packages);
    for (name, used) in &actual {
        let place = "dev/xtask/src/tidy/edges.rs".to_owned();
        let Some((_, allowed)) = EDGES.iter().find(|(listed, _)| listed == name) else {
            faults.push(Fault {
                place,
                what: format!(
                    "crate `{name}` is not in the table: add it with the crates it may use"
                ),
            });
            continue;
        };
        for other in used {
            if !allowed.contains(&other.as_str()) {
                faults.push(Fault {
                    place: place.clone(),
                    what: format!("crate `{name}` uses `{other}`, which the table does not allow"),
                });
            }
        }
    }
    for (name, _) in EDGES {
        if !actual.contains_key(*name) {
            faults.push(Fault {
                place: "dev/xtask/src/tidy/edges.rs".into(),
                what: format!("crate `{name}` is in the table but not in the workspace"),
            });
        }
    }
    Ok(faults)
}

fn outsiders(packages: &[Package]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for package in packages.iter().filter(|package| package.is_ours()) {
        for (outsiders, users, reason) in OUTSIDERS {
            let may = match users {
                Users::Only(name) => package.name == *name,
                Users::Not(name) => package.name != *name,
                Users::NotBelow(folder) => !package.folder.starts_with(folder),
            };
            let used = package
                .uses
                .iter()
                .filter(|name| outsiders.contains(&name.as_str()));
            faults.extend(used.filter(|_| !may).map(|name| Fault {
                place: format!("{}Cargo.toml", package.folder),
                what: format!("`{name}` is not for `{}`: {reason}", package.name),
            }));
        }
    }
    faults
}

/// A package of the workspace.
struct Package {
    name: String,
    /// From the workspace's folder, with a slash at the end.
    folder: String,
    /// All packages that it uses outside of tests.
    uses: BTreeSet<String>,
}

impl Package {
    /// Samples are strangers' applications.
    fn is_ours(&self) -> bool {
        !self.folder.starts_with("samples/")
    }
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    packages
        .iter()
        .map(|package| package_of(root, package))
        .collect()
}

fn package_of(root: &Path, package: &Value) -> Result<Package> {
    let manifest = package["manifest_path"].as_str().map(Path::new);
    let folder = manifest
        .and_then(|path| path.strip_prefix(root).ok()?.parent())
        .context("a package outside of the workspace")?;
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let normal = dependencies.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
    Ok(Package {
        name: package["name"].as_str().unwrap_or_default().to_owned(),
        folder: format!("{}/", folder.display()),
        uses: normal
            .filter_map(|dependency| dependency["name"].as_str())
            .map(str::to_owned)
            .collect(),
    })
}

fn workspace_edges(packages: &[Package]) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<&String> = packages.iter().map(|package| &package.name).collect();
    let edges = packages.iter().map(|package| {
        let uses = package.uses.iter().filter(|name| names.contains(name));
        (package.name.clone(), uses.cloned().collect())
    });
    edges.collect()
}
