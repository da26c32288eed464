//! Watches Services and EndpointSlices, and publishes the records after each change.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client::informer::{self, InformerOptions};
use client::mirror::{self, Changed, Mirror, Name};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use runtime::health::Health;

use crate::model::{Service, Slice};
use crate::records::{self, Records};

/// The maximum number of events applied before a snapshot is published.
const BURST: usize = 4096;

/// A change of an object; `None` stands for an object that the server ignores.
pub enum Event {
    Service(informer::Event<(Name, Option<Service>)>),
    Slice(informer::Event<(Name, Option<Slice>)>),
}

/// All events of Services and EndpointSlices; the stream never ends.
pub fn events(client: &client::Client) -> BoxStream<'static, Event> {
    let all = InformerOptions::default;
    let services = mirror::events::<core::Service, _>(client, all(), Service::from_object);
    let slices = mirror::events::<discovery::EndpointSlice, _>(client, all(), Slice::from_object);
    let services = services.map(Event::Service).boxed();
    futures::stream::select_all([services, slices.map(Event::Slice).boxed()]).boxed()
}

/// Keeps `published` up to date with the events. The health condition `synced` holds once it
/// contains all objects.
pub async fn run(
    events: BoxStream<'static, Event>,
    published: Arc<ArcSwap<Records>>,
    health: Health,
) {
    let mut state = State::new(Records::clone(&published.load()));
    let mut bursts = events.ready_chunks(BURST);
    while let Some(events) = bursts.next().await {
        let mut stale = BTreeSet::new();
        events.into_iter().for_each(|event| state.take(event, &mut stale));
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

/// The current objects and the records derived from them.
struct State {
    services: Mirror<Service>,
    /// By Service.
    slices: Mirror<Slice, Name, Name>,
    records: Records,
}

impl State {
    fn new(records: Records) -> Self {
        let by_service = |slice: &Slice, index: &mut Vec<Name>| index.push(slice.service.clone());
        Self { services: Mirror::default(), slices: Mirror::new(by_service), records }
    }

    /// Applies an event and records the affected Services.
    fn take(&mut self, event: Event, stale: &mut BTreeSet<Name>) {
        match event {
            Event::Service(event) => {
                let changed = self.services.take(event);
                stale.extend(changed.into_iter().map(Changed::into_key));
            }
            Event::Slice(event) => {
                let changed = self.slices.take(event);
                stale.extend(changed.iter().flat_map(|change| self.slices.affected(change)));
            }
        }
    }

    /// Recomputes the records of a Service.
    fn refresh(&mut self, name: &Name) {
        let slices = self.slices.of(name).map(|(_, slice)| slice);
        let entry = self.services.get(name).map(|service| records::entry(service, slices));
        self.records.set(name, entry);
    }
}
