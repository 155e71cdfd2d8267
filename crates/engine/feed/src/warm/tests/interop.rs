//! What a real istiod sends becomes usable without waiting for anything that was not sent.

use captures::Scenario;
use prost::Message;
use wire_envoy::pb::discovery::DiscoveryResponse;

use super::*;

#[test]
fn a_real_control_planes_configuration_warms_completely() {
    let mut warmed = 0;
    for scenario in captures::scenarios() {
        for proxy in ["sidecar", "gateway"] {
            warmed += usize::from(warm(scenario, proxy));
        }
    }
    assert!(warmed > 20, "only {warmed} proxies' captures were found");
}

fn warm(scenario: &Scenario, proxy: &str) -> bool {
    let Some(clusters) = resources(scenario, proxy, "cds") else {
        return false;
    };
    let mut decoder = xds_decode::Decoder::default();
    let mut world = World::new();
    let (mut refused, mut listeners) = (0, 0);
    let kinds = ["lds", "rds", "sds", "eds"]
        .map(|kind| resources(scenario, proxy, kind).unwrap_or_default());
    for body in clusters.iter().chain(kinds.iter().flatten()) {
        let decoded = crate::decode::decode(&mut decoder, body);
        if let Some(why) = decoded.refused {
            eprintln!("{} {proxy}: {why}", scenario.name());
        }
        match decoded.change {
            Some(change) => {
                listeners += usize::from(matches!(change, Change::Listener(_)));
                world.warming.set(change, world.now);
            }
            None => refused += 1,
        }
    }
    let published = world.settle();
    // Names are resolved elsewhere, and files are not part of the captures.
    let wanted = world.warming.wanted().clone();
    for name in wanted.resolved.keys() {
        world
            .warming
            .remove(Kind::Endpoints, name.as_str(), world.now);
    }
    for name in wanted.secrets {
        if name.starts_with("file-") || name.starts_with("configmap://") {
            world.warming.remove(Kind::Secret, &name, world.now);
        }
    }
    world.settle();
    assert_eq!(
        published
            .iter()
            .filter(|word| word.starts_with("+listener "))
            .count(),
        listeners,
        "{} {proxy}",
        scenario.name()
    );
    assert!(
        world.warming.waiting() <= refused,
        "{} {proxy}: {} of {} resources wait: {:?}",
        scenario.name(),
        world.warming.waiting(),
        published.len(),
        world.warming.wanted().secrets,
    );
    true
}

fn resources(scenario: &Scenario, proxy: &str, kind: &str) -> Option<Vec<pb::Any>> {
    let bytes = scenario.answer(&format!("{proxy}.{kind}.pb"))?;
    Some(DiscoveryResponse::decode(bytes).unwrap().resources)
}
