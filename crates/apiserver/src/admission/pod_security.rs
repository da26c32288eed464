//! PodSecurity: the Pod Security Standards that a namespace's labels ask for
//! (`k8s.io/pod-security-admission/admission`).
//!
//! Pods that violate the enforced level are refused; violations of the level to warn about are
//! returned as warnings, for templates in workloads as well; those of the level to audit are logged.
//! All are counted in the metrics.

pub mod checks;
pub(super) mod configuration;
mod namespace;
pub mod policy;

use std::collections::BTreeMap;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
};
use serde::Deserialize;

use self::checks::{Subject, Violation, details, violations};
use self::policy::{Level, LevelVersion, Mode, Policy};
use super::attributes::Attributes;
use super::plugin::Admitted;
use super::subject::View;
use crate::core::Call;
use crate::metrics::PodSecurityLabels;
use crate::scan;

const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Whom the standards do not apply to.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exemptions {
    pub usernames: Vec<String>,
    pub runtime_classes: Vec<String>,
    pub namespaces: Vec<String>,
}

/// The plugin and its configuration.
#[derive(Debug, Default)]
pub struct PodSecurity {
    /// The policy of a namespace without labels.
    pub defaults: Policy,
    pub exemptions: Exemptions,
}

/// Checks a namespace, a pod or a workload that is created or updated; leaves warnings.
///
/// # Errors
/// 403 for a pod that violates the enforced level, 422 for labels that are not valid.
pub async fn check(
    attributes: &Attributes<'_>,
    view: &dyn View,
    admitted: &mut Admitted,
) -> Result<(), ApiError> {
    if let Some(object) = view.object() {
        let plugin = &attributes.call.core.admission.settings.pod_security;
        admitted.warnings.extend(plugin.check(attributes, object).await?);
    }
    Ok(())
}

impl PodSecurity {
    async fn check(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<Vec<String>, ApiError> {
        let (call, old) = (attributes.call, attributes.old_object());
        let subresource = attributes.subresource;
        if let Some(namespace) = object.downcast_ref::<Namespace>() {
            let old = old.and_then(|old| old.downcast_ref::<Namespace>());
            return match subresource {
                "" => self.check_namespace(call, namespace, old).await,
                _ => Ok(Vec::new()),
            };
        }
        if let Some(pod) = object.downcast_ref::<Pod>() {
            let old = old.and_then(|old| old.downcast_ref::<Pod>());
            let same = || old.is_some_and(|old| !is_significant(pod, old));
            let Some(spec) = pod.spec.as_ref().filter(|_| subresource != "status" && !same())
            else {
                return Ok(Vec::new());
            };
            let annotations = pod.metadata.annotations.as_ref();
            return self.evaluate(call, object, Subject { annotations, spec }, true).await;
        }
        let Some(template) = template(object).filter(|_| subresource.is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(spec) = &template.spec else {
            return Ok(Vec::new());
        };
        let metadata = template.metadata.as_ref();
        let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
        self.evaluate(call, object, Subject { annotations, spec }, false).await
    }

    /// Checks what a pod's or a template's namespace asks for; a template is never refused.
    async fn evaluate(
        &self,
        call: Call<'_>,
        object: &dyn Object,
        subject: Subject<'_>,
        is_pod: bool,
    ) -> Result<Vec<String>, ApiError> {
        let counters = &call.core.metrics.pod_security;
        let labels = PodSecurityLabels::new(call, if is_pod { "pod" } else { "controller" });
        let Exemptions { usernames, runtime_classes, namespaces } = &self.exemptions;
        if namespaces.contains(&call.target.namespace) || usernames.contains(&call.user.name) {
            counters.exempt(&labels);
            let by_name = namespaces.contains(&call.target.namespace);
            call.options.trail.annotate(EXEMPT, if by_name { "namespace" } else { "user" });
            return Ok(Vec::new());
        }
        let (policy, problems) = self.policy(call).await?;
        let mut modes = policy::MODES.into_iter().filter(|mode| is_pod || *mode != Mode::Enforce);
        let asked = modes.any(|mode| policy.of(mode).level != Level::Privileged);
        if problems.is_empty() && !asked {
            return Ok(Vec::new());
        }
        let class = subject.spec.runtime_class_name.as_ref();
        if class.is_some_and(|class| runtime_classes.contains(class)) {
            counters.exempt(&labels);
            call.options.trail.annotate(EXEMPT, "runtimeClass");
            return Ok(Vec::new());
        }
        if !problems.is_empty() {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let why = format!("Failed to parse policy: {}", texts.join(", "));
            call.options.trail.annotate(ERROR, why);
            counters.error(&labels);
        }
        let name = object.metadata().name.as_deref().unwrap_or_default();
        let mut results = Results { subject, known: Vec::new() };
        let mut refusal = None;
        if is_pod {
            let found = results.of(policy.enforce);
            counters.evaluated(&labels, Mode::Enforce, policy.enforce, found.is_empty());
            call.options.trail.annotate(ENFORCED, policy.enforce.to_string());
            if !found.is_empty() {
                let why = details(found);
                refusal = Some(format!("violates PodSecurity \"{}\": {why}", policy.enforce));
            }
        }
        let found = results.of(policy.audit);
        if !found.is_empty() {
            counters.evaluated(&labels, Mode::Audit, policy.audit, false);
            audit(call, policy.audit, found, name);
        }
        if let Some(refusal) = refusal {
            return Err(ApiError::forbidden(call.row(), name, refusal));
        }
        let found = results.of(policy.warn);
        if found.is_empty() {
            return Ok(Vec::new());
        }
        counters.evaluated(&labels, Mode::Warn, policy.warn, false);
        Ok(vec![format!("would violate PodSecurity \"{}\": {}", policy.warn, details(found))])
    }

    /// The policy of the target's namespace, and what is wrong with its labels.
    async fn policy(
        &self,
        call: Call<'_>,
    ) -> Result<(Policy, Vec<api::status::FieldError>), ApiError> {
        let name = &call.target.namespace;
        let Some(namespace) = call.core.find(Namespace::ROW, name).await? else {
            return Err(ApiError::not_found(Namespace::ROW, name));
        };
        let labels: Option<BTreeMap<String, String>> =
            scan::at_path(&namespace.json, "metadata.labels")
                .and_then(|labels| serde_json::from_slice(labels).ok());
        Ok(Policy::of_labels(labels.as_ref(), &self.defaults))
    }
}

/// The violations of each level and version, computed once.
struct Results<'a> {
    subject: Subject<'a>,
    known: Vec<(LevelVersion, Vec<Violation>)>,
}

impl Results<'_> {
    fn of(&mut self, policy: LevelVersion) -> &[Violation] {
        let at = self.known.iter().position(|(known, _)| *known == policy);
        let at = at.unwrap_or_else(|| {
            self.known.push((policy, violations(policy, &self.subject)));
            self.known.len() - 1
        });
        &self.known[at].1
    }
}

