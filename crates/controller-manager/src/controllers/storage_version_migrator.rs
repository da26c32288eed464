//! Writes the objects of a resource anew, so that they are stored in the version in which the apiserver
//! stores them now (`k8s.io/kubernetes/pkg/controller/storageversionmigrator`).

use std::sync::Arc;

use api::KindRef;
use client::dynamic::target;
use client::{Client, PatchKind};
use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::kinds::Kinds;
use crate::machinery::queue::{Controller, Next, queue};
use crate::machinery::status;
use crate::wire::Wiring;

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";
const REASON: &str = "StorageVersionMigrationInProgress";

struct Migrator {
    client: Client,
    clock: SharedClock,
    kinds: Arc<Kinds>,
    migrations: Arc<Cache<StorageVersionMigration>>,
}

/// Adds the controller; its keys are migrations.
pub fn start(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    wiring.informers.storage_version_migrations.subscribe(&trigger, |change| {
        change.new.iter().map(|migration| Key::of(&**migration)).collect()
    });
    let migrator = Migrator {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        kinds: wiring.kinds(),
        migrations: wiring.informers.storage_version_migrations.cache(),
    };
    wiring.run(migrator, requests);
}

fn holds(migration: &StorageVersionMigration, condition: &str) -> bool {
    let all = migration.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.into_iter().any(|one| one.type_ == condition && one.status == "True")
}

/// The migration with a condition that holds; it no longer runs unless it is that.
fn with(
    migration: &StorageVersionMigration,
    condition: &str,
    message: &str,
    now: Timestamp,
) -> StorageVersionMigration {
    let mut changed = migration.clone();
    let conditions = &mut changed.status.get_or_insert_default().conditions;
    let conditions = conditions.get_or_insert_default();
    conditions.retain(|one| one.type_ != condition);
    for running in conditions.iter_mut().filter(|one| one.type_ == RUNNING) {
        running.status = "False".to_owned();
        running.last_transition_time = Time(now);
    }
    conditions.push(Condition {
        type_: condition.to_owned(),
        status: "True".to_owned(),
        reason: REASON.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    });
    changed
}

/// Whether a failed write of one object means that there is nothing to do for it: it is gone, or
/// somebody else has written it.
fn is_settled(error: &client::Error) -> bool {
    error.is_not_found() || error.is_conflict()
}

impl Controller for Migrator {
    const NAME: &'static str = "storage-version-migrator";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(migration) = self.migrations.get(key) else {
            return Ok(Next::Change);
        };
        if holds(&migration, SUCCEEDED) || holds(&migration, FAILED) {
            return Ok(Next::Change);
        }
        let now = self.clock.now();
        if !holds(&migration, RUNNING) {
            let running = with(&migration, RUNNING, "", now);
            status::write(&self.client, &*migration, &running).await?;
            return Ok(Next::Change);
        }
        let resource = migration.spec.clone().unwrap_or_default().resource;
        let found = self.kinds.stored().into_iter().find(|kind| {
            kind.group == resource.group.as_str() && kind.plural == resource.resource.as_str()
        });
        let ended = match found {
            None => with(&migration, FAILED, "resource does not exist in GC graph", now),
            Some(kind) => {
                let revision = self.migrate(&kind).await?;
                let mut done = with(&migration, SUCCEEDED, "", self.clock.now());
                let status = done.status.get_or_insert_default();
                status.resource_version.get_or_insert_with(|| revision.to_string());
                done
            }
        };
        status::write(&self.client, &*migration, &ended).await?;
        Ok(Next::Change)
    }
}

impl Migrator {
    /// Writes every object with the revision that it has; what is stored differs in its form only.
    /// Returns the revision of the list.
    async fn migrate(&self, kind: &KindRef) -> Result<u64, Error> {
        let request =
            pb::ListRequest { target: Some(target(kind, "", "", "")), ..Default::default() };
        let listed = self.client.list_objects(request).await;
        let (objects, revision) = listed.during(|| format!("list {kind}"))?;
        for object in objects {
            let json: Value = serde_json::from_slice(&object.json).unwrap_or_default();
            let metadata = &json["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default();
            let patch = json!({"metadata": {
                "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
            }});
            let at = target(kind, text("namespace"), text("name"), "");
            let patch = patch.to_string().into_bytes();
            let options = pb::WriteOptions::default();
            let written = self.client.patch_object(at, PatchKind::Merge, patch, options).await;
            match written {
                Err(error) if !is_settled(&error) => {
                    return Err(error).during(|| format!("migrate {kind} {}", text("name")));
                }
                _ => {}
            }
        }
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::at;

    #[test]
    fn a_migration_runs_then_ends() {
        let running = with(&StorageVersionMigration::default(), RUNNING, "", at(0));
        assert!(holds(&running, RUNNING));
        let done = with(&running, SUCCEEDED, "", at(1));
        assert!(holds(&done, SUCCEEDED) && !holds(&done, RUNNING) && !holds(&done, FAILED));
        assert_eq!(done.status.unwrap().conditions.unwrap().len(), 2);
    }
}
