//! A number of places, of which no client can take more than its share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// The places. Clones share them.
#[derive(Clone)]
pub struct Shares {
    places: usize,
    share: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    /// By client; those without any are removed.
    by_client: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All places are taken.
    Whole,
    /// The client has its share.
    Share,
}

/// A place, until it is dropped.
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    client: IpAddr,
}

impl Shares {
    /// `places` in total, of which one client gets at most `share`.
    pub fn new(places: usize, share: usize) -> Self {
        Self { places, share, taken: Arc::default() }
    }

    /// A place for the client.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&self, client: IpAddr) -> Result<Place, Full> {
        let mut taken = self.taken.lock().expect("no holder panics");
        if taken.total >= self.places {
            return Err(Full::Whole);
        }
        let of_client = taken.by_client.entry(client).or_default();
        if *of_client >= self.share {
            return Err(Full::Share);
        }
        *of_client += 1;
        taken.total += 1;
        Ok(Place { taken: self.taken.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().expect("no holder panics");
        taken.total -= 1;
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                taken.by_client.remove(&self.client);
                let left = taken.by_client.len();
                taken.by_client.shrink_to(2 * left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shared_and_come_back() {
        let shares = Shares::new(3, 2);
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let held = [shares.take(one).unwrap(), shares.take(one).unwrap()];
        assert_eq!(shares.take(one).err(), Some(Full::Share));
        let last = shares.take(two).unwrap();
        assert_eq!(shares.take(two).err(), Some(Full::Whole));
        drop(held);
        assert!(shares.take(one).is_ok());
        drop(last);
        assert!(shares.taken.lock().unwrap().by_client.is_empty());
    }
}
