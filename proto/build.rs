//! Compiles fovea/v1/*.proto with protox: no protoc is needed.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 10] = [
    "fovea/v1/common.proto",
    "fovea/v1/runs.proto",
    "fovea/v1/groups.proto",
    "fovea/v1/datasets.proto",
    "fovea/v1/weights.proto",
    "fovea/v1/workers.proto",
    "fovea/v1/checkpoints.proto",
    "fovea/v1/admin.proto",
    "fovea/v1/cluster.proto",
    "fovea/v1/identity.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=fovea");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("fovea.bin"), descriptors.encode_to_vec())?;
    // Messages and clients, then the servers, which have a codec of their own.
    tonic_prost_build::configure()
        .bytes(".fovea.v1")
        .build_server(false)
        .compile_fds(descriptors.clone())?;
    let servers = out.join("servers");
    std::fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".fovea.v1", "crate::pb")
        .codec_path("crate::codec::ServerCodec")
        .out_dir(servers)
        .compile_fds(descriptors)?;
    Ok(())
}
