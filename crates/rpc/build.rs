//! Generates the messages, clients and servers from `proto/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new("../../proto");
    let files = [
        root.join("skiff/api/v1/resources.proto"),
        root.join("skiff/kubelet/v1/kubelet.proto"),
        root.join("skiff/scheduler/v1/scheduler.proto"),
    ];
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::Codec")
        .file_descriptor_set_path(out.join("skiff.bin"))
        .compile_protos(&files, &[root.to_path_buf()])?;
    // Kubernetes' own: not one of our services, so not among those that reflection shows.
    let files = ["deviceplugin/v1beta1/api.proto", "podresources/v1/api.proto", "kms/v2/api.proto"];
    for file in files {
        tonic_prost_build::configure().compile_protos(&[root.join(file)], &[root.to_path_buf()])?;
    }
    println!("cargo:rerun-if-changed=../../proto");
    Ok(())
}
