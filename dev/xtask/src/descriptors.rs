//! The repository's copy of the descriptors of Envoy's messages, and whether it is that of the
//! package in use.
//!
//! envoy-types ships a descriptor set without exporting it. `wire-envoy` needs it while it is
//! built, and a build script must not depend on which packages have been downloaded, so it reads
//! the copy. Comments in it (four fifths) are left out.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;

/// From the workspace's folder.
const COPY: &str = "crates/wire/wire-envoy/descriptors/envoy.bin.gz";

/// Writes the copy anew from the package that `Cargo.lock` names; the file written.
pub fn renew(root: &Path) -> Result<PathBuf> {
    let path = root.join(COPY);
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&of_package(root)?)?;
    fs::write(&path, packed.finish()?).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Whether the copy is what [`renew`] would write.
pub fn is_current(root: &Path) -> Result<bool> {
    let mut copy = Vec::new();
    GzDecoder::new(fs::File::open(root.join(COPY)).context(COPY)?).read_to_end(&mut copy)?;
    Ok(copy == of_package(root)?)
}

/// The package's descriptor set without comments, encoded.
fn of_package(root: &Path) -> Result<Vec<u8>> {
    let file = package(root)?.join("src/generated/types.bin");
    let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    let mut set = FileDescriptorSet::decode(bytes.as_slice())?;
    for file in &mut set.file {
        file.source_code_info = None;
    }
    Ok(set.encode_to_vec())
}

/// The folder of the package envoy-types of the version that `Cargo.lock` names.
fn package(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
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
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == "envoy-types")
        .find_map(|package| package["manifest_path"].as_str())
        .context("cargo metadata names no package envoy-types")?;
    Ok(Path::new(manifest).parent().unwrap_or(root).to_owned())
}
