//! State shared by the writer and the readers: the index, the durable view, recent changes, leases.

use std::sync::Arc;

use etcd_client::proto::PbResponseHeader;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{index::Index, leases::Leases, recent::Recent, record::wire, tables::View};

/// There are no elections; etcd counts terms from one.
const RAFT_TERM: u64 = 1;

pub(super) struct Shared {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
    state: RwLock<State>,
    pub(super) recent: Recent,
    pub(super) leases: Leases,
}

/// The index and the view that belongs to it. The lock is held for lookups and single insertions,
/// and not during disk operations except while the file is reopened after a failure.
pub(super) struct State {
    pub(super) index: Index,
    /// Absent only while the file is closed, and then the lock is held.
    view: Option<Arc<View>>,
}

impl State {
    /// The newest durable state. A reader must take it under the same lock as it reads the index:
    /// then everything in the index at the view's revision is in the view, regardless of concurrent
    /// compaction.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.clone().expect("the view is absent only under the writer's lock")
    }

    pub(super) fn set_view(&mut self, view: View) {
        self.view = Some(Arc::new(view));
    }
}

impl Shared {
    pub(super) fn new(
        cluster_id: u64,
        member_id: u64,
        index: Index,
        view: View,
        leases: Leases,
    ) -> Shared {
        let recent = Recent::new(view.revision);
        let state = RwLock::new(State { index, view: Some(Arc::new(view)) });
        Shared { cluster_id, member_id, state, recent, leases }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// The newest durable revision.
    pub(super) fn revision(&self) -> u64 {
        self.read().view().revision
    }

    pub(super) fn header(&self, revision: u64) -> PbResponseHeader {
        PbResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: wire(revision),
            raft_term: RAFT_TERM,
        }
    }
}
