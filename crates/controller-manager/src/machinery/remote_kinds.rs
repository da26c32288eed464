//! The kinds whose objects other servers have: those that APIServices name, as the discovery of each
//! of them says.
//!
//! What a server has said counts until it says something else: while it is away, its kinds stay, so
//! that nobody takes its objects for gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::custom::definition::version_order;
use api::kind::{Scope, Texts};
use api::{KindRef, KindRow};
use client::{Client, Event, InformerOptions};
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::Value;
use tokio::sync::watch;

use crate::Error;
use crate::machinery::error::During;

/// How often discovery is read while there are other servers (upstream's garbage collector).
const REFRESH: Duration = Duration::from_secs(30);
/// How long one server's discovery may take; the others are not known before.
const READ: Duration = Duration::from_secs(5);
/// What controllers do with objects of any kind.
const VERBS: [&str; 4] = ["get", "list", "watch", "delete"];

/// A group and a version.
type GroupVersion = (String, String);

/// The group versions that other servers answer, by the name of their APIService.
#[derive(Debug, Default)]
struct Services {
    named: BTreeMap<String, GroupVersion>,
    initial: Option<BTreeMap<String, GroupVersion>>,
}

impl Services {
    /// Whether the event is about another server.
    fn note(&mut self, event: Event<APIService>) -> bool {
        match event {
            Event::Init => {
                self.initial = Some(BTreeMap::new());
                false
            }
            Event::InitApply(service) => {
                if let (Some(all), Some((name, Some(at)))) = (&mut self.initial, named(&service)) {
                    all.insert(name, at);
                }
                false
            }
            Event::InitDone => {
                let before =
                    std::mem::replace(&mut self.named, self.initial.take().unwrap_or_default());
                !before.is_empty() || !self.named.is_empty()
            }
            Event::Apply(service) => match named(&service) {
                Some((name, Some(at))) => {
                    self.named.insert(name, at);
                    true
                }
                Some((name, None)) => self.named.remove(&name).is_some(),
                None => false,
            },
            Event::Delete(service) => {
                let name = service.metadata.name.unwrap_or_default();
                self.named.remove(&name).is_some()
            }
        }
    }
}

/// The name of an APIService, and the group version that another server answers for it.
fn named(service: &APIService) -> Option<(String, Option<GroupVersion>)> {
    let name = service.metadata.name.clone()?;
    let spec = service.spec.as_ref().filter(|spec| spec.service.is_some());
    let at = spec.and_then(|spec| Some((spec.group.clone()?, spec.version.clone()?)));
    Some((name, at))
}

/// Keeps the kinds up to date.
pub async fn follow(client: Client, kinds: Arc<watch::Sender<Vec<KindRef>>>) {
    let services = client::informer::<APIService>(client.clone(), InformerOptions::default());
    let mut events = std::pin::pin!(services);
    let mut services = Services::default();
    let mut known: BTreeMap<String, Vec<KindRef>> = BTreeMap::new();
    loop {
        let due = async {
            match services.named.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(REFRESH).await,
            }
        };
        let event = tokio::select! {
            event = events.next() => match event {
                Some(event) => Some(event),
                None => return,
            },
            () = due => None,
        };
        if let Some(event) = event
            && !services.note(event)
        {
            continue;
        }
        known.retain(|name, _| services.named.contains_key(name));
        let reading = services.named.iter().map(async |(name, at)| (name, read(&client, at).await));
        for (name, read) in join_all(reading).await {
            match read {
                Ok(rows) => {
                    let kinds = known.entry(name.clone()).or_default();
                    *kinds = kept(kinds, rows);
                }
                Err(error) => {
                    tracing::debug!(name, %error, "cannot read the discovery of another server");
                }
            }
        }
        let all = preferred(known.values().flatten());
        kinds.send_if_modified(|current| {
            let same = current.len() == all.len()
                && current.iter().zip(&all).all(|(one, other)| one.is_same(other));
            if !same {
                *current = all;
            }
            !same
        });
    }
}

