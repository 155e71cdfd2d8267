//! Compiles the protobuf files that envoy-types lacks (no protoc), and joins their descriptors with Envoy's.
//!
//! envoy-types ships the descriptor set of its messages without exporting it, and a build script cannot find another
//! package's files without asking cargo, whose answer depends on what has been downloaded. So the repository holds
//! a copy, without comments and compressed; `cargo xtask descriptors` renews it, and a test compares it with the package.
#![allow(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by its environment"
)]

use std::{env, error::Error, fs, io::Read, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

/// Envoy's descriptors, made by `cargo xtask descriptors`.
const ENVOY: &str = "descriptors/envoy.bin.gz";

const PROTOS: [&str; 8] = [
    "istio/ca.proto",
    "istio/alpn.proto",
    "istio/peer_metadata.proto",
    "istio/metadata_exchange.proto",
    "istio/stats.proto",
    "istio/nds.proto",
    "udpa/type/v1/typed_struct.proto",
    "xds/type/v3/typed_struct.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed={ENVOY}");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(PROTOS)?;
    let own = compiler.file_descriptor_set();
    generate(own.clone())?;

    let mut all = envoy_descriptors()?;
    let known: Vec<String> = all.file.iter().map(|f| f.name().to_owned()).collect();
    all.file.extend(
        own.file
            .into_iter()
            .filter(|f| !known.iter().any(|k| k == f.name())),
    );
    for file in &mut all.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), all.encode_to_vec())?;
    Ok(())
}

/// Rust types for our own files. The well-known types are envoy-types' own, so that one `Any` fits everywhere.
fn generate(own: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut config = prost_build::Config::new();
    config
        .include_file("own.rs")
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .compile_well_known_types()
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .btree_map(["."])
        .skip_protoc_run();
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_well_known_types(true)
        .compile_fds_with_config(own, config)?;
    Ok(())
}

fn envoy_descriptors() -> Result<FileDescriptorSet, Box<dyn Error>> {
    let packed = fs::File::open(ENVOY).map_err(|e| format!("{ENVOY}: {e}"))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{ENVOY}: {e}"))?;
    Ok(FileDescriptorSet::decode(bytes.as_slice())?)
}
