//! A slot for a test's cluster on this machine: a number that no other running test has, which
//! determines the cluster's name, folder and address ranges.

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::{Path, PathBuf};

/// How many test clusters one machine may run at once; the address ranges below allow for it.
const SLOTS: u8 = 32;

/// Not below $TMPDIR, which may be too long for sockets.
fn folder(number: u8) -> PathBuf {
    PathBuf::from(format!("/tmp/skiff-test-{number}"))
}

/// A number, held until it is dropped or the process ends.
pub struct Slot {
    number: u8,
    _lock: Flock<File>,
}

impl Slot {
    /// Takes the lowest number that is free.
    ///
    /// # Errors
    /// When none is free, or the lock files cannot be created.
    pub fn take() -> anyhow::Result<Self> {
        for number in 1..=SLOTS {
            if let Some(slot) = Self::lock(number)? {
                return Ok(slot);
            }
        }
        bail!("{SLOTS} test clusters are already running")
    }

    /// The slots with a cluster that no running test holds. They are held until they are dropped.
    ///
    /// # Errors
    /// When the lock files cannot be created.
    pub fn abandoned() -> anyhow::Result<Vec<Self>> {
        let mut abandoned = Vec::new();
        for number in 1..=SLOTS {
            if folder(number).exists()
                && let Some(slot) = Self::lock(number)?
            {
                abandoned.push(slot);
            }
        }
        Ok(abandoned)
    }

    /// The slot, if no other process holds it.
    fn lock(number: u8) -> anyhow::Result<Option<Self>> {
        let locks = Path::new("/tmp/skiff-test-slots");
        std::fs::create_dir_all(locks).context("cannot create the folder of slots")?;
        let path = locks.join(number.to_string());
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok();
        Ok(lock.map(|lock| Self { number, _lock: lock }))
    }

    pub fn name(&self) -> String {
        format!("test-{}", self.number)
    }

    pub fn folder(&self) -> PathBuf {
        folder(self.number)
    }

    pub fn node_cidr(&self) -> String {
        format!("172.31.{}.0/24", self.number)
    }

    pub fn pod_cidr(&self) -> String {
        format!("10.{}.0.0/16", 160 + self.number)
    }

    pub fn service_cidr(&self) -> String {
        let index = self.number - 1;
        format!("10.{}.{}.0/20", 200 + index / 16, index % 16 * 16)
    }

    pub fn gateway(&self) -> String {
        format!("172.31.{}.1", self.number)
    }

    /// The address of a node; the first has the number one.
    pub fn node_address(&self, number: u8) -> String {
        format!("172.31.{}.{}", self.number, 10 + number)
    }
}
