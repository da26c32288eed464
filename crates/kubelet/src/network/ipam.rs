//! IP address management: which pod holds which addresses. They are stored in one small file per
//! pod, written before the address is used, so that a restarted kubelet finds every allocation
//! again and never allocates an address twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{NetworkError, PodIps};

#[derive(Serialize, Deserialize)]
struct Allocation {
    ips: Vec<IpAddr>,
}

/// The address ranges of a node and their allocations.
pub(super) struct Ipam {
    dir: PathBuf,
    ranges: Vec<IpNet>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Vec<IpAddr>>,
    taken: HashSet<IpAddr>,
    /// The offset allocated last in each range. The search continues from there, so that an address
    /// is reused as late as possible: connections to the pod that had it must have had time to
    /// close.
    last: Vec<u128>,
}

impl Ipam {
    /// Reads the allocations in `dir`, which is created if it is missing.
    pub(super) fn load(ranges: &[IpNet], dir: &Path) -> Result<Self, NetworkError> {
        fs::create_dir_all(dir).map_err(|source| file("create", dir, source))?;
        let mut state = State { last: vec![0; ranges.len()], ..State::default() };
        for entry in fs::read_dir(dir).map_err(|source| file("read", dir, source))? {
            let path = entry.map_err(|source| file("read", dir, source))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| name.strip_suffix(".json")) {
                Some(uid) => {
                    let ips = read(&path)?;
                    state.taken.extend(&ips);
                    state.pods.insert(uid.to_owned(), ips);
                }
                // An allocation that was being written when the kubelet died was never used.
                None => fs::remove_file(&path).map_err(|source| file("remove", &path, source))?,
            }
        }
        for (last, range) in state.last.iter_mut().zip(ranges) {
            let offsets = state.taken.iter().filter(|ip| range.contains(*ip));
            *last = offsets.map(|ip| bits(*ip) - bits(range.network())).max().unwrap_or(0);
        }
        Ok(Self { dir: dir.to_owned(), ranges: ranges.to_vec(), state: Mutex::new(state) })
    }

    /// The pod's addresses, one of each range; allocated now if it has none.
    pub(super) fn allocate(&self, uid: &str) -> Result<PodIps, NetworkError> {
        let path = self.path(uid)?;
        let ips = {
            let mut state = self.state.lock();
            if let Some(ips) = state.pods.get(uid) {
                return Ok(PodIps(ips.clone()));
            }
            state.choose(uid, &self.ranges)?
        };
        if let Err(error) = write(&self.dir, &path, &ips) {
            self.state.lock().forget(uid);
            return Err(error);
        }
        Ok(PodIps(ips))
    }

    /// Frees the pod's addresses.
    pub(super) fn release(&self, uid: &str) -> Result<(), NetworkError> {
        let path = self.path(uid)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file("remove", &path, error));
            }
            _ => self.state.lock().forget(uid),
        }
        Ok(())
    }

    pub(super) fn pods(&self) -> BTreeSet<String> {
        self.state.lock().pods.keys().cloned().collect()
    }

    fn path(&self, uid: &str) -> Result<PathBuf, NetworkError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if uid.is_empty() || !uid.chars().all(plain) {
            return Err(NetworkError::BadUid(uid.to_owned()));
        }
        Ok(self.dir.join(format!("{uid}.json")))
    }
}

impl State {
    /// Allocates the next free address of every range, or none at all.
    fn choose(&mut self, uid: &str, ranges: &[IpNet]) -> Result<Vec<IpAddr>, NetworkError> {
        let mut chosen = Vec::with_capacity(ranges.len());
        for (range, last) in ranges.iter().zip(&self.last) {
            let offset =
                next_free(*range, *last, &self.taken).ok_or(NetworkError::Exhausted(*range))?;
            chosen.push(offset);
        }
        let ips: Vec<IpAddr> =
            ranges.iter().zip(&chosen).map(|(range, offset)| at(*range, *offset)).collect();
        self.last = chosen;
        self.taken.extend(&ips);
        self.pods.insert(uid.to_owned(), ips.clone());
        Ok(ips)
    }

    fn forget(&mut self, uid: &str) {
        for ip in self.pods.remove(uid).unwrap_or_default() {
            self.taken.remove(&ip);
        }
    }
}

