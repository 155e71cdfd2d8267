//! Everything captured from a real istiod is decoded; what is refused is on a short list, which `UPDATE_EXPECT=1` rewrites.

use std::{
    collections::BTreeSet,
    fmt::Write,
    path::{Path, PathBuf},
};

use prost::Message;
use wire_envoy::{Descriptors, pb};
use xds_decode::Decoder;

const TYPES: [&str; 6] = ["cds", "eds", "lds", "rds", "sds", "nds"];

fn shared() -> Option<PathBuf> {
    let place = std::env::var_os("TANBARK_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"));
    let found = place.join("interop").is_dir().then_some(place);
    if found.is_none() {
        println!("skipped: no shared data (set TANBARK_SHARED)");
    }
    found
}

fn expect(name: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, found).expect("golden file");
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        wanted == found,
        "{} differs (UPDATE_EXPECT=1 rewrites it); found:\n{found}",
        file.display()
    );
}

/// What one walk over the captures saw.
#[derive(Default)]
struct Walk {
    decoded: usize,
    refused: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

impl Walk {
    fn scenario(&mut self, place: &Path) {
        let scenario = place
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let scenario = scenario.split('-').next().unwrap_or_default().to_owned();
        for node in ["sidecar", "gateway"] {
            for kind in TYPES {
                let Ok(bytes) = std::fs::read(place.join(format!("{node}.{kind}.pb"))) else {
                    continue;
                };
                let answer =
                    pb::discovery::DiscoveryResponse::decode(bytes.as_slice()).expect("an answer");
                let mut decoder = Decoder::default();
                for resource in &answer.resources {
                    match decoder.decode(resource) {
                        Ok(_) => self.decoded += 1,
                        Err(reject) => {
                            self.refused.insert(format!("{scenario} {node} {reject}"));
                        }
                    }
                }
                self.ignored.extend(
                    decoder
                        .ignored()
                        .map(|(message, what, _)| format!("{message}: {what}")),
                );
            }
        }
    }
}

fn walk(shared: &Path) -> Walk {
    let mut walk = Walk::default();
    for scenario in std::fs::read_dir(shared.join("interop")).expect("interop") {
        let place = scenario.expect("entry").path();
        if place.is_dir() && !place.ends_with("18-grpc-xds") {
            walk.scenario(&place);
        }
    }
    walk
}

fn lines<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    items.into_iter().fold(String::new(), |mut text, item| {
        let _ = writeln!(text, "{item}");
        text
    })
}

#[test]
fn captures_decode_but_for_the_listed_refusals() {
    let Some(shared) = shared() else { return };
    let walk = walk(&shared);
    println!(
        "{} resources decoded, {} refused",
        walk.decoded,
        walk.refused.len()
    );
    assert!(
        walk.decoded > 1800,
        "only {} resources decoded",
        walk.decoded
    );
    expect("refused.txt", &lines(&walk.refused));
    expect("ignored.txt", &lines(&walk.ignored));
}

#[test]
fn plain_scenario_decodes_whole() {
    let Some(shared) = shared() else { return };
    let mut walk = Walk::default();
    walk.scenario(&shared.join("interop/01-plain"));
    assert!(walk.decoded > 80, "only {} resources decoded", walk.decoded);
    assert_eq!(walk.refused, BTreeSet::new());
}

#[test]
fn captured_bootstraps_decode() {
    let Some(shared) = shared() else { return };
    let descriptors = Descriptors::load().expect("built-in");
    for (name, id) in [
        ("bootstrap-sidecar.json", "sidecar~10.1.0.1~"),
        ("bootstrap-gateway.json", "router~"),
    ] {
        let text = std::fs::read_to_string(shared.join("interop").join(name)).expect("bootstrap");
        let message: pb::bootstrap::Bootstrap = descriptors.from_yaml(&text).expect("a bootstrap");
        let bootstrap = Decoder::default().bootstrap(message).expect(name);
        assert!(bootstrap.node.id.starts_with(id), "{}", bootstrap.node.id);
        assert_eq!(
            bootstrap.admin,
            Some("127.0.0.1:15000".parse().expect("address"))
        );
        assert_eq!(bootstrap.ads_cluster.as_deref(), Some("xds-grpc"));
        assert!(bootstrap.ads_delta);
        assert_eq!(bootstrap.static_listeners.len(), 2);
        assert!(
            bootstrap
                .static_clusters
                .iter()
                .any(|c| c.name.as_str() == "sds-grpc")
        );
        assert!(!bootstrap.stats.prefixes.is_empty());
    }
}
