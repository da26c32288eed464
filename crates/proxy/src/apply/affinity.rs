//! Preserves session affinity when endpoints change.
//!
//! The packet path records (target, slot, client). When the endpoint of a slot changes, its entries
//! have to move along with the endpoint, or be deleted if the endpoint is gone. Between the
//! transaction and the repair, about a millisecond, a client of such a slot may be sent to the
//! slot's new endpoint, which is valid too.

use std::collections::HashMap;

use nix::errno::Errno;

use crate::nft::{self, Batch, ElementData, Family, KeyEnd, NewElement, NftError, Socket};
use crate::plan::Changes;
use crate::table::{Chain, Data, Endpoint, Key, LOCAL_SLOTS, Map, TABLE, Target};

/// The new slot of the entries of a slot; `None` if they are to be deleted.
type Moves = HashMap<(Target, u32), Option<u32>>;

/// The moves caused by the changes. Empty if no endpoint has left its slot.
fn moves(family: Family, changes: &Changes) -> Moves {
    // The endpoints of all nodes and those of this node are separate lists.
    let list = |slot: u32| slot >= LOCAL_SLOTS;
    let mut now: HashMap<(Target, bool, Endpoint), u32> = HashMap::new();
    let mut before: Vec<(Target, u32, Endpoint)> = Vec::new();
    for (id, change) in changes.iter().filter(|(id, _)| id.family == family) {
        let Key::Slot(target, slot) = id.key else {
            continue;
        };
        if let Some(Data::Endpoint(endpoint)) = change.after {
            now.insert((target, list(slot), endpoint), slot);
        }
        if let Some(Data::Endpoint(endpoint)) = change.before {
            before.push((target, slot, endpoint));
        }
    }
    let to = |(target, slot, endpoint)| {
        let moved = now.get(&(target, list(slot), endpoint)).copied();
        ((target, slot), moved)
    };
    before.into_iter().map(to).collect()
}

/// Whether any of the chains in use has session affinity.
pub(super) fn is_used<'a>(chains: impl Iterator<Item = &'a Chain>) -> bool {
    let mut chains = chains;
    chains.any(|chain| matches!(chain, Chain::Balance { affinity_s: Some(_), .. }))
}

/// Repairs the entries of the packet path after `changes` have been applied.
pub(super) fn repair(
    socket: &mut Socket,
    family: Family,
    changes: &Changes,
) -> Result<(), NftError> {
    let moves = moves(family, changes);
    if moves.is_empty() {
        return Ok(());
    }
    for map in Map::ALL.into_iter().filter(|map| map.is_dynamic()) {
        for element in nft::elements(socket, family, TABLE, map.name())? {
            let Some(Key::Client(target, slot, client)) = Key::decode(map, family, &element) else {
                continue;
            };
            let Some(to) = moves.get(&(target, slot)) else {
                continue;
            };
            let mut batch = Batch::new(family, TABLE);
            batch.delete(map.name(), [(element.key, KeyEnd::None)]);
            if let Some(to) = to {
                let (key, end) = Key::Client(target, *to, client).encode();
                let data = ElementData::Expires(element.timing);
                batch.add(map.name(), [NewElement { key, end, data }]);
            }
            match socket.apply(batch) {
                // The entry has expired in the meantime.
                Err(NftError::Refused { source: Errno::ENOENT, .. }) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Change, ElementId};
    use crate::table::Protocol;

    #[test]
    fn entries_move_with_their_endpoint() {
        let target = Target::NodePort(Protocol::Tcp, 30_000);
        let endpoint = |n: u8| Endpoint { ip: [10, 0, 0, n].into(), port: 80 };
        let change = |slot, before: Option<u8>, after: Option<u8>| {
            let key = Key::Slot(target, slot);
            let data = |n: Option<u8>| n.map(|n| Data::Endpoint(endpoint(n)));
            let id = ElementId { family: Family::V4, map: Map::NodePortEndpoints, key };
            (id, Change { before: data(before), after: data(after) })
        };
        // Endpoint 2 of three is removed and 3 takes its slot. On this node only 1 is removed.
        let changes = Changes::from([
            change(1, Some(2), Some(3)),
            change(2, Some(3), None),
            change(LOCAL_SLOTS, Some(1), None),
            change(3, None, Some(1)),
        ]);
        let expected = Moves::from([
            ((target, 1), None),
            ((target, 2), Some(1)),
            ((target, LOCAL_SLOTS), None),
        ]);
        assert_eq!(moves(Family::V4, &changes), expected);
        assert!(moves(Family::V6, &changes).is_empty());
    }
}