/// The first free offset after `last`, wrapping around; the first address of a range and an IPv4
/// range's broadcast address are never allocated.
fn next_free(range: IpNet, last: u128, taken: &HashSet<IpAddr>) -> Option<u128> {
    let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    let end = match range {
        IpNet::V4(_) => size.saturating_sub(1),
        IpNet::V6(_) => size,
    };
    // One more candidate than there are allocated addresses is enough to find a free one.
    let tries = usize::try_from(end).unwrap_or(usize::MAX).min(taken.len() + 2);
    let wrap = |offset: u128| if offset >= end { 1 } else { offset };
    let mut offset = wrap(last + 1);
    for _ in 0..tries {
        if offset < end && !taken.contains(&at(range, offset)) {
            return Some(offset);
        }
        offset = wrap(offset + 1);
    }
    None
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn at(range: IpNet, offset: u128) -> IpAddr {
    let bits = bits(range.network()) + offset;
    match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(
            u32::try_from(bits).expect("an offset inside an IPv4 range fits 32 bits"),
        )),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

fn read(path: &Path) -> Result<Vec<IpAddr>, NetworkError> {
    let bytes = fs::read(path).map_err(|source| file("read", path, source))?;
    let allocation: Allocation = serde_json::from_slice(&bytes)
        .map_err(|source| NetworkError::Allocation { path: path.to_owned(), source })?;
    Ok(allocation.ips)
}

/// Written to another file and renamed, so that the file is always complete.
fn write(dir: &Path, path: &Path, ips: &[IpAddr]) -> Result<(), NetworkError> {
    let allocation = Allocation { ips: ips.to_vec() };
    let bytes = serde_json::to_vec(&allocation).expect("addresses can be written as JSON");
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("pod");
    let beside = dir.join(format!("{name}.new"));
    fs::write(&beside, bytes).map_err(|source| file("write", &beside, source))?;
    fs::rename(&beside, path).map_err(|source| file("rename", path, source))
}

fn file(action: &'static str, path: &Path, source: std::io::Error) -> NetworkError {
    NetworkError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(range: &str, dir: &Path) -> Ipam {
        Ipam::load(&[range.parse().unwrap()], dir).unwrap()
    }

    fn ip(text: &str) -> PodIps {
        PodIps(vec![text.parse().unwrap()])
    }

    #[test]
    fn addresses_wrap_around_and_are_never_allocated_twice() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = ipam("10.1.0.0/29", dir.path());
        for n in 1..=6 {
            assert_eq!(ipam.allocate(&format!("p{n}")).unwrap(), ip(&format!("10.1.0.{n}")));
        }
        assert!(matches!(ipam.allocate("p7"), Err(NetworkError::Exhausted(_))));
        ipam.release("p3").unwrap();
        ipam.release("p3").unwrap();
        assert_eq!(ipam.allocate("p7").unwrap(), ip("10.1.0.3"));
        assert_eq!(ipam.allocate("p7").unwrap(), ip("10.1.0.3"));
    }

    #[test]
    fn a_restart_finds_the_allocations() {
        let dir = tempfile::tempdir().unwrap();
        let before = ipam("10.1.0.0/24", dir.path());
        before.allocate("a").unwrap();
        before.allocate("b").unwrap();
        before.release("a").unwrap();
        fs::write(dir.path().join("c.new"), "{").unwrap();
        let after = ipam("10.1.0.0/24", dir.path());
        assert_eq!(after.pods(), BTreeSet::from(["b".into()]));
        assert_eq!(after.allocate("b").unwrap(), ip("10.1.0.2"));
        assert_eq!(after.allocate("c").unwrap(), ip("10.1.0.3"));
        assert_eq!(after.pods(), BTreeSet::from(["b".into(), "c".into()]));
    }

    #[test]
    fn two_families_are_allocated_together() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = ["10.1.0.0/30".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let ipam = Ipam::load(&ranges, dir.path()).unwrap();
        let ips = ipam.allocate("a").unwrap();
        assert_eq!(ips.0, ["10.1.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        ipam.allocate("b").unwrap();
        assert!(ipam.allocate("c").is_err());
        ipam.release("a").unwrap();
        let ips = ipam.allocate("c").unwrap();
        assert_eq!(ips.0[1], "fd00::3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_uid_cannot_be_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = ipam("10.1.0.0/24", dir.path());
        assert!(matches!(ipam.allocate("../x"), Err(NetworkError::BadUid(_))));
    }
}
