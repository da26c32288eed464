//! Detaches the loop devices that a cluster leaves behind: those of volumes that are block devices.

use std::path::Path;

use anyhow::{Context, bail};
use runtime::program::Program;

/// Detaches every device whose file is below the folder.
///
/// # Errors
/// When a device cannot be detached.
pub fn detach_below(folder: &Path) -> anyhow::Result<()> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let problems = devices.filter_map(|device| {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let own = Path::new(file.trim_end()).starts_with(folder);
        own.then(|| detach(&Path::new("/dev").join(device.file_name())))?.err()
    });
    super::join_errors(problems.collect())
}

fn detach(device: &Path) -> anyhow::Result<()> {
    let mut command = Program::new("losetup").option_with_value("--detach", device).into_command();
    let output = command.output().context("cannot run losetup")?;
    if !output.status.success() {
        bail!("cannot detach {}: {}", device.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
