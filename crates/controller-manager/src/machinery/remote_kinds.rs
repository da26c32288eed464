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
use backon::{BackoffBuilder, ExponentialBuilder};
use client::mirror::{self, Changed, Mirror, Name};
use client::{Client, InformerOptions};
use futures::StreamExt;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::machinery::error::During;

/// How often the discovery of another server is read (upstream's garbage collector).
const REFRESH: Duration = Duration::from_secs(30);
/// How long reading it may take.
const READ: Duration = Duration::from_secs(5);
/// How soon it is read again when that fails.
const RETRY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(500))
    .with_max_delay(REFRESH)
    .without_max_times();
/// Discovery documents that wait to be taken note of.
const FOUND: usize = 16;
/// What controllers do with objects of any kind.
const VERBS: [&str; 4] = ["get", "list", "watch", "delete"];

/// A group and a version.
type GroupVersion = (String, String);

/// What an APIService says about another server. Whatever changes, its kinds may be others.
#[derive(Clone, Debug, PartialEq)]
struct Remote {
    spec: APIServiceSpec,
    available: bool,
}

/// `None`: no other server answers the group version.
fn remote(service: &APIService) -> Option<Remote> {
    let spec = service.spec.clone().filter(|spec| spec.service.is_some())?;
    let status = service.status.as_ref();
    let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    let available = conditions.any(|one| one.type_ == "Available" && one.status == "True");
    Some(Remote { spec, available })
}

/// Keeps the kinds up to date.
pub async fn follow(client: Client, kinds: Arc<watch::Sender<Vec<KindRef>>>) {
    let mut events = mirror::events(&client, InformerOptions::default(), remote);
    let mut servers = Mirror::<Remote>::default();
    let mut readers: BTreeMap<Name, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut known: BTreeMap<Name, Vec<KindRef>> = BTreeMap::new();
    let (found, mut all_found) = mpsc::channel(FOUND);
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return };
                for name in servers.take(event).into_iter().map(Changed::into_key) {
                    let Some(Remote { spec, .. }) = servers.get(&name) else {
                        readers.remove(&name);
                        known.remove(&name);
                        continue;
                    };
                    let at = (spec.group.clone(), spec.version.clone());
                    let at = (at.0.unwrap_or_default(), at.1.unwrap_or_default());
                    let client = client.clone();
                    let reading = keep_reading(
                        name.clone(),
                        found.clone(),
                        async move || read(&client, &at).await,
                    );
                    readers.insert(name, AbortOnDropHandle::new(tokio::spawn(reading)));
                }
            }
            Some((name, rows)) = all_found.recv() => {
                if servers.get(&name).is_some() {
                    let kinds = known.entry(name).or_default();
                    *kinds = kept(kinds, rows);
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

/// Sends what one server's discovery says, again and again. No other server, and no change of
/// another APIService, has a part in when.
async fn keep_reading(
    name: Name,
    found: mpsc::Sender<(Name, Vec<KindRow>)>,
    read: impl AsyncFn() -> Result<Vec<KindRow>, Error>,
) {
    let mut delays = RETRY.build();
    loop {
        let delay = match read().await {
            Ok(rows) => {
                if found.send((name.clone(), rows)).await.is_err() {
                    return;
                }
                delays = RETRY.build();
                REFRESH
            }
            Err(error) => {
                tracing::debug!(%name, %error, "cannot read the discovery of another server");
                delays.next().unwrap_or(REFRESH)
            }
        };
        tokio::time::sleep(delay).await;
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
    fn services_of_other_servers_are_followed() {
        let of = |service: Value, status: &str| {
            let service = json!({"metadata": {"name": "v1.g.io"},
                "spec": {"group": "g.io", "version": "v1", "groupPriorityMinimum": 1,
                    "versionPriority": 1, "service": service},
                "status": {"conditions": [{"type": "Available", "status": status}]}});
            remote(&serde_json::from_value::<APIService>(service).unwrap())
        };
        assert_eq!(of(Value::Null, "True"), None, "this cluster's own");
        let service = |name: &str| json!({"namespace": "n", "name": name});
        let one = of(service("a"), "True");
        assert!(one.is_some());
        assert_eq!(one, of(service("a"), "True"));
        assert_ne!(one, of(service("a"), "False"), "it may be back");
        assert_ne!(one, of(service("b"), "True"), "it may be another");
    }

    #[tokio::test(start_paused = true)]
    async fn discovery_that_fails_is_read_again_soon() {
        let (found, mut all_found) = mpsc::channel(FOUND);
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let fails = |attempt: usize| [0, 1, 2, 4].contains(&attempt);
        let read = async || {
            let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if fails(attempt) { Err(Error::Invalid("away".into())) } else { Ok(rows("v1")) }
        };
        let reading = keep_reading("v1.g.io".into(), found, read);
        let watching = async {
            let started = clock::instant();
            let mut at = Vec::new();
            while at.len() < 2 {
                all_found.recv().await.unwrap();
                at.push(started.elapsed());
            }
            at
        };
        let at = tokio::select! { () = reading => panic!("it ends"), at = watching => at };
        assert!(at[0] < REFRESH / 4, "{at:?}");
        assert!(at[1] - at[0] > REFRESH && at[1] - at[0] < REFRESH + REFRESH / 8, "{at:?}");
    }
}
