//! What `cargo xtask` does, as a library, so that the tests run the same checks.

use std::path::{Path, PathBuf};

pub mod descriptors;
pub mod limits;
pub mod tidy;
pub mod wrap;

/// The workspace's folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
