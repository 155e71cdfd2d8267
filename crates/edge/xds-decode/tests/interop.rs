//! Everything captured from a real istiod is decoded; what is refused is on a short list, which `UPDATE_EXPECT=1` rewrites.

#![allow(
    clippy::disallowed_methods,
    reason = "UPDATE_EXPECT in the environment rewrites the expected file"
)]

use std::{collections::BTreeSet, fmt::Write, path::Path};

use prost::Message;
use wire_envoy::{Descriptors, pb};
use xds_decode::Decoder;

const TYPES: [&str; 5] = ["cds", "eds", "lds", "rds", "sds"];

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
    fn scenario(&mut self, captured: &captures::Scenario) {
        let scenario = captured.number();
        for node in ["sidecar", "gateway"] {
            for kind in TYPES {
                let Some(bytes) = captured.answer(&format!("{node}.{kind}.pb")) else {
                    continue;
                };
                let answer = pb::discovery::DiscoveryResponse::decode(bytes).expect("an answer");
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

fn walk() -> Walk {
    let mut walk = Walk::default();
    for scenario in captures::scenarios() {
        // A proxyless gRPC client is no proxy.
        if scenario.name() != "18-grpc-xds" {
            walk.scenario(scenario);
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
    let walk = walk();
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
    let mut walk = Walk::default();
    walk.scenario(captures::scenario("01-plain"));
    assert!(walk.decoded > 80, "only {} resources decoded", walk.decoded);
    assert_eq!(walk.refused, BTreeSet::new());
}

#[test]
fn captured_bootstraps_decode() {
    let descriptors = Descriptors::load().expect("built-in");
    for (name, id) in [
        ("bootstrap-sidecar.json", "sidecar~10.1.0.1~"),
        ("bootstrap-gateway.json", "router~"),
    ] {
        let text = captures::general(name);
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
