//! Namespaces under PodSecurity: labels must be valid, and a stricter level is tried on the pods
//! that are there already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::checks::{Subject, reasons, violations};
use super::policy::{Level, LevelVersion, MODES, Policy};
use super::{Exemptions, PodSecurity};
use crate::cache::{Filter, Version};
use crate::core::Call;
use crate::scan;

/// Pods that a change of a namespace's level looks at, and for how long.
const MAX_PODS: usize = 3_000;
const MAX_TIME: Duration = Duration::from_secs(1);
/// Pods looked at before other requests get their turn.
const BATCH: usize = 64;

impl PodSecurity {
    pub(super) async fn check_namespace(
        &self,
        call: Call<'_>,
        new: &Namespace,
        old: Option<&Namespace>,
    ) -> Result<Vec<String>, ApiError> {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        let labels = new.metadata.labels.as_ref();
        let (policy, errors) = Policy::of_labels(labels, &self.defaults);
        let before = old.map(|old| Policy::of_labels(old.metadata.labels.as_ref(), &self.defaults));
        let known = before.as_ref().is_some_and(|(_, known)| *known == errors);
        if !errors.is_empty() && !known {
            return Err(ApiError::invalid(call.row(), name, &errors));
        }
        let exempt = self.exemptions.namespaces.iter().any(|exempt| exempt == name);
        let Some((before, _)) = before else {
            return Ok(if exempt { self.ignored(name, &policy, labels) } else { Vec::new() });
        };
        let (enforce, was) = (policy.enforce, before.enforce);
        let relaxed = enforce.version == was.version && enforce.level <= was.level;
        if enforce == was || enforce.level == Level::Privileged || relaxed {
            return Ok(Vec::new());
        }
        if exempt {
            return Ok(self.ignored(name, &policy, labels));
        }
        Ok(self.try_pods(call, name, enforce).await)
    }

    /// Tells that the policy of an exempt namespace has no effect.
    fn ignored(
        &self,
        name: &str,
        policy: &Policy,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Vec<String> {
        if policy.is_privileged() || *policy == self.defaults {
            return Vec::new();
        }
        let has = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
        let parts: Vec<String> = MODES
            .into_iter()
            .filter(|mode| policy.of(*mode).level != Level::Privileged)
            .filter(|mode| has(&mode.level_label()) || has(&mode.version_label()))
            .map(|mode| format!("{}={}", mode.text(), policy.of(mode)))
            .collect();
        vec![format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            parts.join(", ")
        )]
    }

    /// What the pods of the namespace would violate.
    async fn try_pods(&self, call: Call<'_>, name: &str, enforce: LevelVersion) -> Vec<String> {
        let all = call.core.cache.resource(Pod::ROW).list(&Filter::everything(Pod::ROW, name));
        let pods = prioritized(all, &self.exemptions);
        let total = pods.len();
        let started = clock::monotonic();
        let mut checked = 0;
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in pods.iter().take(MAX_PODS) {
            if started.elapsed() > MAX_TIME {
                break;
            }
            checked += 1;
            if checked % BATCH == 0 {
                tokio::task::yield_now().await;
            }
            let Ok(pod) = Pod::decode(&pod.json) else { continue };
            let Some(spec) = &pod.spec else { continue };
            let annotations = pod.metadata.annotations.as_ref();
            let violations = violations(enforce, &Subject { annotations, spec });
            if !violations.is_empty() {
                let names = found.entry(reasons(&violations)).or_default();
                names.insert(pod.metadata.name.clone().unwrap_or_default());
            }
        }
        warnings(name, enforce, &found, (checked, total))
    }
}

/// The pods that are not exempt: of each controller's pods one first, then the others.
fn prioritized(pods: Vec<Arc<Version>>, exemptions: &Exemptions) -> Vec<Arc<Version>> {
    let mut seen = BTreeSet::new();
    let (mut first, mut alike) = (Vec::new(), Vec::new());
    for pod in pods {
        let class = scan::at_path(&pod.json, "spec.runtimeClassName").map(scan::scalar);
        if class.is_some_and(|class| exemptions.runtime_classes.contains(&class)) {
            continue;
        }
        let owners: Vec<OwnerReference> = scan::at_path(&pod.json, "metadata.ownerReferences")
            .and_then(|owners| serde_json::from_slice(owners).ok())
            .unwrap_or_default();
        match owners.into_iter().find(|owner| owner.controller == Some(true)) {
            Some(owner) if !seen.insert(owner.uid.clone()) => alike.push(pod),
            _ => first.push(pod),
        }
    }
    first.append(&mut alike);
    first
}

fn warnings(
    namespace: &str,
    enforce: LevelVersion,
    found: &BTreeMap<String, BTreeSet<String>>,
    (checked, total): (usize, usize),
) -> Vec<String> {
    let mut all = Vec::new();
    if checked < total {
        all.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        all.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut of_pods: Vec<String> = found
        .iter()
        .map(|(reasons, names)| {
            let first = names.first().map(String::as_str).unwrap_or_default();
            match names.len() {
                0 | 1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                count => format!("{first} (and {} other pods): {reasons}", count - 1),
            }
        })
        .collect();
    of_pods.sort();
    all.append(&mut of_pods);
    all
}