async fn read(client: &Client, (group, version): &GroupVersion) -> Result<Vec<KindRow>, Error> {
    let path = match group.as_str() {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let body = tokio::time::timeout(READ, client.get_path(&path, "application/json")).await;
    let body = body.map_err(|_| Error::Invalid(format!("{path}: no answer in {READ:?}")))?;
    let body = body.during(|| format!("read {path}"))?;
    let list: Value = serde_json::from_slice(&body)
        .map_err(|error| Error::Invalid(format!("{path}: {error}")))?;
    let Value::Array(resources) = &list["resources"] else {
        return Err(Error::Invalid(format!("{path}: it lists no resources")));
    };
    Ok(resources.iter().filter_map(|resource| row(resource, group, version)).collect())
}

/// The kind of a resource that can be followed and deleted.
fn row(resource: &Value, group: &str, version: &str) -> Option<KindRow> {
    let text = |name: &str| resource[name].as_str().unwrap_or_default().to_owned();
    let (plural, kind) = (text("name"), text("kind"));
    let verbs = resource["verbs"].as_array()?;
    let can = |verb: &&str| verbs.iter().any(|known| known == *verb);
    let own = |name: &str, own: &str| {
        matches!(resource[name].as_str(), None | Some("")) || text(name) == own
    };
    let is_one = !plural.is_empty() && !plural.contains('/') && !kind.is_empty();
    if !is_one || !VERBS.iter().all(can) || !own("group", group) || !own("version", version) {
        return None;
    }
    let scope = if resource["namespaced"] == true { Scope::Namespaced } else { Scope::Cluster };
    Some(KindRow {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: kind.into(),
        plural: plural.into(),
        singular: text("singularName").into(),
        scope,
        short_names: Texts::default(),
        categories: Texts::default(),
        subresources: Texts::default(),
        selectable: Texts::default(),
        stored: false,
        form: false,
        computed: false,
        custom: None,
    })
}

/// The rows, of which those that are as before stay the ones that they are.
fn kept(before: &[KindRef], rows: Vec<KindRow>) -> Vec<KindRef> {
    let same = |row: &KindRow, known: &KindRef| {
        known.plural == row.plural
            && known.kind == row.kind
            && known.version == row.version
            && known.scope == row.scope
    };
    rows.into_iter()
        .map(|row| match before.iter().find(|known| same(&row, known)) {
            Some(known) => known.clone(),
            None => KindRef::Custom(Arc::new(row)),
        })
        .collect()
}

/// One version of each resource: that which clients prefer.
fn preferred<'a>(kinds: impl Iterator<Item = &'a KindRef>) -> Vec<KindRef> {
    let mut best: BTreeMap<(String, String), &KindRef> = BTreeMap::new();
    for kind in kinds {
        let key = (kind.group.to_string(), kind.plural.to_string());
        let known = best.entry(key).or_insert(kind);
        if version_order(&kind.version, &known.version).is_lt() {
            *known = kind;
        }
    }
    best.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(name: &str, verbs: &[&str]) -> Value {
        json!({"name": name, "kind": "Flunder", "namespaced": true, "verbs": verbs})
    }

    fn rows(version: &str) -> Vec<KindRow> {
        row(&resource("flunders", &VERBS), "wardle.example.com", version).into_iter().collect()
    }

    #[test]
    fn kinds_that_can_be_followed_are() {
        let of = |resource: Value| row(&resource, "g.io", "v1").map(|row| row.plural.to_string());
        assert_eq!(of(resource("flunders", &VERBS)).as_deref(), Some("flunders"));
        for other in [
            resource("flunders/status", &VERBS),
            resource("nodes", &["get", "list"]),
            resource("", &VERBS),
            json!({"name": "flunders", "kind": "Flunder"}),
            json!({"name": "flunders", "kind": "Flunder", "verbs": VERBS, "group": "other.io"}),
            json!(7),
        ] {
            assert_eq!(of(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn a_kind_keeps_its_identity_and_has_one_version() {
        let first = kept(&[], rows("v1alpha1"));
        let again = kept(&first, rows("v1alpha1"));
        assert!(first[0].is_same(&again[0]));
        let newer = kept(&[], rows("v1beta1"));
        let all = preferred(first.iter().chain(&newer));
        assert_eq!(all.len(), 1);
        assert!(all[0].is_same(&newer[0]));
    }

    #[test]
    fn services_are_followed() {
        let service = |name: &str, remote: bool| {
            let mut service = json!({"metadata": {"name": name},
                "spec": {"group": "g.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}});
            if remote {
                service["spec"]["service"] = json!({"namespace": "n", "name": "s"});
            }
            serde_json::from_value::<APIService>(service).unwrap()
        };
        let mut services = Services::default();
        services.note(Event::Init);
        services.note(Event::InitApply(service("v1.apps", false)));
        services.note(Event::InitApply(service("v1.g.io", true)));
        assert!(services.note(Event::InitDone));
        assert_eq!(services.named.keys().collect::<Vec<_>>(), ["v1.g.io"]);
        assert!(!services.note(Event::Apply(service("v1.apps", false))));
        assert!(services.note(Event::Apply(service("v1.g.io", true))), "it may be back");
        assert!(services.note(Event::Apply(service("v1.g.io", false))));
        assert!(services.named.is_empty());
    }
}
