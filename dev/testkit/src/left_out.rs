//! Checks that cannot be made on a machine: a program is not installed, or the tests run without a privilege.
//!
//! A test that finds nothing to do must not pass in silence. It says so here: `make test` lists what was left out
//! at its end, and CI, where everything is installed, sets [`COMPLETE`] so that leaving anything out is a failure.

use std::{fs, io::Write as _};

use crate::programs::root;

/// Set where every check must be made.
pub const COMPLETE: &str = "TANBARK_TESTS_COMPLETE";

/// From the workspace's folder: a line for each check that was left out, since `make test` began.
const FILE: &str = "target/left-out.txt";

/// Notes that a check is left out, and why.
///
/// # Panics
/// Where [`COMPLETE`] is set.
#[track_caller]
pub fn left_out(check: &str, why: &str) {
    let line = format!("{check}: {why}");
    assert!(
        std::env::var_os(COMPLETE).is_none(),
        "a check is left out although {COMPLETE} is set: {line}"
    );
    let path = root().join(FILE);
    let file = fs::File::options().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
