//! The requests of a level by their ids: an id says where its request is, and no two requests have
//! the same one.

use super::Entry;

/// Places that are kept when there are no requests.
const KEPT: usize = 256;
/// Bits of an id that say where its request is.
const PLACE_BITS: u32 = 32;

#[derive(Debug)]
pub struct Entries<R> {
    places: Vec<Option<(u64, Entry<R>)>>,
    free: Vec<u32>,
    /// Requests so far.
    count: u64,
}

impl<R> Default for Entries<R> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), count: 0 }
    }
}

impl<R> Entries<R> {
    /// Adds a request, whose id is greater than that of any before it.
    pub fn insert(&mut self, entry: Entry<R>) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("a level has fewer requests")
        });
        self.count += 1;
        let id = (self.count << PLACE_BITS) | u64::from(place);
        self.places[place as usize] = Some((id, entry));
        id
    }

    pub fn get(&self, id: u64) -> Option<&Entry<R>> {
        match self.places.get(place(id)) {
            Some(Some((own, entry))) if *own == id => Some(entry),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Entry<R>> {
        match self.places.get_mut(place(id)) {
            Some(Some((own, entry))) if *own == id => Some(entry),
            _ => None,
        }
    }

    pub fn remove(&mut self, id: u64) -> Option<Entry<R>> {
        self.get(id)?;
        let (_, entry) = self.places[place(id)].take()?;
        self.free.push(place(id).try_into().ok()?);
        if self.free.len() == self.places.len() && self.places.len() > KEPT {
            self.places = Vec::new();
            self.free = Vec::new();
        }
        Some(entry)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry<R>)> {
        self.places.iter().flatten().map(|(id, entry)| (*id, entry))
    }
}

#[allow(clippy::cast_possible_truncation)]
fn place(id: u64) -> usize {
    id as u32 as usize
}
