//! NFS: mounted by mount(8), which resolves the server's name, agrees on a version with it and
//! starts what locks need.
//!
//! Server and export are the pod author's. mount(8) passes the source on to a helper of its own, so
//! that it must not look like an option there either: [`source`] refuses all but hosts.

use std::path::Path;

use runtime::program::Program;

use super::is_mount_point;
use crate::volume::VolumeError;

/// Mounts an export of an NFS server, version 4 unless `options` say otherwise.
pub fn nfs(server: &str, export: &str, path: &Path, options: &[String]) -> Result<(), VolumeError> {
    let program = program(server, export, path, options)?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let output = program.into_command().output().map_err(VolumeError::io("run mount for", path))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(VolumeError::io("mount nfs on", path)(std::io::Error::other(said)))
}

fn program(
    server: &str,
    export: &str,
    path: &Path,
    options: &[String],
) -> Result<Program, VolumeError> {
    let source = source(server, export)?;
    let mut program = Program::new("mount").option_with_value("-t", "nfs");
    if !options.is_empty() {
        program = program.option_with_value("-o", options.join(","));
    }
    Ok(program.operand(source).operand(path))
}

/// `<server>:<export>`, with brackets around an IPv6 address.
fn source(server: &str, export: &str) -> Result<String, VolumeError> {
    if let Some(problem) = api::names::host(server).into_iter().next() {
        return Err(VolumeError::NfsServer { server: server.to_owned(), problem });
    }
    if !export.starts_with('/') || export.contains(char::is_control) {
        return Err(VolumeError::NfsExport(export.to_owned()));
    }
    let bare = server.contains(':') && !server.starts_with('[');
    Ok(if bare { format!("[{server}]:{export}") } else { format!("{server}:{export}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_are_servers() {
        for (server, expected) in [
            ("nfs.example.com", "nfs.example.com:/e"),
            ("192.0.2.1", "192.0.2.1:/e"),
            ("2001:db8::1", "[2001:db8::1]:/e"),
            ("[2001:db8::1]", "[2001:db8::1]:/e"),
        ] {
            assert_eq!(source(server, "/e").unwrap(), expected);
        }
        for bad in ["", "-iT/tmp/x", "--bind", "-o", "a -o b", "a,b", "a\n", "/dev/sda", "a:/x"] {
            let refused = source(bad, "/e");
            assert!(matches!(refused, Err(VolumeError::NfsServer { .. })), "{bad:?}");
        }
        for bad in ["", "relative", "-o", "/a\nb", "/a\0"] {
            assert!(matches!(source("a", bad), Err(VolumeError::NfsExport(_))), "{bad:?}");
        }
    }

    /// What the server is tried for is refused before anything is looked at or run.
    #[test]
    fn nothing_is_mounted_for_an_option() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("n");
        std::fs::create_dir(&target).unwrap();
        let secret = root.path().join("secret");
        std::fs::create_dir(&secret).unwrap();
        let folder = root.path().join("fstab:");
        std::fs::create_dir(&folder).unwrap();
        let line = format!("{} {} none bind,rw 0 0\n", secret.display(), target.display());
        std::fs::write(folder.join("export"), line).unwrap();
        let server = format!("-iT{}/fstab", root.path().display());
        let refused = nfs(&server, "/export", &target, &[]);
        assert!(matches!(refused, Err(VolumeError::NfsServer { .. })));
        assert!(!is_mount_point(&target).unwrap());
    }

    #[test]
    fn options_are_one_value_and_operands_the_last() {
        let options = ["-v".to_owned(), "ro".to_owned()];
        let command = program("a", "/e", Path::new("/p"), &options).unwrap().into_command();
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["-t", "nfs", "-o", "-v,ro", "--", "a:/e", "/p"]);
    }
}
