//! A place for a test's cluster on this machine: a number that no other running test has, from
//! which its name, folder and address ranges follow.

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Clusters of tests that one machine may run at once; the ranges below have room for them.
const SLOTS: u8 = 32;

/// Not below $TMPDIR, which may be too long for sockets.
fn folder(number: u8) -> PathBuf {
    PathBuf::from(format!("/tmp/skiff-test-{number}"))
}

/// A number held until it is dropped, or its process ends.
pub struct Slot {
    number: u8,
    _lock: Flock<File>,
}

impl Slot {
    /// Takes the lowest number that is free.
    ///
    /// # Errors
    /// When none is, or the lock files cannot be made.
    pub fn take() -> anyhow::Result<Self> {
        for number in 1..=SLOTS {
            if let Some(slot) = Self::lock(number)? {
                return Ok(slot);
            }
        }
        bail!("{SLOTS} clusters of tests run already")
    }

    /// The slots where a cluster is that no running test holds. They are held until they are
    /// dropped.
    ///
    /// # Errors
    /// When the lock files cannot be made.
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

    /// The slot, if no other process has it.
    fn lock(number: u8) -> anyhow::Result<Option<Self>> {
        let locks = Path::new("/tmp/skiff-test-slots");
        std::fs::create_dir_all(locks).context("cannot make the folder of slots")?;
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

    /// The address of the nth node, from one.
    pub fn node_address(&self, number: u8) -> String {
        format!("172.31.{}.{}", self.number, 10 + number)
    }
}
