//! Work that is done once for a volume of a pod, whatever happens to this process.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::VolumeError;

/// A file beside the volume that exists once the work is done: a process that was killed before
/// that does the work again, and later ones leave alone what the pod has made of the volume.
#[derive(Clone, Debug)]
pub struct Once {
    marker: PathBuf,
}

impl Once {
    pub fn new(marker: PathBuf) -> Self {
        Self { marker }
    }

    pub fn is_done(&self) -> bool {
        self.marker.exists()
    }

    pub fn done(&self) -> Result<(), VolumeError> {
        fs::write(&self.marker, b"").map_err(VolumeError::io("write", &self.marker))
    }

    /// The work has to be done again.
    pub fn forget(&self) -> Result<(), VolumeError> {
        match fs::remove_file(&self.marker) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(VolumeError::io("remove", &self.marker)(error))
            }
            _ => Ok(()),
        }
    }
}
