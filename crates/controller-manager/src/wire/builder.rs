//! What triggers a controller: its own objects, those that it owns, and others that are mapped to
//! its keys.

use api::Kind;
use api::labels::{Selector, SelectorError};
use tokio::sync::watch;

use super::Wiring;
use crate::machinery::cache::{Change, Key};
use crate::machinery::owner;
use crate::machinery::queue::{Controller, Requests, Trigger};
use crate::machinery::shared_informers::Shared;

/// A controller that is being declared; [`start`](Self::start) adds it.
pub(crate) struct Builder<'a, C> {
    pub(super) wiring: &'a mut Wiring,
    pub(super) controller: C,
    pub(super) trigger: Trigger,
    pub(super) requests: Requests,
}

impl<C: Controller> Builder<'_, C> {
    /// Objects of kind `K` are its own: every change of one triggers its key.
    pub fn of<K: Shared>(self) -> Self {
        self.of_some(|_: &Change<K>| true)
    }

    /// The same, but only for the changes that `when` returns true for.
    pub fn of_some<K: Shared>(
        self,
        when: impl Fn(&Change<K>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.maps(move |change: &Change<K>| when(change).then(|| change.key()))
    }

    /// The same, but not for deletions.
    pub fn of_present<K: Shared>(self) -> Self {
        self.of_some(|change: &Change<K>| change.new.is_some())
    }

    /// Objects of kind `K` trigger the controller of kind `O` that they have or had.
    pub fn owns<O: Kind, K: Shared>(self) -> Self {
        self.maps(|change: &Change<K>| {
            let owners = change.sides().map(|child| child.metadata());
            owners.filter_map(owner::controller_key::<O>).collect::<Vec<_>>()
        })
    }

    /// The same, and those that nothing controls trigger the objects of kind `O` that select them.
    pub fn selects<O: Shared, K: Shared>(
        self,
        selector: fn(&O) -> Result<Selector, SelectorError>,
    ) -> Self {
        let owners = self.wiring.cache::<O>();
        self.maps(move |change: &Change<K>| owner::affected(change, &owners, selector))
    }

    /// A change of an object of kind `K` triggers the keys that `keys` returns.
    pub fn maps<K: Shared, I: IntoIterator<Item = Key>>(
        self,
        keys: impl Fn(&Change<K>) -> I + Send + Sync + 'static,
    ) -> Self {
        let keys = move |change: &Change<K>| keys(change).into_iter().collect();
        K::informer(&self.wiring.informers).subscribe(&self.trigger, keys);
        self
    }

    /// `keys` are triggered at the start, and whenever `source` changes.
    pub fn follows<T: Send + Sync + 'static>(
        self,
        source: watch::Receiver<T>,
        keys: impl Fn() -> Vec<Key> + Send + 'static,
    ) -> Self {
        self.wiring.trigger_by(source, self.trigger.clone(), keys);
        self
    }

    /// Adds the controller; it runs once all caches are filled.
    pub fn start(self) {
        self.wiring.run(self.controller, self.requests);
    }
}
