//! ResourceQuota: limits on the total of what a namespace's objects use
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota`).
//!
//! The last step before a write: every quota that matches the object is checked, then charged in
//! the store by compare-and-swap, so that concurrent writes cannot exceed it, whichever apiserver
//! they come through. A write that fails gets its charge refunded. What is freed is recounted by
//! the controller.

mod limited;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::object::Object;
use api::quantity::Quantity;
use api::quota::{self, Usage};
use api::{ApiError, Kind, KindRow};
use bytes::Bytes;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use store::{Outcome, Revision};
use tokio::sync::Mutex;

pub use limited::{LimitedResource, configured};
use limited::{Uncovered, uncovered};

use super::attributes::Attributes;
use super::plugin::Admitted;
use super::subject::View;
use crate::cache::{Filter, Version};
use crate::core::{Call, version_of};
use crate::error::store_error;
use crate::{keys, stored};

/// How often a charge is retried after losing a race against another apiserver.
const ATTEMPTS: usize = 16;
/// Charges to one namespace are serialized within this apiserver, by this many locks.
const LANES: usize = 64;

/// The plugin.
#[derive(Debug)]
pub struct Quotas {
    lanes: Vec<Mutex<()>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { lanes: (0..LANES).map(|_| Mutex::default()).collect() }
    }
}

/// What a write was charged.
#[derive(Debug, Default)]
#[must_use]
pub struct Charges(Vec<Charge>);

#[derive(Debug)]
struct Charge {
    key: Bytes,
    before: Bytes,
    charged: Revision,
}

/// Charges every quota that matches what is written.
///
/// # Errors
/// As [`Quotas::charge`].
pub async fn check(
    attributes: &Attributes<'_>,
    view: &dyn View,
    admitted: &mut Admitted,
) -> Result<(), ApiError> {
    if let Some(object) = view.object() {
        let quotas = &attributes.call.core.admission.quotas;
        admitted.charges = quotas.charge(attributes, object).await?;
    }
    Ok(())
}

impl Quotas {
    /// Charges every quota that matches an object's write; a dry run only checks them.
    ///
    /// # Errors
    /// 403 when a quota is exceeded or requires what the object leaves out, or none covers what is
    /// limited; 409 when other apiservers keep winning the race.
    async fn charge(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<Charges, ApiError> {
        let (call, old) = (attributes.call, attributes.old_object());
        let mut charges = Charges::default();
        if !is_counted(call, &object.row(), old.is_some()) {
            return Ok(charges);
        }
        let filter = Filter::everything(ResourceQuota::ROW, &call.target.namespace);
        let quotas = call.core.cache.resource(ResourceQuota::ROW).list_at(&filter).0;
        let limited = &call.core.admission.settings.limited_resources;
        if quotas.is_empty() && limited.is_empty() {
            return Ok(charges);
        }
        let refuse = |why: String| attributes.forbidden(object, why);
        let quotas: Result<Vec<_>, ApiError> =
            quotas.into_iter().map(|version| Ok((decode(&version)?, version))).collect();
        let quotas = quotas?;
        let all: Vec<&ResourceQuota> = quotas.iter().map(|(quota, _)| quota).collect();
        match uncovered(limited, &all, object, old).map_err(refuse)? {
            Uncovered::Nothing => {}
            Uncovered::Resources(why) => return Err(refuse(why)),
            // As upstream, an error without a reason of its own.
            Uncovered::Scopes(why) => return Err(ApiError::new(500, "", why)),
        }
        let mut wanted = Vec::new();
        for (quota, version) in quotas {
            if plan(&quota, object, old).map_err(refuse)?.is_some() {
                wanted.push(version);
            }
        }
        if call.options.dry_run || wanted.is_empty() {
            return Ok(charges);
        }
        let mut hasher = DefaultHasher::new();
        call.target.namespace.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or_default();
        let _turn = self.lanes[lane].lock().await;
        for version in wanted {
            let charged =
                charge_one(call, version, |quota| plan(quota, object, old).map_err(refuse));
            match charged.await {
                Ok(charge) => charges.0.extend(charge),
                Err(error) => {
                    charges.refund(call).await;
                    return Err(error);
                }
            }
        }
        Ok(charges)
    }
}

impl Charges {
    /// Refunds everything, after the write has failed. A quota that was written by somebody else in
    /// the meantime is left to the controller, which recounts: the count may be without this charge
    /// already, and a second refund would let the quota be exceeded.
    pub async fn refund(self, call: Call<'_>) {
        let namespace = &call.target.namespace;
        for charge in self.0 {
            match call.core.store.update(charge.key, charge.before, charge.charged).await {
                Ok(Outcome::Written(_)) => {}
                Ok(Outcome::Conflict { .. }) => {
                    tracing::debug!(
                        namespace,
                        "a quota that was written since keeps a charge until it is counted"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, namespace, "a quota keeps a charge until it is counted");
                }
            }
        }
    }
}

/// Whether a write can change what is used. Events are not counted: they expire by themselves.
fn is_counted(call: Call<'_>, row: &KindRow, update: bool) -> bool {
    if !row.namespaced() || !call.row().stored || row.plural == "events" {
        return false;
    }
    match (update, call.target.subresource.as_str()) {
        (false, _) => true,
        (true, "resize") => row == Pod::ROW,
        (true, "") => row == Service::ROW || row == PersistentVolumeClaim::ROW,
        (true, _) => false,
    }
}

fn decode(version: &Version) -> Result<ResourceQuota, ApiError> {
    ResourceQuota::decode(&version.json).map_err(ApiError::internal)
}

async fn charge_one(
    call: Call<'_>,
    mut version: Arc<Version>,
    plan: impl Fn(&ResourceQuota) -> Result<Option<Amounts>, ApiError>,
) -> Result<Option<Charge>, ApiError> {
    let row = ResourceQuota::ROW;
    let key = version.key();
    for _ in 0..ATTEMPTS {
        let mut quota = decode(&version)?;
        let Some(used) = plan(&quota)? else {
            return Ok(None);
        };
        let before = stored::encode(&mut quota);
        quota.status.get_or_insert_default().used = Some(used);
        let value = stored::encode(&mut quota);
        let outcome = call
            .core
            .store
            .update(keys::object(row, &key), value, Revision::new(version.revision))
            .await
            .map_err(|error| store_error(&error))?;
        match outcome {
            Outcome::Written(charged) => {
                return Ok(Some(Charge { key: keys::object(row, &key), before, charged }));
            }
            // A quota that has been deleted limits nothing.
            Outcome::Conflict { current: None, .. } => return Ok(None),
            Outcome::Conflict { current: Some(entry), .. } => {
                version = version_of(row, &key, &entry)?
            }
        }
    }
    Err(ApiError::modified(row, &version.name))
}

type Amounts = BTreeMap<String, Text>;

/// What a write has to do with a quota that matches it.
struct Claim<'a> {
    /// The resources of the quota that the kind can use.
    relevant: BTreeSet<&'a str>,
    growth: Usage,
}

/// What a write claims of a quota; `None`: the quota does not match it.
///
/// # Errors
/// Why the quota does not admit it whatever its limits, in Kubernetes' words.
fn claimed<'a>(
    quota: &'a ResourceQuota,
    new: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<Option<Claim<'a>>, String> {
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let status = quota.status.as_ref();
    let hard = status.and_then(|status| status.hard.as_ref());
    let used = status.and_then(|status| status.used.as_ref());
    let names = || hard.into_iter().flat_map(Amounts::keys);
    let empty = Default::default();
    let spec = quota.spec.as_ref().unwrap_or(&empty);
    if !quota::selects(spec, names(), new) {
        return Ok(None);
    }
    let relevant = quota::relevant(&new.row(), names());
    if let Some(pod) = new.downcast_ref::<Pod>() {
        let missing = quota::missing_requirements(pod, &relevant);
        if !missing.is_empty() {
            let texts: Vec<String> = missing
                .into_iter()
                .map(|(resource, containers)| {
                    let containers: Vec<_> = containers.into_iter().collect();
                    format!("{resource} for: {}", containers.join(","))
                })
                .collect();
            return Err(format!("failed quota: {name}: must specify {}", texts.join("; ")));
        }
    }
    let is_known = |resource: &str| used.is_some_and(|used| used.contains_key(resource));
    if !relevant.iter().all(|resource| is_known(resource)) {
        let names: Vec<_> = relevant.into_iter().collect();
        return Err(format!("status unknown for quota: {name}, resources: {}", names.join(",")));
    }
    let before =
        old.filter(|old| quota::selects(spec, names(), *old)).map(quota::usage).unwrap_or_default();
    Ok(Some(Claim { relevant, growth: growth(quota::usage(new), &before) }))
}

/// What `used` becomes with this write; `None`: the write does not change it.
///
/// # Errors
/// Why the quota does not admit it, in Kubernetes' words.
fn plan(
    quota: &ResourceQuota,
    new: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<Option<Amounts>, String> {
    let Some(mut claim) = claimed(quota, new, old)? else {
        return Ok(None);
    };
    let status = quota.status.clone().unwrap_or_default();
    let (hard, used) = (status.hard.unwrap_or_default(), status.used.unwrap_or_default());
    claim.growth.retain(|resource, _| hard.contains_key(resource));
    if claim.growth.is_empty() {
        return Ok(None);
    }
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    charged(name, &claim.growth, &used, &hard).map(Some)
}

/// The growth over the old usage.
fn growth(mut usage: Usage, before: &Usage) -> Usage {
    usage.retain(|resource, amount| {
        if let Some(before) = before.get(resource) {
            *amount = *amount - *before;
        }
        !amount.is_zero() && !amount.is_negative()
    });
    usage
}

/// The sum, if it is within the limit.
fn charged(name: &str, added: &Usage, used: &Amounts, hard: &Amounts) -> Result<Amounts, String> {
    let mut sum = used.clone();
    let (mut requested, mut present, mut limited) = (Vec::new(), Vec::new(), Vec::new());
    for (resource, amount) in added {
        let of = |amounts: &Amounts| amounts.get(resource).map(Quantity::of).unwrap_or_default();
        let (before, most) = (of(used), of(hard));
        let after = before + *amount;
        if after > most {
            requested.push(format!("{resource}={amount}"));
            present.push(format!("{resource}={before}"));
            limited.push(format!("{resource}={most}"));
        }
        sum.insert(resource.clone(), after.to_text());
    }
    if requested.is_empty() {
        return Ok(sum);
    }
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        requested.join(","),
        present.join(","),
        limited.join(",")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quota(hard: serde_json::Value, used: serde_json::Value) -> ResourceQuota {
        let json = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}});
        ResourceQuota::decode(json.to_string().as_bytes()).unwrap()
    }

    fn pod(requests: serde_json::Value) -> Pod {
        let json =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
        Pod::decode(json.to_string().as_bytes()).unwrap()
    }

    fn text(amounts: &Amounts) -> String {
        let all = amounts.iter();
        all.map(|(name, amount)| format!("{name}={}", amount.0)).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn refusals_are_worded_as_kubernetes_words_them() {
        let sized = pod(json!({"cpu": "500m", "memory": "1Gi"}));
        let bare = pod(json!({}));
        for (hard, used, pod, expected) in [
            (json!({"pods": "2"}), json!({"pods": "1"}), &bare, Ok(Some("pods=2"))),
            (
                json!({"pods": "2"}),
                json!({"pods": "2"}),
                &bare,
                Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
            ),
            (
                json!({"pods": "9", "requests.cpu": "1", "requests.memory": "1Gi"}),
                json!({"pods": "0", "requests.cpu": "750m", "requests.memory": "512Mi"}),
                &sized,
                Err("exceeded quota: q, requested: requests.cpu=500m,requests.memory=1Gi, \
                     used: requests.cpu=750m,requests.memory=512Mi, limited: requests.cpu=1,requests.memory=1Gi"),
            ),
            (
                json!({"limits.cpu": "9", "requests.cpu": "1"}),
                json!({"limits.cpu": "0", "requests.cpu": "0"}),
                &sized,
                Err("failed quota: q: must specify limits.cpu for: c"),
            ),
            (
                json!({"pods": "9", "requests.cpu": "1"}),
                json!({"pods": "0"}),
                &sized,
                Err("status unknown for quota: q, resources: pods,requests.cpu"),
            ),
            (json!({"services": "0"}), json!({"services": "0"}), &bare, Ok(None)),
            (json!({}), json!({}), &bare, Ok(None)),
            (
                json!({"requests.cpu": "2"}),
                json!({"requests.cpu": "0"}),
                &sized,
                Ok(Some("requests.cpu=500m")),
            ),
        ] {
            let planned = plan(&quota(hard, used), pod, None);
            let planned = planned.map(|used| used.as_ref().map(text));
            assert_eq!(planned.as_ref().map(Option::as_deref).map_err(String::as_str), expected);
        }
    }

    #[test]
    fn an_update_is_charged_for_its_growth() {
        let quota = quota(
            json!({"services": "1", "services.nodeports": "2"}),
            json!({"services": "1", "services.nodeports": "1"}),
        );
        let service = |type_: &str, ports: usize| {
            let ports: Vec<_> = (0..ports).map(|port| json!({"port": port})).collect();
            let json = json!({"spec": {"type": type_, "ports": ports}});
            Service::decode(json.to_string().as_bytes()).unwrap()
        };
        let change = |new: Service, old: Service| {
            plan(&quota, &new, Some(&old)).map(|used| used.as_ref().map(text))
        };
        let grown = change(service("NodePort", 2), service("NodePort", 1));
        assert_eq!(grown.unwrap().unwrap(), "services=1,services.nodeports=2");
        let same = change(service("NodePort", 2), service("NodePort", 2));
        assert_eq!(same, Ok(None));
        let smaller = change(service("ClusterIP", 2), service("NodePort", 2));
        assert_eq!(smaller, Ok(None));
        let too_many = change(service("NodePort", 2), service("ClusterIP", 2));
        assert!(
            too_many
                .unwrap_err()
                .starts_with("exceeded quota: q, requested: services.nodeports=2,")
        );
    }
}
