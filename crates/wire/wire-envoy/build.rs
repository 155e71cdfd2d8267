//! Compiles the protobuf files that envoy-types lacks (no protoc), and prepares the descriptor set of both:
//! envoy-types ships one in its package without exporting it, so its place is asked of cargo.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::FileDescriptorSet;

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
    println!("cargo:rerun-if-changed=Cargo.toml");
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
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let found = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version", "1", "--offline"])
        // Only the packages of this platform are sure to have been downloaded.
        .args(["--filter-platform", &env::var("TARGET")?])
        .arg("--manifest-path")
        .arg(manifest)
        .output()?;
    if !found.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&found.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&found.stdout)?;
    let package = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["name"] == "envoy-types")
        .and_then(|p| p["manifest_path"].as_str())
        .ok_or("cargo metadata names no package envoy-types")?;
    let file = Path::new(package).with_file_name("src/generated/types.bin");
    let bytes = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(FileDescriptorSet::decode(bytes.as_slice())?)
}
