//! Which crate may use which: the literal table, compared with what `cargo metadata` says. Directory = layer, direction is downwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Fault;

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
    (
        "control",
        &[
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
    ("machine", &["stdx", "identity", "wire-kube"]),
    // programs
    (
        "tanbark",
        &[
            "stdx",
            "identity",
            "mesh-model",
            "wire-kube",
            "wire-envoy",
            "ingest",
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

pub fn check(root: &Path) -> Result<Vec<Fault>> {
    let actual = workspace_edges(root)?;
    let mut faults = Vec::new();
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

fn workspace_edges(root: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
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
    let names: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let edges_of = |package: &Value| -> BTreeSet<String> {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        normal
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| names.contains(name))
            .map(str::to_owned)
            .collect()
    };
    Ok(packages
        .iter()
        .filter_map(|package| Some((package["name"].as_str()?.to_owned(), edges_of(package))))
        .collect())
}
