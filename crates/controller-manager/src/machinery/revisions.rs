//! The history of the templates of DaemonSets and StatefulSets, kept in ControllerRevisions
//! (`k8s.io/kubernetes/pkg/controller/history`).
//!
//! The data of a revision is a strategic merge patch that restores its template; `kubectl rollout
//! undo` applies it.

use std::sync::Arc;

use api::Kind;
use client::{Api, Client, DeleteOptions, PatchKind};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{PodTemplate, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::During;
use crate::machinery::hash::short_hash;
use crate::machinery::owner;

/// Label with a revision's hash, on revisions and pods.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// `spec.revisionHistoryLimit` where it is not set.
const HISTORY_LIMIT: i32 = 10;

/// What to write to the history.
#[derive(Debug, PartialEq)]
struct Plan {
    /// The revision of the current template, existing or to be created.
    current: ControllerRevision,
    create: bool,
    /// The number that makes an existing revision the newest.
    renumber: Option<i64>,
}

/// The patch that sets an owner's template.
fn data(template: &PodTemplateSpec) -> Value {
    let whole = PodTemplate { template: Some(template.clone()), ..Default::default() };
    let mut value: Value =
        serde_json::from_slice(&whole.encode()).expect("what encode writes is JSON");
    let mut template = value["template"].take();
    if !template.is_object() {
        template = json!({});
    }
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// `existing`: all of the owner's revisions.
fn plan<O: Kind>(
    owner: &O,
    template: &PodTemplateSpec,
    collision_count: Option<i32>,
    existing: &[Arc<ControllerRevision>],
) -> Plan {
    let data = data(template);
    let number = |revision: &ControllerRevision| revision.revision.unwrap_or(0);
    let highest = existing.iter().map(|revision| number(revision)).max().unwrap_or(0);
    let equal = existing.iter().filter(|revision| revision.data.0 == data);
    if let Some(found) = equal.max_by_key(|revision| number(revision)) {
        return Plan {
            renumber: (number(found) < highest).then_some(highest + 1),
            current: (**found).clone(),
            create: false,
        };
    }
    let hash = short_hash(data.to_string().as_bytes(), collision_count);
    let metadata = owner.metadata();
    let mut labels =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let name = metadata.name.as_deref().unwrap_or_default();
    let current = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: metadata.namespace.clone(),
            labels: Some(labels),
            annotations: metadata.annotations.clone().map(|mut annotations| {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                annotations
            }),
            owner_references: Some(vec![owner::reference(owner)]),
            ..Default::default()
        },
        data: RawExtension(data),
        revision: Some(highest + 1),
    };
    Plan { current, create: true, renumber: None }
}

/// The hash in the labels of a revision and its pods.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// The oldest revisions beyond `limit` that are not in use.
fn surplus(
    existing: &[Arc<ControllerRevision>],
    limit: i32,
    in_use: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let mut unused: Vec<_> =
        existing.iter().filter(|revision| !in_use(revision)).cloned().collect();
    unused.sort_by_key(|revision| revision.revision);
    let keep = usize::try_from(limit).unwrap_or(0);
    unused.truncate(unused.len().saturating_sub(keep));
    unused
}

/// Makes `template` the newest revision of the owner's history and returns that revision. `None`: a
/// revision with other content has its name; the next attempt needs a higher `collision_count`.
///
/// # Errors
/// When the server refuses.
pub async fn sync<O: Kind>(
    client: &Client,
    owner: &O,
    template: &PodTemplateSpec,
    collision_count: Option<i32>,
    history: &[Arc<ControllerRevision>],
) -> Result<Option<ControllerRevision>, Error> {
    let plan = plan(owner, template, collision_count, history);
    let key = Key::of(&plan.current);
    let revisions = Api::<ControllerRevision>::namespaced(client, &key.namespace);
    if plan.create {
        match revisions.create(&plan.current).await {
            Err(error) if error.is_already_exists() => {
                let existing = revisions.get(&key.name).await;
                let existing = existing.during(|| format!("get controllerrevision {key}"))?;
                let same = existing.data.0 == plan.current.data.0;
                return Ok(same.then_some(plan.current));
            }
            outcome => outcome.during(|| format!("create controllerrevision {key}"))?,
        };
    }
    if let Some(number) = plan.renumber {
        let patch = json!({
            "metadata": {
                "uid": plan.current.metadata.uid,
                "resourceVersion": plan.current.metadata.resource_version,
            },
            "revision": number,
        });
        revisions
            .patch(&key.name, PatchKind::Merge, &patch)
            .await
            .during(|| format!("renumber controllerrevision {key}"))?;
    }
    Ok(Some(plan.current))
}

/// Deletes the oldest revisions beyond the history limit that are not in use.
///
/// # Errors
/// When the server refuses.
pub async fn clean_up(
    client: &Client,
    history: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    in_use: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), Error> {
    for revision in surplus(history, limit.unwrap_or(HISTORY_LIMIT), in_use) {
        let key = Key::of(&*revision);
        let all = Api::<ControllerRevision>::namespaced(client, &key.namespace);
        match all.delete_exactly(&revision, &DeleteOptions::default()).await {
            Err(error) if error.is_not_found() => {}
            outcome => outcome.during(|| format!("delete controllerrevision {key}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::labels;
    use k8s_openapi::api::apps::v1::DaemonSet;

    fn template(version: &str) -> PodTemplateSpec {
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels(&[("app", "web"), ("v", version)])),
                ..Default::default()
            }),
            spec: None,
        }
    }

    #[test]
    fn each_template_has_one_revision_and_a_rollback_renumbers_it() {
        let mut owner = DaemonSet::default();
        owner.metadata.name = Some("d".into());
        let first = plan(&owner, &template("1"), None, &[]);
        assert!(first.create && first.current.revision == Some(1));
        assert_eq!(first.current.data.0["spec"]["template"]["$patch"], "replace");
        let one = Arc::new(first.current);
        let again = plan(&owner, &template("1"), None, std::slice::from_ref(&one));
        assert!(!again.create && again.renumber.is_none());
        let second = plan(&owner, &template("2"), None, std::slice::from_ref(&one));
        assert_eq!(second.current.revision, Some(2));
        assert_ne!(hash_of(&second.current), hash_of(&one));
        let two = Arc::new(second.current);
        let back = plan(&owner, &template("1"), None, &[one.clone(), two.clone()]);
        assert_eq!((back.create, back.renumber), (false, Some(3)));
        let gone = surplus(&[two.clone(), one.clone()], 1, |_| false);
        assert_eq!(gone, [one]);
        assert!(surplus(&[two], 0, |_| true).is_empty());
    }
}
