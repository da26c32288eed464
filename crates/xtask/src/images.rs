//! `xtask images`: test images as OCI archives, written by our own code, so that neither a registry
//! nor an image tool is needed.

mod archive;

use anyhow::{Context, bail, ensure};
use archive::{Archive, Layer};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of the images, as pods refer to them, and the versions of the test server.
const BUSYBOX: &str = "skiff.test/busybox:1";
const SERVER: &str = "skiff.test/testserver";
const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Writes `target/images/{busybox,testserver-v1,testserver-v2}.tar`.
///
/// # Errors
/// When busybox-static is not installed, or the server does not build.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let target = target_folder(root);
    let folder = target.join("images");
    std::fs::create_dir_all(&folder)?;
    write(&folder.join("busybox.tar"), &busybox()?)?;
    let server = build_server(root, &target)?;
    for version in VERSIONS {
        let path = folder.join(format!("testserver-{version}.tar"));
        write(&path, &test_server(&server, version)?)?;
    }
    Ok(())
}

fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn write(path: &Path, archive: &Archive) -> anyhow::Result<()> {
    let bytes = archive.to_tar()?;
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} ({} KB)", path.display(), archive.name, bytes.len() >> 10);
    Ok(())
}

fn busybox() -> anyhow::Result<Archive> {
    let path = Path::new("/bin/busybox");
    let program = std::fs::read(path)
        .with_context(|| format!("{} (apt-get install busybox-static)", path.display()))?;
    let output = Command::new(path).arg("--list").output().context("cannot run busybox")?;
    ensure!(output.status.success(), "busybox --list failed");
    let names = String::from_utf8(output.stdout)?;
    let mut layer = base_layer()?;
    layer.file("bin/busybox", &program, 0o755)?;
    for name in names.lines().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{name}"), "busybox")?;
    }
    Ok(Archive {
        name: BUSYBOX.to_owned(),
        layers: vec![layer.finish()?],
        environment: vec!["PATH=/bin".to_owned()],
        entrypoint: Vec::new(),
        command: vec!["sh".to_owned()],
    })
}

fn test_server(program: &Path, version: &str) -> anyhow::Result<Archive> {
    let mut layer = base_layer()?;
    layer.file("bin/testserver", &std::fs::read(program)?, 0o755)?;
    Ok(Archive {
        name: format!("{SERVER}:{version}"),
        layers: vec![layer.finish()?],
        environment: vec!["PATH=/bin".to_owned(), format!("VERSION={version}")],
        entrypoint: vec!["/bin/testserver".to_owned()],
        command: vec!["serve".to_owned()],
    })
}

fn base_layer() -> anyhow::Result<Layer> {
    let mut layer = Layer::new();
    for (folder, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)] {
        layer.folder(folder, mode)?;
    }
    layer.file(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        0o644,
    )?;
    layer.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    Ok(layer)
}

/// Builds the test server as one static program, which needs no library in its image.
fn build_server(root: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not report the host")?;
    let status = Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "testserver", "--target", host, "--target-dir"])
        .arg(target.join("static"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the test server does not build");
    }
    Ok(target.join("static").join(host).join("debug/testserver"))
}
