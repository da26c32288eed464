//! A place for a test's cluster on this machine: a number that no other running test has, from
//! which its name, folder and address ranges follow.

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::PathBuf;

/// Clusters of tests that one machine may run at once; the ranges below have room for them.
const SLOTS: u8 = 32;

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
        let folder = std::env::temp_dir().join("skiff-test-slots");
        std::fs::create_dir_all(&folder).context("cannot make the folder of slots")?;
        for number in 1..=SLOTS {
            let path = folder.join(number.to_string());
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("{SLOTS} clusters of tests run already")
    }

    pub fn name(&self) -> String {
        format!("test-{}", self.number)
    }

    pub fn folder(&self) -> PathBuf {
        // Not below $TMPDIR, which may be too long for sockets.
        PathBuf::from(format!("/tmp/skiff-test-{}", self.number))
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
