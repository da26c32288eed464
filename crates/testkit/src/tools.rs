//! Programs that tests need and that the project does not build.

use anyhow::bail;
use std::ffi::OsString;

/// Lists the tools that this machine may lack, separated by commas; tests that need them are
/// skipped.
pub const WITHOUT: &str = "SKIFF_TEST_WITHOUT";

/// Skips a test that cannot run without `tool`, if the environment allows the tool to be missing.
///
/// # Errors
/// When it does not; the message names the variable that would.
pub fn missing(tool: &str, why: &str) -> anyhow::Result<()> {
    let allowed = std::env::var(WITHOUT).unwrap_or_default();
    if !allowed.split(',').any(|name| name == tool) {
        bail!("{tool}: {why} ({WITHOUT}={tool} skips the tests that need it)");
    }
    println!("skipped: {tool}: {why}");
    Ok(())
}

/// The kubectl that tests run: `$SKIFF_TEST_KUBECTL`, or the machine's.
pub fn kubectl() -> OsString {
    std::env::var_os("SKIFF_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into())
}
