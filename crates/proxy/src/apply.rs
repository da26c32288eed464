//! Applies the desired state to the tables. A resync reads the tables and writes the difference;
//! otherwise only changes are written. Either way each table is updated in one transaction, so that
//! no packet sees a partial change. Established connections are unaffected, since their state is in
//! conntrack.

mod affinity;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::conntrack;
use crate::nft::{self, Batch, Family, NewElement, NftError, Socket};
use crate::plan::{Change, Changes, Desired, ElementId};
use crate::policy::{Policies, cut};
use crate::table::{Chain, Data, Key, Layout, Map, PolicyKey, TABLE};

/// Writes the tables in the network namespace of the thread that opened it.
pub struct Applier {
    socket: Socket,
    layouts: Vec<Layout>,
    /// The load balancing chains that exist.
    chains: HashSet<(Family, Chain)>,
}

/// The actual contents of a table.
struct Actual {
    elements: HashMap<ElementId, Data>,
    chains: HashSet<(Family, Chain)>,
}

impl Applier {
    pub fn open(layouts: Vec<Layout>) -> Result<Self, NftError> {
        Ok(Self { socket: Socket::open()?, layouts, chains: HashSet::new() })
    }

    /// The netlink port id of the transactions.
    pub fn port(&self) -> Option<u32> {
        self.socket.port()
    }

    /// The endpoints in the tables, so that plans can keep endpoints in their slots. Tables that
    /// have to be recreated count as empty.
    pub fn endpoints(&mut self) -> Result<HashMap<ElementId, Data>, NftError> {
        let mut endpoints = HashMap::new();
        for layout in self.layouts.clone() {
            if let Some(actual) = self.read(&layout)? {
                let elements = actual.elements.into_iter();
                endpoints.extend(elements.filter(|(id, _)| matches!(id.key, Key::Slot(..))));
            }
        }
        Ok(endpoints)
    }

    /// Converges from any contents of the tables. Returns the changes made.
    pub fn resync(&mut self, desired: &Desired) -> Result<Changes, NftError> {
        let mut all = Changes::new();
        self.chains.clear();
        for layout in self.layouts.clone() {
            let family = layout.family;
            let mut batch = Batch::new(family, TABLE);
            let actual = self.read(&layout)?;
            let elements = match actual {
                Some(actual) => {
                    self.chains.extend(actual.chains);
                    actual.elements
                }
                None => {
                    // Create the table first, so that deleting it cannot fail.
                    batch.table("");
                    batch.delete_table();
                    layout.write(&mut batch);
                    HashMap::new()
                }
            };
            let mut changes = desired.difference(&elements);
            changes.retain(|id, _| id.family == family);
            let unused: Vec<Chain> = self
                .chains
                .iter()
                .filter(|(other, chain)| *other == family && !desired.uses(family, *chain))
                .map(|(_, chain)| *chain)
                .collect();
            let needed: Vec<Chain> = desired
                .chains(family)
                .filter(|chain| !self.chains.contains(&(family, *chain)))
                .collect();
            write(&mut batch, &layout, &changes, &needed, &unused);
            self.socket.apply(batch)?;
            self.record_chains(family, &needed, &unused);
            all.extend(changes);
        }
        for layout in &self.layouts {
            affinity::repair(&mut self.socket, layout.family, &all)?;
        }
        Ok(all)
    }

    /// Applies changes to tables that are in the previous desired state.
    pub fn apply(&mut self, desired: &Desired, changes: &Changes) -> Result<(), NftError> {
        for layout in self.layouts.clone() {
            let family = layout.family;
            let changes: Changes = changes
                .iter()
                .filter(|(id, _)| id.family == family)
                .map(|(id, change)| (*id, *change))
                .collect();
            let chains = |pick: fn(&Change) -> Option<Data>| {
                let data = changes.values().filter_map(pick);
                data.filter_map(|data| data.chain()).collect::<HashSet<Chain>>()
            };
            let needed: Vec<Chain> = chains(|change| change.after)
                .into_iter()
                .filter(|chain| desired.uses(family, *chain) && !self.has(family, *chain))
                .collect();
            let unused: Vec<Chain> = chains(|change| change.before)
                .into_iter()
                .filter(|chain| !desired.uses(family, *chain) && self.has(family, *chain))
                .collect();
            let mut batch = Batch::new(family, TABLE);
            write(&mut batch, &layout, &changes, &needed, &unused);
            self.socket.apply(batch)?;
            self.record_chains(family, &needed, &unused);
        }
        if affinity::is_used(desired.all_chains()) {
            for layout in &self.layouts {
                affinity::repair(&mut self.socket, layout.family, changes)?;
            }
        }
        Ok(())
    }

    /// Deletes UDP flows that the changes have made stale; returns their number.
    pub fn clean_conntrack(
        &mut self,
        desired: &Desired,
        changes: &Changes,
    ) -> Result<usize, NftError> {
        let mut cleaned = 0;
        for layout in &self.layouts {
            let valid = conntrack::ValidFlows::of(layout.family, desired, changes);
            cleaned += conntrack::clean(&mut self.socket, layout.family, &valid)?;
        }
        Ok(cleaned)
    }

