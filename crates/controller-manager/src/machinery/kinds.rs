//! The kinds whose objects controllers treat alike: the built-in ones, those that
//! CustomResourceDefinitions define at the moment, and those that other servers have.

use std::collections::HashMap;
use std::sync::Arc;

use api::KindRef;
use api::custom::definition;
use client::{Client, Event, InformerOptions};
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
        let definitions =
            client::informer::<CustomResourceDefinition>(client, InformerOptions::default());
        let mut definitions = std::pin::pin!(definitions);
        let mut known: HashMap<String, KindRef> = HashMap::new();
        let mut initial = None;
        while let Some(event) = definitions.next().await {
            let target = initial.as_mut().unwrap_or(&mut known);
            match event {
                Event::Init => {
                    initial = Some(HashMap::new());
                    continue;
                }
                Event::InitApply(definition) => {
                    insert(target, &definition);
                    continue;
                }
                Event::InitDone => known = initial.take().unwrap_or_default(),
                Event::Apply(definition) => insert(target, &definition),
                Event::Delete(definition) => {
                    target.remove(definition.metadata.name.as_deref().unwrap_or_default());
                }
            }
            let kinds = known.values().cloned().collect();
            self.custom.send_replace(kinds);
            synced.send_replace(true);
        }
    }
}

/// A kind whose names have not changed stays the one that it is.
fn insert(known: &mut HashMap<String, KindRef>, definition: &CustomResourceDefinition) {
    let name = definition.metadata.name.clone().unwrap_or_default();
    match definition::names(definition) {
        None => {
            known.remove(&name);
        }
        Some(row) => {
            let same = known.get(&name).is_some_and(|before| {
                **before == row && before.plural == row.plural && before.scope == row.scope
            });
            if !same {
                known.insert(name, KindRef::Custom(Arc::new(row)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;

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
        let mut known = HashMap::new();
        insert(&mut known, &definition(false));
        assert!(known.is_empty());
        insert(&mut known, &definition(true));
        let first = known["widgets.example.com"].clone();
        assert_eq!((&*first.version, &*first.plural), ("v1", "widgets"));
        insert(&mut known, &definition(true));
        assert!(known["widgets.example.com"].is_same(&first));
        insert(&mut known, &definition(false));
        assert!(known.is_empty());
        let stored = Kinds::default().stored();
        assert!(stored.iter().any(|kind| *kind == *Pod::ROW));
    }
}
