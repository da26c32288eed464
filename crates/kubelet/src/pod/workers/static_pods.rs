//! Static pods: their workers, and their mirrors in the apiserver.
//!
//! What should run is what the files say. A mirror is made for each static pod that has a worker, and
//! deleted when it is not (or no longer) of that pod, or somebody deletes it, or nothing of the pod
//! is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client, DeleteOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::task::JoinSet;

use super::PodWorkers;
use crate::pod::pod_ext::PodExt;
use crate::pod::static_pods::{HASH, StaticPods, is_mirror_of, with_status_of};
use crate::pod::worker::Desired;

/// Pause after a write of a mirror that failed.
const RETRY: Duration = Duration::from_secs(5);

/// `<namespace>/<name>`: a static pod and its mirror have the same.
type FullName = String;

fn full_name(pod: &Pod) -> FullName {
    format!("{}/{}", pod.pod_namespace(), pod.pod_name())
}

/// A static pod that has a worker.
struct Held {
    pod: Arc<Pod>,
    /// Its file is gone.
    leaving: bool,
}

#[derive(Debug, PartialEq)]
enum Action {
    /// Make the mirror of this static pod.
    Create(Arc<Pod>),
    /// Delete this mirror.
    Delete(Arc<Pod>),
}

/// What to do about mirrors. `wanted`: the names of the pods that the files say should run.
fn plan(
    mirrors: &BTreeMap<FullName, Arc<Pod>>,
    held: &BTreeMap<FullName, Held>,
    wanted: &BTreeSet<FullName>,
) -> Vec<(FullName, Action)> {
    let outdated = |name: &FullName, mirror: &Pod| match held.get(name) {
        None => !wanted.contains(name),
        Some(held) if held.leaving => false,
        Some(held) => mirror.deletion_deadline().is_some() || !is_mirror_of(mirror, &held.pod),
    };
    let delete = mirrors
        .iter()
        .filter(|(name, mirror)| outdated(name, mirror))
        .map(|(name, mirror)| (name.clone(), Action::Delete(Arc::clone(mirror))));
    let create = held
        .iter()
        .filter(|(name, held)| !held.leaving && !mirrors.contains_key(*name))
        .map(|(name, held)| (name.clone(), Action::Create(Arc::clone(&held.pod))));
    delete.chain(create).collect()
}

/// The end of an action: what the apiserver has now, if that is known.
pub(super) struct Ended {
    name: FullName,
    known: Option<Known>,
}

enum Known {
    Is(Arc<Pod>),
    /// The one with this uid no longer exists.
    Gone(String),
}

/// The mirrors that the apiserver has, and what is being done about them.
#[derive(Default)]
pub(super) struct Mirrors {
    /// Whether all are known.
    listed: bool,
    all: BTreeMap<FullName, Arc<Pod>>,
    busy: BTreeSet<FullName>,
    tasks: JoinSet<Ended>,
}

impl Mirrors {
    /// All that the apiserver has.
    pub(super) fn replace(&mut self, mirrors: Vec<Arc<Pod>>) {
        self.listed = true;
        self.all = mirrors.into_iter().map(|mirror| (full_name(&mirror), mirror)).collect();
    }

    /// Takes a version of a mirror, unless a newer one is known.
    pub(super) fn put(&mut self, mirror: Arc<Pod>) {
        let revision = |pod: &Pod| {
            let text = pod.metadata.resource_version.as_deref();
            text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let known = self.all.entry(full_name(&mirror)).or_insert_with(|| Arc::clone(&mirror));
        if revision(known) < revision(&mirror) {
            *known = mirror;
        }
    }

    pub(super) fn remove(&mut self, mirror: &Pod) {
        self.forget(&full_name(mirror), mirror.uid());
    }

    fn forget(&mut self, name: &FullName, uid: &str) {
        if self.all.get(name).is_some_and(|known| known.uid() == uid) {
            self.all.remove(name);
        }
    }

    /// The mirror of a static pod.
    pub(super) fn of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let mirror = self.all.get(&full_name(pod)).filter(|_| pod.is_static());
        mirror.filter(|mirror| is_mirror_of(mirror, pod)).cloned()
    }

