//! A disk whose power fails: what has not been synced is then lost, torn or reordered.

use std::{
    io,
    sync::{Mutex, MutexGuard},
};

use redb::StorageBackend;

/// The unit that a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug)]
enum Pending {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug)]
struct State {
    /// What the processes of the machine see.
    cache: Vec<u8>,
    /// What is still there without power.
    medium: Vec<u8>,
    /// Changes since the last sync, in order.
    pending: Vec<Pending>,
    /// Operations until the power fails; `None`: it does not.
    left: Option<usize>,
    off: bool,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    state: Mutex<State>,
    /// A disk without is what a store without fsync has.
    syncs: bool,
}

impl Disk {
    pub fn new(syncs: bool) -> Disk {
        let state = State {
            cache: Vec::new(),
            medium: Vec::new(),
            pending: Vec::new(),
            left: None,
            off: false,
        };
        Disk { state: Mutex::new(state), syncs }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the power fail after this many operations.
    pub fn fail_after(&self, operations: usize) {
        self.state().left = Some(operations);
    }

    /// Lets the power fail now, if it has not, and restores it. Of what was not synced, each sector
    /// has been written with this probability.
    pub fn restore(&self, probability: f64) {
        let mut state = self.state();
        let State { medium, pending, .. } = &mut *state;
        for change in pending.drain(..) {
            match change {
                Pending::Length(length) if rand::random_bool(probability) => {
                    medium.resize(length, 0);
                }
                Pending::Length(_) => {}
                Pending::Write { offset, data } => {
                    for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if rand::random_bool(probability) {
                            put(medium, offset + index * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        state.cache = state.medium.clone();
        (state.left, state.off) = (None, false);
    }

    /// The state for one more operation.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.off |= state.left == Some(0);
        if state.off {
            return Err(io::Error::other("the power has failed"));
        }
        state.left = state.left.map(|left| left - 1);
        Ok(state)
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.operate()?.cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.operate()?;
        let from = state.cache.get(index(offset)..index(offset) + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.operate()?;
        state.cache.resize(index(length), 0);
        state.pending.push(Pending::Length(index(length)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        if self.syncs {
            let State { medium, pending, .. } = &mut *state;
            for change in pending.drain(..) {
                match change {
                    Pending::Length(length) => medium.resize(length, 0),
                    Pending::Write { offset, data } => put(medium, offset, &data),
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.operate()?;
        put(&mut state.cache, index(offset), data);
        state.pending.push(Pending::Write { offset: index(offset), data: data.to_vec() });
        Ok(())
    }
}
