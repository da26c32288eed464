//! A number of places, of which no client can take more than its share.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// The places. Clones share them. A client is an address, or whatever else tells it from others.
#[derive(Clone)]
pub struct Shares<C: Eq + Hash = IpAddr> {
    places: usize,
    share: usize,
    taken: Arc<Mutex<Taken<C>>>,
}

struct Taken<C> {
    total: usize,
    /// By client; those without any are removed.
    by_client: HashMap<C, usize>,
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
pub struct Place<C: Eq + Hash = IpAddr> {
    taken: Arc<Mutex<Taken<C>>>,
    client: C,
}

impl<C: Clone + Eq + Hash> Shares<C> {
    /// `places` in total, of which one client gets at most `share`.
    pub fn new(places: usize, share: usize) -> Self {
        let taken = Taken { total: 0, by_client: HashMap::new() };
        Self { places, share, taken: Arc::new(Mutex::new(taken)) }
    }

    /// A place for the client.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&self, client: C) -> Result<Place<C>, Full> {
        let mut taken = self.taken.lock().expect("no holder panics");
        if taken.total >= self.places {
            return Err(Full::Whole);
        }
        let of_client = taken.by_client.get(&client).copied().unwrap_or_default();
        if of_client >= self.share {
            return Err(Full::Share);
        }
        taken.by_client.insert(client.clone(), of_client + 1);
        taken.total += 1;
        Ok(Place { taken: self.taken.clone(), client })
    }
}

impl<C: Eq + Hash> Drop for Place<C> {
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
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        share(one, two);
        share("bob", "jane");
    }

    fn share<C: Copy + Eq + Hash>(one: C, two: C) {
        let shares = Shares::new(3, 2);
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
