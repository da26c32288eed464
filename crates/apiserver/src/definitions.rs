//! What becomes of CustomResourceDefinitions: their names are accepted, then they are established;
//! once they are deleted, so are their objects, and then they go themselves.
//!
//! Every apiserver runs this. Writes are bound to the revision that was looked at, so that of
//! several that decide the same one writes it. [`mod@plan`] decides (the controllers of
//! `k8s.io/apiextensions-apiserver`, `pkg/controller/{status,establish,finalizer,apiapproval}`).

pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::custom::definition::{ESTABLISHED, holds};
use api::object::Object;
use api::{ApiError, Kind, KindRef};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::system_user;
use crate::cache::{Filter, Follower, Version};
use crate::core::{Call, Core};
use crate::request::{Options, Target, Verb};
use crate::verbs::delete::delete_object;
use crate::verbs::update::{swap_with, update_with};
use plan::{Action, Deletion, plan};

/// How long a failed change waits for the next attempt, and objects for theirs whose deletion
/// somebody else has to finish.
const RETRY: Duration = Duration::from_secs(1);
/// How long objects may take to go before their definition says so.
const OVERDUE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Keeps all definitions in the state that they ask for, until `shutdown`: acts on every change of
/// one, and at intervals while something is left to do.
pub fn keep(core: &Arc<Core>, shutdown: CancellationToken) {
    let core = core.clone();
    let mut changes = Follower::of(&core, &[CustomResourceDefinition::ROW]);
    let following = async move {
        let (mut later, mut known) = (None, Known::default());
        loop {
            changes.next(later).await;
            later = settle(&core, &mut known).await.then_some(RETRY);
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(following).await });
}

/// Does what every definition asks for; whether something is left.
async fn settle(core: &Arc<Core>, known: &mut Known) -> bool {
    let mut unfinished = false;
    // A change can make another one possible: names that are freed.
    for _ in 0..2 {
        let all = known.refresh(core);
        for (definition, action) in plan(&all, core.clock.now()) {
            let name = definition.metadata.name.as_deref().unwrap_or_default();
            let outcome = match action {
                Action::Write(status) => write(core, definition, *status).await,
                Action::Finalize => {
                    finalize(core, definition).await.map(|done| unfinished |= !done)
                }
            };
            match outcome {
                Err(error) if error.is_conflict() || error.is_not_found() => unfinished = true,
                Err(error) => {
                    tracing::warn!(definition = name, %error, "cannot settle a CustomResourceDefinition");
                    unfinished = true;
                }
                Ok(()) => {}
            }
        }
    }
    unfinished
}

/// The definitions as they were seen last, with their revisions. Without their schemas, which are
/// large and not looked at here.
#[derive(Default)]
struct Known(HashMap<Box<str>, (u64, Arc<CustomResourceDefinition>)>);

impl Known {
    /// All definitions, in the order of their revisions, so that names are taken in the same order on
    /// every server: who has seen one has seen those before it. Only what has changed is decoded.
    fn refresh(&mut self, core: &Core) -> Vec<Arc<CustomResourceDefinition>> {
        let row = CustomResourceDefinition::ROW;
        let mut before = std::mem::take(&mut self.0);
        for version in core.cache.resource(row).list(&Filter::everything(row, "")) {
            let same = before.remove(&version.name).filter(|(seen, _)| *seen == version.revision);
            let read = || {
                let mut definition = CustomResourceDefinition::decode(&version.json).ok()?;
                definition.spec.versions.clear();
                Some((version.revision, Arc::new(definition)))
            };
            if let Some(definition) = same.or_else(read) {
                self.0.insert(version.name.clone(), definition);
            }
        }
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by_key(|(revision, _)| *revision);
        all.into_iter().map(|(_, definition)| definition.clone()).collect()
    }
}

