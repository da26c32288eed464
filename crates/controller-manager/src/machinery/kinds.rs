//! The kinds whose objects controllers treat alike: the built-in ones, those that
//! CustomResourceDefinitions define at the moment, and those that other servers have.

use std::sync::Arc;

use api::KindRef;
use api::custom::definition;
use client::mirror::{self, Mirror};
use client::{Client, InformerOptions};
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::sync::watch;

use crate::machinery::informer::Synced;
use crate::machinery::remote_kinds;

/// The kinds at the moment; shared by reference.
#[derive(Debug)]
pub struct Kinds {
    custom: watch::Sender<Vec<KindRef>>,
    remote: Arc<watch::Sender<Vec<KindRef>>>,
}

impl Default for Kinds {
    fn default() -> Self {
        let remote = Arc::new(watch::Sender::new(Vec::new()));
        Self { custom: watch::Sender::new(Vec::new()), remote }
    }
}

impl Kinds {
    /// All kinds with stored objects.
    pub fn stored(&self) -> Vec<KindRef> {
        let built_in = api::kind::KINDS.iter().copied().filter(|row| row.stored).map(KindRef::from);
        built_in.chain(self.custom.borrow().iter().cloned()).collect()
    }

    /// All kinds with objects, here and on other servers.
    pub fn all(&self) -> Vec<KindRef> {
        let mut all = self.stored();
        let remote = self.remote.borrow();
        let same =
            |own: &KindRef, kind: &KindRef| own.group == kind.group && own.plural == kind.plural;
        let others = remote.iter().filter(|kind| !all.iter().any(|own| same(own, kind)));
        let others: Vec<KindRef> = others.cloned().collect();
        all.extend(others);
        all
    }

    /// The kinds of other servers, as they change.
    pub fn remote(&self) -> watch::Receiver<Vec<KindRef>> {
        self.remote.subscribe()
    }

    /// The future that keeps those up to date. Nobody waits for other servers.
    pub fn start_remote(&self, client: &Client) -> Synced {
        let following = remote_kinds::follow(client.clone(), self.remote.clone());
        (Box::pin(following), watch::channel(true).1)
    }

    /// The custom kinds, as they change.
    pub fn custom(&self) -> watch::Receiver<Vec<KindRef>> {
        self.custom.subscribe()
    }

    /// The future that keeps the custom kinds up to date.
    pub fn start(self: &Arc<Self>, client: &Client) -> Synced {
        let (synced, is_synced) = watch::channel(false);
        (Box::pin(self.clone().follow(client.clone(), synced)), is_synced)
    }

    async fn follow(self: Arc<Self>, client: Client, synced: watch::Sender<bool>) {
        let reduce = |definition: &CustomResourceDefinition| served(definition);
        let mut definitions = mirror::events(&client, InformerOptions::default(), reduce);
        let mut known = Mirror::<Served>::default();
        while let Some(event) = definitions.next().await {
            let changed = !known.take(event).is_empty();
            if !known.is_synced() {
                continue;
            }
            if changed || !*synced.borrow() {
                let kinds = known.objects().values().map(|served| served.0.clone());
                self.custom.send_replace(kinds.collect());
            }
            synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
    }
}

/// A custom kind. As long as its names do not change it stays the one that it is.
#[derive(Debug)]
struct Served(KindRef);

impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.0, &other.0);
        one == other && one.plural == other.plural && one.scope == other.scope
    }
}

/// `None`: no kind is established.
fn served(definition: &CustomResourceDefinition) -> Option<Served> {
    definition::names(definition).map(|row| Served(KindRef::Custom(Arc::new(row))))
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use client::Event;

    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn definition(established: bool) -> CustomResourceDefinition {
        let status = if established { "True" } else { "False" };
        let json = serde_json::json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false},
                    {"name": "v1", "served": true, "storage": true},
                ]},
            "status": {"conditions": [{"type": "Established", "status": status}]},
        });
        CustomResourceDefinition::decode(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_kind_is_there_while_it_is_established_and_keeps_its_identity() {
        let mut known = Mirror::<Served>::default();
        let mut take = |established| {
            let name = mirror::Name::from("widgets.example.com");
            known.take(Event::Apply((name.clone(), served(&definition(established)))));
            known.get(&name).map(|served| served.0.clone())
        };
        assert!(take(false).is_none());
        let first = take(true).unwrap();
        assert_eq!((&*first.version, &*first.plural), ("v1", "widgets"));
        assert!(take(true).unwrap().is_same(&first));
        assert!(take(false).is_none());
        let stored = Kinds::default().stored();
        assert!(stored.iter().any(|kind| *kind == *Pod::ROW));
    }
}