    /// Waits for the next action to end.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        if self.tasks.is_empty() {
            return std::future::pending().await;
        }
        match self.tasks.join_next().await? {
            Ok(ended) => Some(ended),
            Err(error) => {
                // A bug. It is unknown whose, so all may be tried again.
                tracing::error!(%error, "a write of a mirror pod panicked");
                self.busy.clear();
                None
            }
        }
    }

    pub(super) fn record(&mut self, ended: Ended) {
        self.busy.remove(&ended.name);
        match ended.known {
            Some(Known::Is(mirror)) => self.put(mirror),
            Some(Known::Gone(uid)) => self.forget(&ended.name, &uid),
            None => {}
        }
    }

    fn act(&mut self, client: &Client, node: &Node, name: FullName, action: Action) {
        if !self.busy.insert(name.clone()) {
            return;
        }
        let (client, node) = (client.clone(), node.clone());
        self.tasks.spawn(async move {
            let done = match action {
                Action::Create(pod) => create(&client, &node, &pod).await,
                Action::Delete(mirror) => delete(&client, &mirror).await,
            };
            let known = match done {
                Ok(known) => Some(known),
                Err(error) => {
                    tracing::warn!(%error, pod = name, "cannot write the mirror of a static pod");
                    tokio::time::sleep(RETRY).await;
                    None
                }
            };
            Ended { name, known }
        });
    }
}

/// The mirror that a static pod should have.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    mirror.status = None;
    let metadata = &mut mirror.metadata;
    metadata.uid = None;
    let annotations = metadata.annotations.get_or_insert_default();
    let hash = annotations.get(HASH).cloned().unwrap_or_default();
    annotations.insert(api::pod::MIRROR.to_owned(), hash);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror
}

async fn create(client: &Client, node: &Node, pod: &Pod) -> Result<Known, client::Error> {
    let pods: Api<Pod> = Api::namespaced(client, pod.pod_namespace());
    let made = match pods.create(&mirror(pod, node)).await {
        // An old mirror is replaced; somebody else's pod is not.
        Err(error) if error.is_already_exists() => {
            let found = pods.get(pod.pod_name()).await?;
            if !api::pod::is_mirror(&found) {
                return Err(error);
            }
            found
        }
        made => made?,
    };
    Ok(Known::Is(Arc::new(made)))
}

async fn delete(client: &Client, mirror: &Pod) -> Result<Known, client::Error> {
    let pods: Api<Pod> = Api::namespaced(client, mirror.pod_namespace());
    let uid = mirror.uid().to_owned();
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        precondition_uid: Some(uid.clone()),
        ..Default::default()
    };
    match pods.delete(mirror.pod_name(), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Known::Gone(uid)),
    }
}

impl PodWorkers {
    /// The static pods that should run now.
    pub(super) fn wanted(&self) -> StaticPods {
        self.static_pods.as_ref().map(|pods| pods.borrow().clone()).unwrap_or_default()
    }

    /// Brings workers and mirrors in line with the files.
    pub(super) fn sync_static_pods(&mut self) {
        let wanted = self.wanted();
        self.preemptors
            .retain(|uid, preemptor| !preemptor.pod.is_static() || wanted.contains_key(uid));
        for (uid, running) in &self.workers {
            let Desired { pod, mirror, vanished } = running.desired.borrow().clone();
            if !pod.is_static() || vanished {
                continue;
            }
            let Some(pod) = wanted.get(uid) else {
                running.vanish(None);
                continue;
            };
            let now = Desired { pod: Arc::clone(pod), mirror: self.mirrors.of(pod), vanished };
            if *running.desired.borrow().pod != **pod || now.mirror != mirror {
                self.pods.put(with_status_of(pod, now.mirror.as_ref()), None);
                running.update(now);
            }
        }
        for (uid, pod) in &wanted {
            let known = self.workers.contains_key(uid) || self.preemptors.contains_key(uid);
            // Of two with the same name, one after the other has gone.
            if !known && !self.holds(pod) {
                self.admit(Arc::clone(pod));
            }
        }
        self.sync_mirrors(&wanted);
    }

    /// Whether a worker or a preemptor has a static pod of the same name.
    fn holds(&self, pod: &Pod) -> bool {
        let name = full_name(pod);
        let same = |other: &Pod| other.is_static() && full_name(other) == name;
        self.workers.values().any(|running| same(&running.desired.borrow().pod))
            || self.preemptors.values().any(|preemptor| same(&preemptor.pod))
    }

