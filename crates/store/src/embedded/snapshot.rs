//! Snapshots: a file that is itself a store, with a checksum at the end.
//!
//! A snapshot is a redb file with the state at one durable revision, followed by its SHA-256, as in
//! etcd's snapshots. etcd cannot open it.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{FILE_NAME, shared::Shared, tables};

const CHECKSUM_BYTES: u64 = 32;
const COPY_BYTES: usize = 64 << 10;

/// A snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory already contains a store.
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    /// The snapshot is corrupted, or not a snapshot.
    #[error("the checksum of {} does not match: it is truncated or not a snapshot", .0.display())]
    Damaged(PathBuf),
    /// A file could not be read or written.
    #[error("cannot restore the snapshot")]
    Io(#[from] std::io::Error),
}

/// Writes the current durable state to an unnamed file; returns the file, open at the start, and
/// its length without the checksum. Blocks.
pub(super) fn write(shared: &Arc<Shared>, directory: &Path) -> Result<(File, u64), redb::Error> {
    let file = NamedTempFile::new_in(directory)?;
    let (view, compacted) = {
        let state = shared.read();
        (state.view(), state.index.compacted)
    };
    tables::copy(
        file.path(),
        &view,
        compacted,
        &shared.leases.granted(),
        (shared.cluster_id, shared.member_id),
    )?;
    let copy = file.reopen()?;
    let bytes = copy.metadata()?.len();
    Ok((copy, bytes))
}

/// Restores a snapshot into a directory that contains no store.
///
/// # Errors
/// [`RestoreError::Damaged`] if the checksum does not match; no store is created then.
pub fn restore(snapshot: &Path, directory: &Path) -> Result<(), RestoreError> {
    std::fs::create_dir_all(directory)?;
    let target = directory.join(FILE_NAME);
    if target.exists() {
        return Err(RestoreError::Exists(target));
    }
    let source = File::open(snapshot)?;
    let damaged = || RestoreError::Damaged(snapshot.to_owned());
    let bytes = source.metadata()?.len().checked_sub(CHECKSUM_BYTES).ok_or_else(damaged)?;
    let mut source = BufReader::new(source);
    let mut copy = NamedTempFile::new_in(directory)?;
    let mut checksum = Sha256::new();
    let mut content = source.by_ref().take(bytes);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        checksum.update(&buffer[..read]);
        copy.write_all(&buffer[..read])?;
    }
    let mut expected = Vec::new();
    source.read_to_end(&mut expected)?;
    if checksum.finalize().as_slice() != expected {
        return Err(damaged());
    }
    copy.as_file().sync_all()?;
    copy.persist_noclobber(&target).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()?;
    Ok(())
}
