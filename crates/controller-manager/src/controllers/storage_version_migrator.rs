//! Writes the objects of a resource anew, so that they are stored in the version in which the apiserver
//! stores them now (`k8s.io/kubernetes/pkg/controller/storageversionmigrator`).

use std::sync::Arc;
use std::time::Duration;

use api::KindRef;
use client::dynamic::target;
use client::{Client, PatchKind};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::kinds::Kinds;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";
/// How long a resource may be unknown after its migration was asked for: definitions take a moment.
const UNKNOWN_FOR: SignedDuration = SignedDuration::from_mins(1);
/// When an unknown resource is looked for again.
const AGAIN: Duration = Duration::from_secs(5);

struct Migrator {
    client: Client,
    clock: SharedClock,
    kinds: Arc<Kinds>,
    migrations: Arc<Cache<StorageVersionMigration>>,
}

/// Adds the controller; its keys are migrations.
pub fn start(wiring: &mut Wiring) {
    let migrator = Migrator {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        kinds: wiring.kinds(),
        migrations: wiring.cache(),
    };
    wiring.controller(migrator).of_present::<StorageVersionMigration>().start();
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
        reason: reason(condition).to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    });
    changed
}

fn reason(condition: &str) -> &'static str {
    match condition {
        SUCCEEDED => "StorageVersionMigrationSucceeded",
        FAILED => "StorageVersionMigrationFailed",
        _ => "StorageVersionMigrationInProgress",
    }
}

fn failed(
    migration: &StorageVersionMigration,
    why: &str,
    now: Timestamp,
) -> StorageVersionMigration {
    with(migration, FAILED, &format!("migration encountered unhandled error: {why}"), now)
}

/// Whether a write that failed may succeed later, as upstream.
fn may_pass(error: &client::Error) -> bool {
    const LATER: [u16; 4] = [429, 500, 503, 504];
    error.api().is_none_or(|error| LATER.contains(&error.code()))
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
        let resource = migration.spec.clone().unwrap_or_default().resource;
        let found = self.kinds.stored().into_iter().find(|kind| {
            kind.group == resource.group.as_str() && kind.plural == resource.resource.as_str()
        });
        let Some(kind) = found else {
            let asked = migration.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
            if now < asked + UNKNOWN_FOR {
                return Ok(Next::After(AGAIN));
            }
            let failed = failed(&migration, "resource does not exist in GC", now);
            status::write(&self.client, &*migration, &failed).await?;
            return Ok(Next::Change);
        };
        if !holds(&migration, RUNNING) {
            let mut running = with(&migration, RUNNING, "", now);
            let status = running.status.get_or_insert_default();
            if status.resource_version.is_none() {
                // What is written from now on is stored as it should be.
                status.resource_version = Some(self.list(&kind, 1).await?.1.to_string());
            }
            status::write(&self.client, &*migration, &running).await?;
            return Ok(Next::Change);
        }
        let since = migration.status.as_ref().and_then(|status| status.resource_version.as_ref());
        let since = since.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        let ended = match self.migrate(&kind, since).await? {
            Ok(()) => with(&migration, SUCCEEDED, "", self.clock.now()),
            Err(why) => failed(&migration, &why, self.clock.now()),
        };
        status::write(&self.client, &*migration, &ended).await?;
        Ok(Next::Change)
    }
}

impl Migrator {
    async fn list(&self, kind: &KindRef, limit: u64) -> Result<(Vec<pb::Object>, u64), Error> {
        let target = Some(target(kind, "", "", ""));
        let request = pb::ListRequest { target, limit, ..Default::default() };
        self.client.list_objects(request).await.during(|| format!("list {kind}"))
    }

    /// Writes every object that has not been written since, with the revision that it has; what is
    /// stored differs in its form only. Returns why that will never be done.
    async fn migrate(&self, kind: &KindRef, since: u64) -> Result<Result<(), String>, Error> {
        for object in self.list(kind, 0).await?.0 {
            let json: Value = serde_json::from_slice(&object.json).unwrap_or_default();
            let metadata = &json["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default();
            // Also by a former run.
            if text("resourceVersion").parse::<u64>().is_ok_and(|revision| revision > since) {
                continue;
            }
            let patch = json!({"metadata": {
                "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
            }});
            let at = target(kind, text("namespace"), text("name"), "");
            let patch = patch.to_string().into_bytes();
            let options = pb::WriteOptions::default();
            let written = self.client.patch_object(at, PatchKind::Merge, patch, options).await;
            match written {
                Err(error) if is_settled(&error) => {}
                Err(error) if may_pass(&error) => {
                    return Err(error).during(|| format!("migrate {kind} {}", text("name")));
                }
                Err(error) => return Ok(Err(error.to_string())),
                Ok(_) => {}
            }
        }
        Ok(Ok(()))
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
        let conditions = done.status.unwrap().conditions.unwrap();
        let reasons: Vec<_> = conditions.iter().map(|one| one.reason.as_str()).collect();
        let expected = ["StorageVersionMigrationInProgress", "StorageVersionMigrationSucceeded"];
        assert_eq!(reasons, expected);
        let failed = failed(&running, "why", at(1)).status.unwrap().conditions.unwrap();
        assert_eq!(failed[1].reason, "StorageVersionMigrationFailed");
        assert_eq!(failed[1].message, "migration encountered unhandled error: why");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let api = |code: u16| client::Error::Api(api::ApiError::new(code, "", ""));
        for code in [429, 500, 503, 504] {
            assert!(may_pass(&api(code)), "{code}");
        }
        for code in [400, 403, 422] {
            assert!(!may_pass(&api(code)), "{code}");
        }
    }
}
