//! Issued certificates on disk, as upstream's kubelet keeps them: a file with certificate and key for
//! each, and a link to the current one. A reader sees the old or the new one, whenever the writer is
//! killed.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rpc::tls::KeyPair;

/// Certificates of one purpose.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    name: &'static str,
}

impl Store {
    pub fn new(directory: PathBuf, name: &'static str) -> Self {
        Self { directory, name }
    }

    /// Whether its directory exists.
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// `DIRECTORY/kubelet-client-current.pem`
    pub fn current_path(&self) -> PathBuf {
        self.directory.join(format!("{}-current.pem", self.name))
    }

    /// The current certificate and its key, if there is one that can be used.
    pub fn current(&self) -> Option<KeyPair> {
        let pem = std::fs::read(self.current_path()).ok()?;
        let pair = KeyPair { certificate_pem: pem.clone(), key_pem: pem };
        match pair.check() {
            Ok(()) => Some(pair),
            Err(error) => {
                tracing::warn!(%error, path = %self.current_path().display(), "cannot be used");
                None
            }
        }
    }

    /// Makes a certificate the current one. It is durable before anything refers to it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn replace(&self, pair: &KeyPair, now: jiff::Timestamp) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let time = now.strftime("%Y-%m-%d-%H-%M-%S");
        let file_name = format!("{}-{time}.pem", self.name);
        let new = self.directory.join(&file_name);
        let temporary = self.directory.join(format!("{}.tmp", self.name));
        write(&temporary, &[pair.certificate_pem.as_slice(), &pair.key_pem].concat())?;
        std::fs::rename(&temporary, &new)?;
        // A link is replaced by a rename as well.
        let link = self.directory.join(format!("{}-updated.pem", self.name));
        remove(&link)?;
        symlink(&file_name, &link)?;
        std::fs::rename(&link, self.current_path())?;
        std::fs::File::open(&self.directory)?.sync_all()?;
        self.remove_others(&file_name)
    }

    fn remove_others(&self, current: &str) -> io::Result<()> {
        let link = format!("{}-current.pem", self.name);
        for entry in std::fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_dated = name.strip_prefix(self.name).is_some_and(|rest| rest.starts_with("-2"));
            if is_dated && name.ends_with(".pem") && name != current && name != link {
                remove(&self.directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Writes a file that only root may read, durably.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    remove(path)?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> KeyPair {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        KeyPair {
            certificate_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        }
    }

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_certificate_is_current_and_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("pki"), "kubelet-client");
        assert!(store.current().is_none() && !store.exists());
        for second in [0, 1] {
            let pair = pair();
            store.replace(&pair, at(second + 1_800_000_000)).unwrap();
            let current = store.current().unwrap();
            assert!(current.certificate_pem.starts_with(&pair.certificate_pem));
        }
        let files = std::fs::read_dir(folder.path().join("pki")).unwrap().count();
        assert_eq!(files, 2, "the certificate and the link");
    }

    #[test]
    fn a_writer_that_was_killed_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned(), "kubelet-client");
        let first = pair();
        store.replace(&first, at(1_800_000_000)).unwrap();
        // Killed while it wrote the file, and between file and link.
        let other = pair();
        let part = &other.certificate_pem[..40];
        std::fs::write(folder.path().join("kubelet-client.tmp"), part).unwrap();
        symlink("nothing", folder.path().join("kubelet-client-updated.pem")).unwrap();
        std::fs::write(folder.path().join("kubelet-client-2030-01-01-00-00-00.pem"), part).unwrap();
        assert!(store.current().unwrap().certificate_pem.starts_with(&first.certificate_pem));
        store.replace(&other, at(1_800_000_001)).unwrap();
        assert!(store.current().unwrap().certificate_pem.starts_with(&other.certificate_pem));
        // Certificate and key of two are none.
        let mixed = [first.certificate_pem.as_slice(), &other.key_pem].concat();
        std::fs::write(store.current_path(), mixed).unwrap();
        assert!(store.current().is_none());
    }
}