    fn sync_mirrors(&mut self, wanted: &StaticPods) {
        let node = Arc::clone(&self.node.borrow());
        if !self.mirrors.listed || node.metadata.uid.is_none() {
            return;
        }
        let held = self
            .workers
            .values()
            .map(|running| running.desired.borrow().clone())
            .filter(|desired| desired.pod.is_static())
            .map(|Desired { pod, vanished, .. }| (full_name(&pod), Held { pod, leaving: vanished }))
            .collect();
        let names = wanted.values().map(|pod| full_name(pod)).collect();
        for (name, action) in plan(&self.mirrors.all, &held, &names) {
            self.mirrors.act(&self.context.client, &node, name, action);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::static_pods::{FILE, SOURCE};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn pod(uid: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web-n1".into());
        pod.metadata.namespace = Some("default".into());
        pod.metadata.uid = Some(uid.into());
        let annotations = [(HASH.to_owned(), uid.to_owned()), (SOURCE.into(), FILE.into())];
        pod.metadata.annotations = Some(annotations.into());
        Arc::new(pod)
    }

    fn mirror_of(pod: &Pod, deleted: bool) -> Arc<Pod> {
        let mut node = Node::default();
        (node.metadata.name, node.metadata.uid) = (Some("n1".into()), Some("u1".into()));
        let mut mirror = mirror(pod, &node);
        mirror.metadata.deletion_timestamp = deleted.then_some(Time(Timestamp::UNIX_EPOCH));
        mirror.metadata.uid = Some("of-mirror".into());
        mirror.metadata.resource_version = Some("1".into());
        Arc::new(mirror)
    }

    #[test]
    fn a_mirror_is_the_nodes() {
        let own = pod("a");
        let mirror = mirror_of(&own, false);
        assert!(is_mirror_of(&mirror, &own) && api::pod::is_mirror(&mirror) && own.is_static());
        assert!(!mirror.is_static(), "an object of the apiserver");
        assert_eq!(api::pod::uid_on_node(&mirror), Some("a"));
        let others = pod("6298388c-f466-4303-bf1c-cdaa1edf07fa");
        let false_mirror = mirror_of(&others, false);
        assert_eq!(api::pod::uid_on_node(&false_mirror), Some("of-mirror"));
        let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Node", "u1"));
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), None));
    }

    #[test]
    fn mirrors_follow_their_pods() {
        let name = "default/web-n1".to_owned();
        let (old, new) = (pod("old"), pod("new"));
        let held = |pod: &Arc<Pod>, leaving| Some(Held { pod: Arc::clone(pod), leaving });
        let create = |pod: &Arc<Pod>| vec![(name.clone(), Action::Create(Arc::clone(pod)))];
        let delete = |pod: &Arc<Pod>| vec![(name.clone(), Action::Delete(Arc::clone(pod)))];
        let (of_old, deleted) = (mirror_of(&old, false), mirror_of(&old, true));
        for (case, mirror, held, wanted, expected) in [
            ("it starts", None, held(&old, false), true, create(&old)),
            ("it runs", Some(&of_old), held(&old, false), true, vec![]),
            ("somebody deletes it", Some(&deleted), held(&old, false), true, delete(&deleted)),
            ("the file is gone", Some(&of_old), held(&old, true), false, vec![]),
            ("nothing is left", Some(&of_old), None, false, delete(&of_old)),
            ("deleted while it goes", None, held(&old, true), false, vec![]),
            ("the next waits for the old one", Some(&of_old), held(&old, true), true, vec![]),
            ("the next has yet to start", Some(&of_old), None, true, vec![]),
            ("the next has started", Some(&of_old), held(&new, false), true, delete(&of_old)),
        ] {
            let mirrors =
                mirror.map(|mirror| (name.clone(), Arc::clone(mirror))).into_iter().collect();
            let held = held.map(|held| (name.clone(), held)).into_iter().collect();
            let wanted = wanted.then(|| name.clone()).into_iter().collect();
            assert_eq!(plan(&mirrors, &held, &wanted), expected, "{case}");
        }
    }

    #[test]
    fn an_old_event_does_not_hide_a_new_mirror() {
        let mut mirrors = Mirrors::default();
        let own = pod("a");
        let old = mirror_of(&own, true);
        let mut new = Pod::clone(&mirror_of(&own, false));
        new.metadata.uid = Some("newer".into());
        new.metadata.resource_version = Some("10".into());
        mirrors.record(Ended { name: full_name(&own), known: Some(Known::Is(Arc::new(new))) });
        mirrors.put(Arc::clone(&old));
        mirrors.remove(&old);
        assert_eq!(mirrors.of(&own).unwrap().uid(), "newer");
    }
}
