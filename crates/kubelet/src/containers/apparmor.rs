//! AppArmor: which profile a container gets, where the kernel has AppArmor.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtime::program::Program;

use super::container::{AppArmorProfile, SecurityContext};
use super::error::{Result, RuntimeError};

/// The profile of containers that name none.
const DEFAULT: &str = "skiff-default";
const DEFAULT_TEXT: &str = include_str!("apparmor/default.profile");
/// The kernel's list of loaded profiles: `NAME (MODE)`, a line each.
const PROFILES: &str = "sys/kernel/security/apparmor/profiles";
const ENABLED: &str = "sys/module/apparmor/parameters/enabled";
/// The program that loads profiles.
const PARSERS: [&str; 2] = ["sbin/apparmor_parser", "usr/sbin/apparmor_parser"];

/// What the machine has of AppArmor.
#[derive(Debug, Clone, Default)]
pub(in crate::containers) struct AppArmor {
    root: PathBuf,
    enabled: bool,
    parser: Option<PathBuf>,
}

impl AppArmor {
    /// Looks below `root`.
    pub(in crate::containers) fn read(root: &Path) -> Self {
        let enabled = fs::read(root.join(ENABLED)).is_ok_and(|text| text.starts_with(b"Y"))
            && root.join(PROFILES).exists();
        let parser = PARSERS.iter().map(|path| root.join(path)).find(|path| path.exists());
        Self { root: root.to_owned(), enabled, parser }
    }

    pub(in crate::containers) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The name of the container's profile, `None` if it has none. The default one is loaded if the
    /// kernel does not have it.
    ///
    /// # Errors
    /// The profile cannot be enforced.
    pub(in crate::containers) fn profile(
        &self,
        security: &SecurityContext,
    ) -> Result<Option<String>> {
        let asked = security.app_armor.as_ref();
        if !self.enabled {
            return match asked {
                None | Some(AppArmorProfile::Unconfined) => Ok(None),
                Some(_) => Err(invalid("apparmor is not supported".to_owned())),
            };
        }
        match asked {
            Some(AppArmorProfile::Unconfined) => Ok(None),
            Some(AppArmorProfile::Localhost(name)) if !self.is_loaded(name)? => {
                Err(invalid(format!("apparmor profile not found {name}")))
            }
            Some(AppArmorProfile::Localhost(name)) => Ok(Some(name.clone())),
            None | Some(AppArmorProfile::RuntimeDefault) if security.privileged => Ok(None),
            None if self.parser.is_none() && !self.is_loaded(DEFAULT)? => Ok(None),
            None | Some(AppArmorProfile::RuntimeDefault) => {
                self.load_default()?;
                Ok(Some(DEFAULT.to_owned()))
            }
        }
    }

    fn is_loaded(&self, name: &str) -> Result<bool> {
        let path = self.root.join(PROFILES);
        let list = fs::read_to_string(&path);
        let list = list.map_err(|source| RuntimeError::Io { operation: "read", path, source })?;
        let mut names = list.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0));
        Ok(names.any(|loaded| loaded == name))
    }

    fn load_default(&self) -> Result<()> {
        if self.is_loaded(DEFAULT)? {
            return Ok(());
        }
        let Some(parser) = &self.parser else {
            return Err(invalid("apparmor is not supported: no apparmor_parser".to_owned()));
        };
        let failed = |source| RuntimeError::Io {
            operation: "load the default AppArmor profile by",
            path: parser.clone(),
            source,
        };
        // Not from its cache, and in place of what may have been loaded meanwhile.
        let program = Program::new(parser).option("--skip-cache").option("--replace");
        let mut child = program
            .into_command()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(DEFAULT_TEXT.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failed(io::Error::other(text)))
    }
}

fn invalid(message: String) -> RuntimeError {
    RuntimeError::AppArmor { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(enabled: &str, loaded: &str) -> (tempfile::TempDir, AppArmor) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [(ENABLED, enabled), (PROFILES, loaded)] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = AppArmor::read(root.path());
        (root, found)
    }

    fn asks(profile: Option<AppArmorProfile>, privileged: bool) -> SecurityContext {
        SecurityContext { app_armor: profile, privileged, ..SecurityContext::default() }
    }

    #[test]
    fn the_profile_of_a_container() {
        use AppArmorProfile::{Localhost, RuntimeDefault, Unconfined};
        assert!(DEFAULT_TEXT.contains(&format!("profile {DEFAULT} ")));
        let own = |name: &str| Some(Localhost(name.to_owned()));
        let without = AppArmor::read(Path::new("/nonexistent"));
        let (_disabled, disabled) = machine("N\n", "");
        let (_bare, bare) = machine("Y\n", "");
        let (_ready, ready) = machine("Y\n", "skiff-default (enforce)\nmy profile (complain)\n");
        let unsupported = Err("apparmor is not supported");
        for (machine, asked, privileged, expected) in [
            (&without, None, false, Ok(None)),
            (&without, Some(RuntimeDefault), false, unsupported),
            (&disabled, Some(Unconfined), false, Ok(None)),
            (&disabled, own("my profile"), false, unsupported),
            (&bare, None, false, Ok(None)),
            (&bare, Some(RuntimeDefault), true, Ok(None)),
            (
                &bare,
                Some(RuntimeDefault),
                false,
                Err("apparmor is not supported: no apparmor_parser"),
            ),
            (&ready, None, false, Ok(Some(DEFAULT))),
            (&ready, Some(RuntimeDefault), false, Ok(Some(DEFAULT))),
            (&ready, None, true, Ok(None)),
            (&ready, Some(Unconfined), false, Ok(None)),
            (&ready, own("my profile"), true, Ok(Some("my profile"))),
            (&ready, own("my"), false, Err("apparmor profile not found my")),
        ] {
            let found = machine.profile(&asks(asked.clone(), privileged));
            let found = found.map_err(|error| error.to_string());
            let expected = expected.map(|name| name.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(found, expected, "{asked:?} {privileged}");
        }
    }
}
