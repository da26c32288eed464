//! What all owners together want in the table, and what changes when one of them changes its mind.

use std::collections::HashMap;

use client::mirror::Name;

use super::{Elements, Place, endpoints_of};
use crate::nft::Family;
use crate::table::{Chain, Data, Endpoint, Key, LOCAL_SLOTS, Target};

/// Who wants an element. The order settles conflicts (two Services with the same external address
/// and port): the least owner has it. The next one gets it when that one goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    Service(Name),
    Pod(Name),
}

/// What becomes of an element: from what (none: it is new) to what (none: it goes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub before: Option<Data>,
    pub after: Option<Data>,
}

/// Changes that belong into one transaction.
pub type Changes = HashMap<Place, Change>;

/// The claims of all owners.
#[derive(Default)]
pub struct Desired {
    /// Sorted by owner; the first is what the table holds.
    claims: HashMap<Place, Vec<(Owner, Data)>>,
    owned: HashMap<Owner, Vec<Place>>,
    chains: HashMap<(Family, Chain), usize>,
}

impl Desired {
    /// Replaces what the owner wants, and adds the consequences to `changes`.
    pub fn replace(&mut self, owner: &Owner, elements: Elements, changes: &mut Changes) {
        let places: Vec<Place> = elements.iter().map(|(place, _)| *place).collect();
        let before = match places.is_empty() {
            true => self.owned.remove(owner),
            false => self.owned.insert(owner.clone(), places),
        };
        let mut wanted: HashMap<Place, Data> = elements.into_iter().collect();
        for place in before.unwrap_or_default() {
            let data = wanted.remove(&place);
            self.claim(place, owner, data, changes);
        }
        for (place, data) in wanted {
            self.claim(place, owner, Some(data), changes);
        }
    }

    fn claim(&mut self, place: Place, owner: &Owner, data: Option<Data>, changes: &mut Changes) {
        let claims = self.claims.entry(place).or_default();
        let before = claims.first().map(|(_, data)| *data);
        match (claims.binary_search_by(|(other, _)| other.cmp(owner)), data) {
            (Ok(at), Some(data)) => claims[at].1 = data,
            (Ok(at), None) => drop(claims.remove(at)),
            (Err(at), Some(data)) => claims.insert(at, (owner.clone(), data)),
            (Err(_), None) => {}
        }
        let after = claims.first().map(|(_, data)| *data);
        if claims.is_empty() {
            self.claims.remove(&place);
        }
        if before == after {
            return;
        }
        for (data, used) in [(before, false), (after, true)] {
            if let Some(Data::Goto(chain)) = data {
                let count = self.chains.entry((place.family, chain)).or_default();
                *count = if used { *count + 1 } else { *count - 1 };
                if *count == 0 {
                    self.chains.remove(&(place.family, chain));
                }
            }
        }
        let change = changes.entry(place).or_insert(Change { before, after });
        change.after = after;
        if change.before == change.after {
            changes.remove(&place);
        }
    }

    /// What the table should hold there.
    pub fn get(&self, place: &Place) -> Option<Data> {
        self.claims.get(place).map(|claims| claims[0].1)
    }

    /// All that the table should hold.
    pub fn all(&self) -> impl Iterator<Item = (Place, Data)> + '_ {
        self.claims.iter().map(|(place, claims)| (*place, claims[0].1))
    }

    /// How many elements the table should hold.
    pub fn element_count(&self) -> usize {
        self.claims.len()
    }

    /// The chains that elements lead to.
    pub fn chains(&self, family: Family) -> impl Iterator<Item = Chain> + '_ {
        let chains = self.chains.keys();
        chains.filter(move |(other, _)| *other == family).map(|(_, chain)| *chain)
    }

    /// Where the connections to a target may go, by this table.
    pub fn endpoints(&self, family: Family, target: Target) -> impl Iterator<Item = Endpoint> {
        let at = move |slot| {
            let key = Key::Slot(target, slot);
            match self.get(&Place { family, map: endpoints_of(target), key }) {
                Some(Data::Endpoint(endpoint)) => Some(endpoint),
                _ => None,
            }
        };
        (0..).map_while(at).chain((LOCAL_SLOTS..).map_while(at))
    }

    /// The chains that elements of any family lead to.
    pub fn all_chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.keys().map(|(_, chain)| chain)
    }

    pub fn uses(&self, family: Family, chain: Chain) -> bool {
        self.chains.contains_key(&(family, chain))
    }

    /// What must change for a table that holds `actual`.
    pub fn difference(&self, actual: &HashMap<Place, Data>) -> Changes {
        let mut changes = Changes::new();
        for (place, data) in actual {
            let after = self.get(place);
            if after != Some(*data) {
                changes.insert(*place, Change { before: Some(*data), after });
            }
        }
        for (place, data) in self.all() {
            if !actual.contains_key(&place) {
                changes.insert(place, Change { before: None, after: Some(data) });
            }
        }
        changes
    }
}