/// Writes the status of the definition as it was seen.
async fn write(
    core: &Core,
    seen: &CustomResourceDefinition,
    status: CustomResourceDefinitionStatus,
) -> Result<(), ApiError> {
    let target = target(CustomResourceDefinition::ROW.into(), "", name(seen), "status");
    let (user, options) = (system_user(), Options::default());
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    update_with(call, |current, _: &Version| {
        let mut new = current.clone_object();
        new.metadata_mut().resource_version.clone_from(&seen.metadata.resource_version);
        if let Some(definition) = new.downcast_mut::<CustomResourceDefinition>() {
            definition.status = Some(status.clone());
        }
        Ok(new)
    })
    .await
    .map(|_| ())
}

fn name(definition: &CustomResourceDefinition) -> &str {
    definition.metadata.name.as_deref().unwrap_or_default()
}

fn target(row: KindRef, namespace: &str, name: &str, subresource: &str) -> Target {
    Target {
        row,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        subpath: String::new(),
    }
}

/// Deletes the objects of a definition that is being deleted, and lets it go when none is left.
/// False: some are.
async fn finalize(
    core: &Arc<Core>,
    definition: &CustomResourceDefinition,
) -> Result<bool, ApiError> {
    let deletion = match delete_objects(core, definition).await {
        Ok(true) if holds(definition, ESTABLISHED) => Deletion::Completed,
        Ok(true) => Deletion::NeverEstablished,
        Ok(false) if is_overdue(definition, core.clock.now()) => Deletion::Unconfirmed,
        Ok(false) => Deletion::InProgress,
        Err(error) => Deletion::Failed(format!("could not issue all deletes: {error}")),
    };
    let done = matches!(deletion, Deletion::Completed | Deletion::NeverEstablished);
    let mut status = definition.status.clone().unwrap_or_default();
    plan::set_terminating(&mut status, &deletion, core.clock.now());
    if !done {
        if definition.status.as_ref() != Some(&status) {
            write(core, definition, status).await?;
        }
        return Ok(false);
    }
    let target = target(CustomResourceDefinition::ROW.into(), "", name(definition), "");
    let (user, options) = (system_user(), Options::default());
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    let revision = definition.metadata.resource_version.clone();
    swap_with(call, |object, _| {
        let mut new = object.clone_object();
        if let Some(definition) = new.downcast_mut::<CustomResourceDefinition>() {
            definition.status = Some(status.clone());
        }
        let metadata = new.metadata_mut();
        metadata.resource_version.clone_from(&revision);
        if let Some(finalizers) = &mut metadata.finalizers {
            finalizers.retain(|finalizer| finalizer != plan::FINALIZER);
        }
        Ok(new)
    })
    .await?;
    Ok(true)
}

/// Whether somebody should look after what is left.
fn is_overdue(definition: &CustomResourceDefinition, now: jiff::Timestamp) -> bool {
    let since = definition.metadata.deletion_timestamp.as_ref();
    since.is_some_and(|since| now.duration_since(since.0) > OVERDUE)
}

/// Deletes the objects of a definition; whether none is left.
async fn delete_objects(
    core: &Arc<Core>,
    definition: &CustomResourceDefinition,
) -> Result<bool, ApiError> {
    let defined = core.cache.resources();
    let found = defined.iter().find(|resource| {
        let custom = resource.row.custom.as_ref();
        custom.is_some_and(|custom| custom.definition == name(definition))
    });
    let Some(resource) = found else { return Ok(true) };
    core.cache.fresh().await?;
    let (row, user, options) = (&resource.row, system_user(), Options::default());
    for object in resource.list(&Filter::everything(row, "")) {
        let target = target(row.clone(), &object.namespace, &object.name, "");
        let call =
            Call { core, user: &user, verb: Verb::Delete, target: &target, options: &options };
        match delete_object(call, &DeleteOptions::default()).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    core.cache.fresh().await?;
    Ok(resource.is_empty())
}

/// What a deletion writes into a definition that it cannot remove at once.
pub fn mark_terminating(object: &mut dyn Object, now: jiff::Timestamp) {
    if let Some(definition) = object.downcast_mut::<CustomResourceDefinition>() {
        plan::mark_terminating(definition, now);
    }
}
