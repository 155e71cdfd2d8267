use proptest::prelude::*;

use super::*;

fn equal(keys: &[String]) -> Vec<(&str, f64)> {
    keys.iter()
        .map(|key| (&**key, 1.0 / keys.len() as f64))
        .collect()
}

fn addresses(ports: std::ops::RangeInclusive<u16>) -> Vec<String> {
    ports.map(|port| format!("127.0.0.1:{port}")).collect()
}

/// The ring that Envoy's own tests write down for these six hosts.
#[test]
fn places_are_envoys() {
    let keys = addresses(90..=95);
    let ring = Ring::new(&equal(&keys), 12, 8 << 20, RingHashFunction::XxHash);
    let expected: [(u64, u32); 12] = [
        (833437586790550860, 4),
        (928266305478181108, 2),
        (1033482794131418490, 0),
        (3551244743356806947, 5),
        (3851675632748031481, 3),
        (5583722120771150861, 1),
        (6311230543546372928, 1),
        (7700377290971790572, 3),
        (13144177310400110813, 5),
        (13444792449719432967, 2),
        (15516499411664133160, 4),
        (16117243373044804889, 0),
    ];
    assert_eq!(*ring.0, expected);
    let table = [
        (0, 4),
        (u64::MAX, 4),
        (3551244743356806947, 5),
        (3551244743356806948, 3),
        (16117243373044804880, 0),
    ];
    for (hash, host) in table {
        assert_eq!(ring.find(hash, 0), Some(host), "{hash}");
    }
    assert_eq!(ring.find(0, 2), Some(0), "two places further");
    assert_eq!(ring.find(u64::MAX, 12), Some(4), "once around");
}

#[test]
fn places_by_murmur_are_envoys() {
    let keys = addresses(80..=85);
    let ring = Ring::new(&equal(&keys), 12, 8 << 20, RingHashFunction::Murmur2);
    let expected: [(u64, u32); 12] = [
        (1358027074129602068, 5),
        (4361834613929391114, 3),
        (7224494972555149682, 4),
        (7701421856454313576, 1),
        (8649315368077433379, 2),
        (8739448859063030639, 4),
        (9887544217113020895, 1),
        (10150910876324007731, 2),
        (15168472011420622455, 3),
        (15427156902705414897, 0),
        (16375050414328759093, 5),
        (17613279263364193813, 0),
    ];
    assert_eq!(*ring.0, expected);
}

#[test]
fn places_by_host_name_are_envoys() {
    let keys: Vec<String> = (90..=95).map(|name: u16| name.to_string()).collect();
    let ring = Ring::new(&equal(&keys), 12, 8 << 20, RingHashFunction::XxHash);
    let hosts: Vec<u32> = ring.0.iter().map(|(_, host)| *host).collect();
    assert_eq!(hosts, [5, 5, 3, 4, 3, 2, 0, 2, 1, 0, 1, 4]);
    assert_eq!(
        (ring.0[0].0, ring.0[11].0),
        (1975508444536362413, 15364271037087512980)
    );
}

#[test]
fn a_ring_is_as_large_as_weights_and_bounds_ask() {
    let keys = addresses(1..=3);
    let sizes = |minimum, maximum| {
        let hosts: Vec<(&str, f64)> = keys
            .iter()
            .map(|key| &**key)
            .zip([0.5, 0.25, 0.25])
            .collect();
        let ring = Ring::new(&hosts, minimum, maximum, RingHashFunction::XxHash);
        (0..3)
            .map(|host| ring.0.iter().filter(|(_, at)| *at == host).count())
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(1024, 8 << 20), [512, 256, 256]);
    assert_eq!(
        sizes(3, 8 << 20),
        [2, 1, 1],
        "whole places for the lightest"
    );
    assert_eq!(
        sizes(1024, 2),
        [1, 1, 0],
        "a small maximum leaves hosts out"
    );
    let none = Ring::new(&[], 1024, 2048, RingHashFunction::XxHash);
    assert!(none.0.is_empty() && none.find(7, 0).is_none());
}

proptest! {
    /// Consistency: who did not sit on the host that went stays where it was.
    #[test]
    fn when_a_host_goes_only_its_requests_move(gone in 0usize..5, hashes in prop::collection::vec(any::<u64>(), 200)) {
        let keys = addresses(1..=5);
        let mut left = keys.clone();
        left.remove(gone);
        // The same number of places for each host in both rings.
        let before = Ring::new(&equal(&keys), 5 * 200, 8 << 20, RingHashFunction::XxHash);
        let after = Ring::new(&equal(&left), 4 * 200, 8 << 20, RingHashFunction::XxHash);
        for hash in hashes {
            let was = &keys[before.find(hash, 0).unwrap()];
            let is = &left[after.find(hash, 0).unwrap()];
            prop_assert!(was == is || *was == keys[gone], "{was} → {is}");
        }
    }
}
