//! Acceptance tests: whole meshes on this machine, seen from outside. Each file of `tests/` is about one promise; `testkit` has the tools.
//!
//! Scenarios about traffic are functions of a [`Proxy`] that two tests call: one with our proxy beside the pods, one with a stock Envoy.
//! Scenarios about the runtime are functions of a [`User`]: whoever runs the tests, and a user without rights where the tests run as root.

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

/// Settings, a namespace with sidecars and a pod to send requests from: what most scenarios start with.
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

/// Runs what is a matter of chance up to three times. A share of 10,000 random draws is off by more than one point once in some twenty to a
/// thousand runs, by nature; three times in a row it is off because something is wrong.
#[track_caller]
pub fn by_chance(what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..3 {
        match attempt() {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("{what}: three times in a row: {failures:#?}");
}

/// An error unless `actual` of `all` is within one percentage point of `expected` per cent.
///
/// # Errors
/// Says what the share was.
pub fn within_a_point(what: &str, actual: u64, all: u64, expected: f64) -> Result<(), String> {
    within(what, actual, all, expected, 1.0)
}

/// An error unless `actual` of `all` is within `points` percentage points of `expected` per cent.
///
/// # Errors
/// Says what the share was.
pub fn within(what: &str, actual: u64, all: u64, expected: f64, points: f64) -> Result<(), String> {
    let share = 100.0 * actual as f64 / all as f64;
    if (share - expected).abs() <= points {
        Ok(())
    } else {
        Err(format!("{what}: {share:.2} % in place of {expected} %"))
    }
}