    /// Removes the connections that policies do not allow, except those with `own` addresses of this
    /// node; returns their number.
    pub fn cut_connections(
        &mut self,
        policies: &Policies,
        own: &HashSet<IpAddr>,
    ) -> Result<usize, NftError> {
        let mut count = 0;
        for layout in &self.layouts {
            count += cut::cut(&mut self.socket, layout.family, policies, own)?;
        }
        Ok(count)
    }

    /// Creates the tables that do not exist, closed for all pods.
    pub fn close(layouts: &[Layout]) -> Result<(), NftError> {
        let mut socket = Socket::open()?;
        for layout in layouts {
            if nft::table_comment(&mut socket, layout.family, TABLE)?.is_some() {
                continue;
            }
            let mut batch = Batch::new(layout.family, TABLE);
            layout.write(&mut batch);
            let (key, end) = Key::Policy(PolicyKey::Guard(layout.family)).encode();
            let data = Data::Drop.encode();
            batch.add(Map::Guard.name(), [NewElement { key, end, data }]);
            socket.apply(batch)?;
        }
        Ok(())
    }

    /// Deletes the tables.
    pub fn cleanup() -> Result<(), NftError> {
        let mut socket = Socket::open()?;
        for family in [Family::V4, Family::V6] {
            if nft::table_comment(&mut socket, family, TABLE)?.is_some() {
                let mut batch = Batch::new(family, TABLE);
                batch.delete_table();
                socket.apply(batch)?;
            }
        }
        Ok(())
    }

    fn has(&self, family: Family, chain: Chain) -> bool {
        chain == Chain::Reject || self.chains.contains(&(family, chain))
    }

    fn record_chains(&mut self, family: Family, added: &[Chain], removed: &[Chain]) {
        self.chains.extend(added.iter().map(|chain| (family, *chain)));
        for chain in removed {
            self.chains.remove(&(family, *chain));
        }
    }

    /// The contents of the table; `None` if it is missing, of another version, or damaged.
    fn read(&mut self, layout: &Layout) -> Result<Option<Actual>, NftError> {
        let (socket, family) = (&mut self.socket, layout.family);
        if nft::table_comment(socket, family, TABLE)? != Some(layout.comment()) {
            return Ok(None);
        }
        let (chain_names, set_names) = nft::names(socket, family, TABLE)?;
        let rules = nft::rules_per_chain(socket, family, TABLE)?;
        let count = |chain: &str| rules.get(chain).copied().unwrap_or(0);
        let base = layout.rule_counts();
        let intact = base
            .iter()
            .all(|(chain, rules)| chain_names.contains(*chain) && count(chain) == *rules)
            && Map::ALL.iter().all(|map| set_names.contains(map.name()));
        let is_base = |name: &str| base.iter().any(|(chain, _)| *chain == name);
        let balancing: Option<HashSet<(Family, Chain)>> = chain_names
            .iter()
            .filter(|name| !is_base(name))
            .map(|name| {
                let chain: Chain = name.parse().ok()?;
                (count(name) == layout.rules(chain).len()).then_some((family, chain))
            })
            .collect();
        let (true, Some(chains)) = (intact, balancing) else {
            return Ok(None);
        };
        let mut elements = HashMap::new();
        for map in Map::ALL.into_iter().filter(|map| !map.is_dynamic()) {
            let found = match map.is_intervals() {
                false => nft::elements(socket, family, TABLE, map.name())?,
                true => match nft::intervals(socket, family, TABLE, map.name())? {
                    Some(found) => found,
                    None => return Ok(None),
                },
            };
            for element in found {
                let key = Key::decode(map, family, &element);
                let data = Data::decode(family, &element.data);
                let (Some(key), Some(data)) = (key, data) else {
                    return Ok(None);
                };
                elements.insert(ElementId { family, map, key }, data);
            }
        }
        Ok(Some(Actual { elements, chains }))
    }
}

fn write(
    batch: &mut Batch,
    layout: &Layout,
    changes: &Changes,
    needed: &[Chain],
    unused: &[Chain],
) {
    let mut deletions: BTreeMap<Map, Vec<Key>> = BTreeMap::new();
    let mut additions: BTreeMap<Map, Vec<(Key, Data)>> = BTreeMap::new();
    for (id, change) in changes {
        if change.before.is_some() {
            deletions.entry(id.map).or_default().push(id.key);
        }
        if let Some(data) = change.after {
            additions.entry(id.map).or_default().push((id.key, data));
        }
    }
    for chain in needed.iter().filter(|chain| **chain != Chain::Reject) {
        layout.write_chain(batch, *chain);
    }
    for (map, keys) in deletions {
        batch.delete(map.name(), keys.iter().map(Key::encode));
    }
    for (map, elements) in additions {
        let elements = elements.into_iter().map(|(key, data)| {
            let (key, end) = key.encode();
            NewElement { key, end, data: data.encode() }
        });
        batch.add(map.name(), elements);
    }
    for chain in unused.iter().filter(|chain| **chain != Chain::Reject) {
        batch.delete_chain(&chain.to_string());
    }
}