/// Tells of what would violate the level to audit: in the audit log, or else in the server's own.
fn audit(call: Call<'_>, policy: LevelVersion, found: &[Violation], name: &str) {
    let why = format!("would violate PodSecurity \"{policy}\": {}", details(found));
    if call.options.trail.is_kept() {
        return call.options.trail.annotate(VIOLATIONS, why);
    }
    tracing::info!(
        resource = &*call.row().plural,
        namespace = call.target.namespace,
        name,
        user = call.user.name,
        "{why}"
    );
}

/// Audit annotations (upstream's).
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";
const ERROR: &str = "pod-security.kubernetes.io/error";

/// The pods that a workload will have.
fn template(object: &dyn Object) -> Option<&PodTemplateSpec> {
    let apps = object
        .downcast_ref::<Deployment>()
        .map(|own| &own.spec.template)
        .or_else(|| Some(&object.downcast_ref::<StatefulSet>()?.spec.template))
        .or_else(|| Some(&object.downcast_ref::<DaemonSet>()?.spec.template))
        .or_else(|| object.downcast_ref::<ReplicaSet>()?.spec.template.as_ref());
    apps.or_else(|| Some(&object.downcast_ref::<Job>()?.spec.as_ref()?.template))
        .or_else(|| {
            let jobs = &object.downcast_ref::<CronJob>()?.spec.job_template;
            Some(&jobs.spec.as_ref()?.template)
        })
        .or_else(|| {
            object.downcast_ref::<ReplicationController>()?.spec.as_ref()?.template.as_ref()
        })
        .or_else(|| object.downcast_ref::<PodTemplate>()?.template.as_ref())
}

/// Whether an update changes what may be checked anew: images, containers, seccomp annotations.
fn is_significant(new: &Pod, old: &Pod) -> bool {
    let annotation = |pod: &Pod, key: &str| {
        pod.metadata.annotations.as_ref().and_then(|all| all.get(key).cloned())
    };
    let differs = |key: &str| annotation(new, key) != annotation(old, key);
    let none = PodSpec::default();
    let (spec, was) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let init = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
    if differs(SECCOMP) || spec.containers.len() != was.containers.len() || init(spec) != init(was)
    {
        return true;
    }
    let pairs = spec.containers.iter().zip(&was.containers);
    let inits = spec.init_containers.iter().flatten().zip(was.init_containers.iter().flatten());
    let ephemeral: BTreeMap<&str, _> = was
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| (container.name.as_str(), container))
        .collect();
    let changed = |name: &str, images: (&Option<String>, &Option<String>)| {
        images.0 != images.1 || differs(&format!("{SECCOMP_CONTAINER}{name}"))
    };
    pairs.chain(inits).any(|(new, old)| changed(&new.name, (&new.image, &old.image)))
        || spec.ephemeral_containers.iter().flatten().any(|new| {
            let before = ephemeral.get(new.name.as_str());
            before.is_none_or(|old| changed(&new.name, (&new.image, &old.image)))
        })
}

#[cfg(test)]
mod tests;
