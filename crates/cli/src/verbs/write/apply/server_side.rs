//! `skiff apply --server-side`, and the migration of objects that were applied by the client.

use anyhow::bail;
use client::{Client, PatchKind};
use rpc::api_v1::{Target, WriteOptions};
use serde_json::{Map, Value, json};

use crate::request::last_applied::LAST_APPLIED;

/// Attempts at a migration that other clients interfere with.
const MIGRATION_TRIES: usize = 5;
/// The manager of server-side applies, for whom the server keeps the annotation of client-side ones.
const DEFAULT_MANAGER: &str = "kubectl";
/// The manager that the annotation gets, so that it stays although no manifest has it.
const ANNOTATION_MANAGER: &str = "kubectl-last-applied";
/// What to do about a conflict, in kubectl's words.
const CONFLICT: &str = "\
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

/// Applies a configuration; returns the object. What a client-side apply left to its own manager
/// becomes this one's, and is removed if the configuration does not have it.
///
/// # Errors
/// The server's; of a conflict, with what to do about it.
pub async fn apply(
    client: &Client,
    target: Target,
    config: &Value,
    options: WriteOptions,
) -> anyhow::Result<Value> {
    let mut object = once(client, &target, config, &options).await?;
    if options.dry_run {
        return Ok(object);
    }
    for _ in 0..MIGRATION_TRIES {
        if migrated(&object, &options.field_manager).is_none() {
            return Ok(object);
        }
        // Whoever goes back to client-side applies needs the annotation.
        if options.field_manager == DEFAULT_MANAGER {
            let options =
                WriteOptions { field_manager: ANNOTATION_MANAGER.to_owned(), ..options.clone() };
            object = once(client, &target, &annotation_of(&object), &options).await?;
        }
        let Some(owners) = migrated(&object, &options.field_manager) else {
            return Ok(object);
        };
        let patch = json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": owners},
            {"op": "replace", "path": "/metadata/resourceVersion",
             "value": object["metadata"]["resourceVersion"]},
        ]);
        let body = serde_json::to_vec(&patch)?;
        match client.patch_object(target.clone(), PatchKind::Json, body, options.clone()).await {
            Ok(_) => return once(client, &target, config, &options).await,
            Err(error) if error.is_conflict() => {
                object = serde_json::from_slice(&client.get_object(target.clone()).await?.json)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("another client changed the object at every attempt to migrate it; try again");
}

/// The object's annotation as a configuration of its own.
fn annotation_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut config = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"name": metadata["name"],
            "annotations": {(LAST_APPLIED): metadata["annotations"][LAST_APPLIED]}},
    });
    if metadata["namespace"].is_string() {
        config["metadata"]["namespace"] = metadata["namespace"].clone();
    }
    config
}

async fn once(
    client: &Client,
    target: &Target,
    config: &Value,
    options: &WriteOptions,
) -> anyhow::Result<Value> {
    let body = serde_json::to_vec(config)?;
    match client.patch_object(target.clone(), PatchKind::Apply, body, options.clone()).await {
        Ok(object) => Ok(serde_json::from_slice(&object.json)?),
        // Other conflicts have no causes: a uid that differs, for example.
        Err(error) if error.is_conflict() && has_causes(&error) => {
            let text = error.api().map(ToString::to_string).unwrap_or_default();
            bail!("{text}\n{CONFLICT}");
        }
        Err(error) => Err(error.into()),
    }
}

fn has_causes(error: &client::Error) -> bool {
    let details = error.api().and_then(|error| error.status().details.as_ref());
    details.and_then(|details| details.causes.as_ref()).is_some_and(|causes| !causes.is_empty())
}

/// The managed fields with those of client-side applies in the manager's own entry (client-go's
/// `csaupgrade`); `None` if there is nothing to migrate.
fn migrated(object: &Value, manager: &str) -> Option<Vec<Value>> {
    let owners = object["metadata"]["managedFields"].as_array()?;
    let of_object = |owner: &Value| owner["subresource"].as_str().unwrap_or_default().is_empty();
    let annotation = format!("f:{LAST_APPLIED}");
    let by_client = |owner: &Value| {
        let annotations = &owner["fieldsV1"]["f:metadata"]["f:annotations"];
        owner["operation"] == "Update" && of_object(owner) && !annotations[&annotation].is_null()
    };
    let is_own = |owner: &Value| {
        owner["operation"] == "Apply" && owner["manager"] == manager && of_object(owner)
    };
    let (before, mut after): (Vec<Value>, Vec<Value>) = owners.iter().cloned().partition(by_client);
    if before.is_empty() {
        return None;
    }
    let own = after.iter_mut().find(|owner| is_own(owner))?;
    for owner in before {
        unite(&mut own["fieldsV1"], &owner["fieldsV1"]);
    }
    Some(after)
}

/// Adds the fields of one set to another.
fn unite(set: &mut Value, other: &Value) {
    let nothing = Map::new();
    for (name, below) in other.as_object().unwrap_or(&nothing) {
        match set.as_object_mut().and_then(|set| set.get_mut(name)) {
            Some(known) => unite(known, below),
            None => set[name] = below.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "fieldsV1": fields})
    }

    fn object(owners: &[Value]) -> Value {
        json!({"metadata": {"managedFields": owners}})
    }

    #[test]
    fn fields_of_client_side_applies_become_the_managers() {
        let annotated = json!({"f:metadata": {"f:annotations": {(format!("f:{LAST_APPLIED}")): {}}},
            "f:data": {".": {}, "f:a": {}, "f:b": {}}});
        let own = entry("kubectl", "Apply", json!({"f:data": {"f:a": {}, "f:c": {}}}));
        let other = entry("edit", "Update", json!({"f:data": {"f:d": {}}}));
        let by_client = entry("skiff-client-side-apply", "Update", annotated.clone());
        let all = object(&[own.clone(), by_client, other.clone()]);
        let united = json!({
            "f:metadata": annotated["f:metadata"],
            "f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}},
        });
        assert_eq!(
            migrated(&all, "kubectl"),
            Some(vec![entry("kubectl", "Apply", united), other.clone()])
        );
        assert_eq!(migrated(&all, "someone"), None, "who has not applied it");
        assert_eq!(migrated(&object(&[own, other]), "kubectl"), None);
        let mut status = entry("kubectl", "Update", annotated);
        status["subresource"] = "status".into();
        assert_eq!(migrated(&object(&[status]), "kubectl"), None);
        assert_eq!(migrated(&json!({}), "kubectl"), None);
    }
}
