//! Acceptance tests: whole meshes on this machine, seen from outside. Each file of `tests/` is
//! about one promise; `testkit` has the tools.
//!
//! Scenarios about traffic are functions of a [`Proxy`] that two tests call: one with our proxy
//! beside the pods, one with a stock Envoy. Scenarios about the runtime are functions of a
//! [`User`]: whoever runs the tests, and a user without rights where the tests run as root.

pub use testkit::{Mesh, Proxy, User};

/// The users that a scenario about the runtime is to be run as; only root can become somebody else.
pub fn users() -> Vec<User> {
    if nix::unistd::Uid::effective().is_root() {
        vec![User::Own, User::Nobody]
    } else {
        vec![User::Own]
    }
}

/// The pod that requests come from.
pub const CLIENT: &[&str] = &["deploy/client-v1"];

/// Istio shows few of Envoy's statistics unless a pod asks for more; this is how users ask.
pub const ALL_STATISTICS: (&str, &str) = (
    "proxy.istio.io/config",
    "proxyStatsMatcher: {inclusionRegexps: ['.*']}",
);

/// Settings, a namespace with sidecars and a pod to send requests from: what most scenarios start
/// with.
pub fn base() -> String {
    let client = testkit::echo("client")
        .annotation(ALL_STATISTICS.0, ALL_STATISTICS.1)
        .yaml();
    mesh_settings_and_namespace() + &client
}

/// Settings and a namespace with sidecars.
pub fn mesh_settings_and_namespace() -> String {
    format!(
        "{}{}",
        testkit::mesh_settings(),
        testkit::namespace("default", true)
    )
}

/// How probable it may be that a check of a share fails although nothing is wrong.
const BY_CHANCE: f64 = 1e-9;

/// Checks `actual` of `all` independent draws, each of which comes out with a probability of
/// `expected` per cent (above 0, below 100). One run is enough: the share is wrong when one that is
/// at least as far off, to its side, has a probability below half of [`BY_CHANCE`]. Chernoff's
/// bound gives it, which holds for every number of draws: `exp(-all · D)`, where `D` is the
/// relative entropy of the share that came and the one that is expected. Of 10,000 draws it lets 80
/// % be off by 2.6 points, of 40,000 by 1.3.
#[track_caller]
pub fn assert_share(what: &str, actual: u64, all: u64, expected: f64) {
    let chance = chance(actual, all, expected);
    assert!(
        chance >= BY_CHANCE / 2.0,
        "{what}: {actual} of {all} in place of {expected} %, which comes by chance with a probability below {chance:.0e}"
    );
}

/// A bound of the probability of this share, or one that is further off.
fn chance(actual: u64, all: u64, expected: f64) -> f64 {
    let (share, expected) = (actual as f64 / all as f64, expected / 100.0);
    (-(all as f64) * relative_entropy(share, expected)).exp()
}

/// Of two distributions over yes and no, in nats.
fn relative_entropy(of: f64, from: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(of, from) + part(1.0 - of, 1.0 - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_wrong_where_chance_does_not_explain_them() {
        for (least, most, all, expected) in [
            (7735, 8257, 10_000, 80.0),
            (810, 1201, 10_000, 10.0),
            (31_473, 32_519, 40_000, 80.0),
            (397, 603, 1000, 50.0),
        ] {
            let is_right = |actual: &u64| chance(*actual, all, expected) >= BY_CHANCE / 2.0;
            let right: Vec<u64> = (0..=all).filter(is_right).collect();
            assert_eq!(
                (right[0], right[right.len() - 1]),
                (least, most),
                "{expected} % of {all}"
            );
        }
    }
}
