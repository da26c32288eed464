//! What to do about one object, given its owners and dependents: a pure function
//! (`k8s.io/kubernetes/pkg/controller/garbagecollector`).

use super::graph::{FOREGROUND, Node, ORPHAN, Owner};

/// What is known about an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    Present,
    /// Being deleted in the foreground: it waits for us.
    WaitsForDependents,
    /// The server has no such object with that uid.
    Absent,
    /// Its kind is not served, or the reference cannot be resolved.
    Unknown,
}

/// A dependent of the object.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependent {
    pub node: Node,
    /// It blocks the object's deletion.
    pub blocks: bool,
}

/// An object as the server has it, its owners and its dependents.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub node: Node,
    pub owners: Vec<(Owner, OwnerState)>,
    pub dependents: Vec<Dependent>,
}

/// How an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl Policy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Nothing,
    /// Remove the owner reference from these dependents, then the finalizer `orphan` from the
    /// object.
    Orphan(Vec<Node>),
    /// All blocking dependents are gone: remove the finalizer `foregroundDeletion`.
    FinishForeground,
    /// Examine these dependents: they block the deletion.
    CollectDependents(Vec<String>),
    /// Keep only these owner references.
    KeepOwners(Vec<Owner>),
    Delete(Policy),
    /// An owner waits for the object, and the object for its dependents: unblock them, since this
    /// may be a cycle, then delete in the foreground.
    UnblockAndDelete(Vec<Owner>),
}

pub fn plan(observed: &Observed) -> Plan {
    let node = &observed.node;
    if node.deleting && node.has_finalizer(ORPHAN) {
        let dependents = observed.dependents.iter();
        return Plan::Orphan(dependents.map(|dependent| dependent.node.clone()).collect());
    }
    if node.waits_for_dependents() {
        let blocking: Vec<&Dependent> =
            observed.dependents.iter().filter(|one| one.blocks).collect();
        if blocking.is_empty() {
            return Plan::FinishForeground;
        }
        let alive = blocking.into_iter().filter(|one| !one.node.deleting);
        let alive: Vec<String> = alive.map(|one| one.node.uid.clone()).collect();
        return if alive.is_empty() { Plan::Nothing } else { Plan::CollectDependents(alive) };
    }
    if node.deleting || observed.owners.is_empty() {
        return Plan::Nothing;
    }
    judge_owners(observed)
}

fn judge_owners(observed: &Observed) -> Plan {
    let in_state = |wanted: &[OwnerState]| -> Vec<&Owner> {
        let matching = observed.owners.iter().filter(|(_, state)| wanted.contains(state));
        matching.map(|(owner, _)| owner).collect()
    };
    let solid = in_state(&[OwnerState::Present, OwnerState::Unknown]);
    let absent = in_state(&[OwnerState::Absent]);
    let waiting = in_state(&[OwnerState::WaitsForDependents]);
    if !solid.is_empty() {
        if absent.is_empty() && waiting.is_empty() {
            return Plan::Nothing;
        }
        return Plan::KeepOwners(solid.into_iter().cloned().collect());
    }
    if !waiting.is_empty() && !observed.dependents.is_empty() {
        let dependents_wait = observed.dependents.iter().any(|one| one.node.waits_for_dependents());
        if dependents_wait {
            let unblocked = observed
                .owners
                .iter()
                .map(|(owner, _)| Owner { block_owner_deletion: Some(false), ..owner.clone() });
            return Plan::UnblockAndDelete(unblocked.collect());
        }
        return Plan::Delete(Policy::Foreground);
    }
    Plan::Delete(policy_of(&observed.node))
}

/// The policy that the object's own finalizers ask for.
fn policy_of(node: &Node) -> Policy {
    if node.has_finalizer(ORPHAN) {
        Policy::Orphan
    } else if node.has_finalizer(FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    }
}
