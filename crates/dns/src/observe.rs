//! Watches Services and EndpointSlices, and publishes the records after each change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use client::informer::{self, InformerOptions};
use client::mirror::{self, Mirror, Name};
use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use runtime::health::Health;

use crate::model::{Service, Slice};
use crate::records::{self, Records};

/// As many events are taken in before a snapshot is published; the rest is for the next one.
const BURST: usize = 4096;

/// Something happened to an object. One that is nothing to the server is none.
pub enum Event {
    Service(informer::Event<(Name, Option<Service>)>),
    Slice(informer::Event<(Name, Option<Slice>)>),
}

/// All events of Services and EndpointSlices; never ends.
pub fn events(client: &client::Client) -> BoxStream<'static, Event> {
    let all = InformerOptions::default;
    let services = mirror::events::<core::Service, _>(client, all(), Service::from_object);
    let slices = mirror::events::<discovery::EndpointSlice, _>(client, all(), Slice::from_object);
    let services = services.map(Event::Service).boxed();
    futures::stream::select_all([services, slices.map(Event::Slice).boxed()]).boxed()
}

/// Keeps `published` up to the events. The health condition `synced` holds from when all objects
/// are in it.
pub async fn run(
    mut events: BoxStream<'static, Event>,
    published: Arc<ArcSwap<Records>>,
    health: Health,
) {
    let mut state = State::new(Records::clone(&published.load()));
    while let Some(event) = events.next().await {
        let mut stale = BTreeSet::new();
        state.take(event, &mut stale);
        for _ in 0..BURST {
            match events.next().now_or_never().flatten() {
                Some(event) => state.take(event, &mut stale),
                None => break,
            }
        }
        for service in &stale {
            state.refresh(service);
        }
        if !stale.is_empty() {
            tracing::debug!(services = stale.len(), serial = state.records.serial, "changed");
            published.store(Arc::new(state.records.clone()));
        }
        if state.services.is_synced() && state.slices.is_synced() {
            health.set("synced", true);
        }
    }
}

/// The present objects and the records made of them.
#[derive(Default)]
pub struct State {
    services: Mirror<Option<Service>>,
    slices: Mirror<Option<Slice>>,
    slices_of: HashMap<Name, BTreeSet<Name>>,
    records: Records,
}

impl State {
    pub fn new(records: Records) -> Self {
        Self { records, ..Self::default() }
    }

    /// Takes an event in and notes which Services it concerns.
    pub fn take(&mut self, event: Event, stale: &mut BTreeSet<Name>) {
        match event {
            Event::Service(event) => {
                let changed = self.services.take(event);
                stale.extend(changed.into_iter().map(|(name, _)| name));
            }
            Event::Slice(event) => {
                for (name, before) in self.slices.take(event) {
                    let before = before.flatten().map(|slice| slice.service);
                    let after = self.slices.get(&name).and_then(Option::as_ref);
                    let after = after.map(|slice| slice.service.clone());
                    self.index(&name, before.as_ref(), after.as_ref());
                    stale.extend(before.into_iter().chain(after));
                }
            }
        }
    }

    fn index(&mut self, slice: &Name, before: Option<&Name>, after: Option<&Name>) {
        if before == after {
            return;
        }
        if let Some(service) = before
            && let Some(slices) = self.slices_of.get_mut(service)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        if let Some(service) = after {
            self.slices_of.entry(service.clone()).or_default().insert(slice.clone());
        }
    }

    /// Makes the records of a Service anew.
    pub fn refresh(&mut self, name: &Name) {
        let service = self.services.get(name).and_then(Option::as_ref);
        let slices = self.slices_of.get(name).into_iter().flatten();
        let slices = slices.filter_map(|slice| self.slices.get(slice)?.as_ref());
        let entry = service.map(|service| records::entry(service, slices));
        self.records.set(name, entry);
    }

    pub fn records(&self) -> &Records {
        &self.records
    }
}
