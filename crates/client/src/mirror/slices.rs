//! EndpointSlices by Service.

use std::collections::{BTreeSet, HashMap};

use super::{Mirror, Name, shrink};
use crate::informer::Event;

/// What a component keeps of an EndpointSlice.
pub trait ServiceSlice: PartialEq {
    /// The Service that it belongs to.
    fn service(&self) -> &Name;
}

/// A [`Mirror`] of EndpointSlices with an index by Service. `None` stands for a slice that the
/// component ignores.
#[derive(Debug)]
pub struct SliceMirror<T> {
    slices: Mirror<Option<T>>,
    by_service: HashMap<Name, BTreeSet<Name>>,
}

impl<T> Default for SliceMirror<T> {
    fn default() -> Self {
        Self { slices: Mirror::default(), by_service: HashMap::new() }
    }
}

impl<T: ServiceSlice> SliceMirror<T> {
    /// Applies the event. Returns the Services whose slices have changed.
    pub fn take(&mut self, event: Event<(Name, Option<T>)>) -> BTreeSet<Name> {
        let mut services = BTreeSet::new();
        for (name, before) in self.slices.take(event) {
            let before = before.flatten().map(|slice| slice.service().clone());
            let after = self.slices.get(&name).and_then(Option::as_ref);
            let after = after.map(|slice| slice.service().clone());
            if before != after {
                self.reindex(&name, before.as_ref(), after.as_ref());
            }
            services.extend(before.into_iter().chain(after));
        }
        services
    }

    fn reindex(&mut self, slice: &Name, before: Option<&Name>, after: Option<&Name>) {
        if let Some(service) = before
            && let Some(slices) = self.by_service.get_mut(service)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.by_service.remove(service);
                shrink(&mut self.by_service);
            }
        }
        if let Some(service) = after {
            self.by_service.entry(service.clone()).or_default().insert(slice.clone());
        }
    }

    /// The slices of a Service.
    pub fn of(&self, service: &Name) -> impl Iterator<Item = &T> {
        let names = self.by_service.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name)?.as_ref())
    }

    /// Whether all slices have been received at least once.
    pub fn is_synced(&self) -> bool {
        self.slices.is_synced()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ServiceSlice for Name {
        fn service(&self) -> &Name {
            self
        }
    }

    #[test]
    fn a_slice_that_moves_changes_both_services() {
        let mut mirror = SliceMirror::<Name>::default();
        let apply = |service: &str| Event::Apply(("ns/s1".into(), Some(service.into())));
        let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        assert_eq!(mirror.take(apply("ns/a")), names(&["ns/a"]));
        assert_eq!(mirror.take(apply("ns/a")), names(&[]));
        assert_eq!(mirror.take(apply("ns/b")), names(&["ns/a", "ns/b"]));
        assert_eq!(mirror.of(&"ns/a".into()).count(), 0);
        assert_eq!(mirror.of(&"ns/b".into()).count(), 1);
        assert_eq!(mirror.take(Event::Delete(("ns/s1".into(), None))), names(&["ns/b"]));
        assert!(mirror.by_service.is_empty());
    }
}
