//! Programs that tests need and that the project does not build.

use anyhow::bail;
use std::ffi::OsString;

/// Names the tools that this machine may lack, with commas between; what needs them passes untested.
pub const WITHOUT: &str = "SKIFF_TEST_WITHOUT";

/// For a test that cannot run without `tool`: passes if the environment allows its absence.
///
/// # Errors
/// When it does not; says which variable would.
pub fn missing(tool: &str, why: &str) -> anyhow::Result<()> {
    let allowed = std::env::var(WITHOUT).unwrap_or_default();
    if !allowed.split(',').any(|name| name == tool) {
        bail!("{tool}: {why} ({WITHOUT}={tool} leaves out what needs it)");
    }
    println!("not tested: {tool}: {why}");
    Ok(())
}

/// The kubectl that tests run: `$SKIFF_TEST_KUBECTL`, or the machine's.
pub fn kubectl() -> OsString {
    std::env::var_os("SKIFF_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into())
}
