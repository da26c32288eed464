//! The desired elements of all owners together, and the changes when those of an owner change.

use std::collections::HashMap;

use client::mirror::Name;

use super::{ElementId, Elements, endpoints_of};
use crate::nft::Family;
use crate::policy::Part;
use crate::table::{Chain, Data, Endpoint, Key, LOCAL_SLOTS, Target};

/// The owner of an element. Conflicts (two Services with the same external address and port) are
/// resolved by order: the least owner wins, and the next one takes over when it goes away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    Service(Name),
    Pod(Name),
    Node(Name),
    Policy(Part),
}

/// A change of an element's data; `None` before if it is added, `None` after if it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub before: Option<Data>,
    pub after: Option<Data>,
}

/// The changes of a transaction.
pub type Changes = HashMap<ElementId, Change>;

/// The claims of all owners to elements.
#[derive(Default)]
pub struct Desired {
    /// Sorted by owner; the first one wins.
    claims: HashMap<ElementId, Vec<(Owner, Data)>>,
    owned: HashMap<Owner, Vec<ElementId>>,
    chains: HashMap<(Family, Chain), usize>,
}

impl Desired {
    /// Replaces the elements of the owner, and adds the resulting changes to `changes`.
    pub fn replace(&mut self, owner: &Owner, elements: Elements, changes: &mut Changes) {
        let ids: Vec<ElementId> = elements.iter().map(|(id, _)| *id).collect();
        let before = match ids.is_empty() {
            true => self.owned.remove(owner),
            false => self.owned.insert(owner.clone(), ids),
        };
        let mut wanted: HashMap<ElementId, Data> = elements.into_iter().collect();
        for id in before.unwrap_or_default() {
            let data = wanted.remove(&id);
            self.claim(id, owner, data, changes);
        }
        for (id, data) in wanted {
            self.claim(id, owner, Some(data), changes);
        }
    }

    fn claim(&mut self, id: ElementId, owner: &Owner, data: Option<Data>, changes: &mut Changes) {
        let claims = self.claims.entry(id).or_default();
        let before = claims.first().map(|(_, data)| *data);
        match (claims.binary_search_by(|(other, _)| other.cmp(owner)), data) {
            (Ok(at), Some(data)) => claims[at].1 = data,
            (Ok(at), None) => drop(claims.remove(at)),
            (Err(at), Some(data)) => claims.insert(at, (owner.clone(), data)),
            (Err(_), None) => {}
        }
        let after = claims.first().map(|(_, data)| *data);
        if claims.is_empty() {
            self.claims.remove(&id);
        }
        if before == after {
            return;
        }
        for (data, used) in [(before, false), (after, true)] {
            if let Some(chain) = data.and_then(|data| data.chain()) {
                let count = self.chains.entry((id.family, chain)).or_default();
                *count = if used { *count + 1 } else { *count - 1 };
                if *count == 0 {
                    self.chains.remove(&(id.family, chain));
                }
            }
        }
        let change = changes.entry(id).or_insert(Change { before, after });
        change.after = after;
        if change.before == change.after {
            changes.remove(&id);
        }
    }

    /// The desired data of an element.
    pub fn get(&self, id: &ElementId) -> Option<Data> {
        self.claims.get(id).map(|claims| claims[0].1)
    }

    /// All desired elements.
    pub fn all(&self) -> impl Iterator<Item = (ElementId, Data)> + '_ {
        self.claims.iter().map(|(id, claims)| (*id, claims[0].1))
    }

    /// The number of desired elements.
    pub fn element_count(&self) -> usize {
        self.claims.len()
    }

    /// The chains that elements refer to.
    pub fn chains(&self, family: Family) -> impl Iterator<Item = Chain> + '_ {
        let chains = self.chains.keys();
        chains.filter(move |(other, _)| *other == family).map(|(_, chain)| *chain)
    }

    /// The endpoints of a target.
    pub fn endpoints(&self, family: Family, target: Target) -> impl Iterator<Item = Endpoint> {
        let at = move |slot| {
            let key = Key::Slot(target, slot);
            match self.get(&ElementId { family, map: endpoints_of(target), key }) {
                Some(Data::Endpoint(endpoint)) => Some(endpoint),
                _ => None,
            }
        };
        (0..).map_while(at).chain((LOCAL_SLOTS..).map_while(at))
    }

    /// The chains that elements of any family refer to.
    pub fn all_chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.keys().map(|(_, chain)| chain)
    }

    pub fn uses(&self, family: Family, chain: Chain) -> bool {
        self.chains.contains_key(&(family, chain))
    }

    /// The changes that turn a table with the elements `actual` into the desired one.
    pub fn difference(&self, actual: &HashMap<ElementId, Data>) -> Changes {
        let mut changes = Changes::new();
        for (id, data) in actual {
            let after = self.get(id);
            if after != Some(*data) {
                changes.insert(*id, Change { before: Some(*data), after });
            }
        }
        for (id, data) in self.all() {
            if !actual.contains_key(&id) {
                changes.insert(id, Change { before: None, after: Some(data) });
            }
        }
        changes
    }
}
