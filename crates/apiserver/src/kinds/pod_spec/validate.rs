//! Validation of a pod's spec as a whole (`ValidatePodSpec`).

use api::status::FieldError;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

use super::containers::{self, PodContext};
use super::resources::{self, Owner};
use super::{affinity, scheduling, security};
use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;
use crate::kinds::volumes;

/// A template: labels, annotations and spec.
pub fn template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    template_metadata(template, path, errors);
    let none = PodSpec::default();
    let pod = template.spec.as_ref().unwrap_or(&none);
    let path = path.child("spec");
    spec(pod, false, &path, errors);
    if pod.ephemeral_containers.iter().flatten().next().is_some() {
        let problem = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(path.child("ephemeralContainers"), problem));
    }
}

/// A template's labels and annotations.
pub fn template_metadata(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let Some(metadata) = &template.metadata else {
        return;
    };
    check::labels(metadata.labels.as_ref(), &path.child("labels"), errors);
    check::annotations(metadata.annotations.as_ref(), &path.child("annotations"), errors);
}

/// `pod` is true for a Pod's own spec, false for a template's.
pub fn spec(spec: &PodSpec, pod: bool, path: &Path, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let volume_list = spec.volumes.as_deref().unwrap_or_default();
    volumes::validate::all(volume_list, &path.child("volumes"), errors);
    let context = PodContext {
        spec,
        volumes: volume_list.iter().map(|volume| (volume.name.as_str(), volume)).collect(),
        host_users: spec.host_users != Some(false),
        pod,
    };
    claims(spec, &path.child("resourceClaims"), errors);
    containers::regular(&context, &path.child("containers"), errors);
    containers::init(&context, &path.child("initContainers"), errors);
    containers::ephemeral(&context, &path.child("ephemeralContainers"), errors);
    pod_resources(spec, &path.child("resources"), errors);
    host_network(spec, pod, path, errors);
    policies(spec, path, errors);
    check::labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    if let Some(context) = &spec.security_context {
        security::pod(context, spec, &path.child("securityContext"), errors);
    }
    affinity::validate(spec.affinity.as_ref(), &path.child("affinity"), errors);
    let policy = check::text(&spec.dns_policy);
    scheduling::dns(spec.dns_config.as_ref(), policy, &path.child("dnsConfig"), errors);
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(index).child("conditionType");
        check::qualified_name(&gate.condition_type, &path, errors);
    }
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    scheduling::gates(gates, &path.child("schedulingGates"), errors);
    let spread = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    affinity::spread(spread, &path.child("topologySpreadConstraints"), errors);
    host_users(spec, path, errors);
    names(spec, path, errors);
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    scheduling::tolerations(tolerations, &path.child("tolerations"), errors);
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    scheduling::host_aliases(aliases, &path.child("hostAliases"), errors);
    for (name, amount) in spec.overhead.iter().flatten() {
        resources::quantity(name, amount, &path.child("overhead").key(name), errors);
    }
}

fn claims(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut seen = Unique::default();
    for (index, claim) in spec.resource_claims.iter().flatten().enumerate() {
        let path = path.index(index);
        if claim.name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if seen.insert(&claim.name, &path.child("name"), errors) {
            check::dns_label(&claim.name, &path.child("name"), errors);
        }
        let problem = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => continue,
        };
        errors.push(FieldError::invalid(&path, &claim.name, problem));
    }
}

fn pod_resources(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(own) = &spec.resources else { return };
    if own.claims.is_some() {
        let problem = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(path.child("claims"), problem));
    }
    resources::validate(Some(own), Owner::Pod, path, errors);
    let mut alone = spec.clone();
    (alone.resources, alone.overhead) = (None, None);
    for (name, asked) in api::pod::resources(&alone, api::pod::Side::Requests) {
        let given = own.requests.as_ref().and_then(|requests| requests.get(&name));
        let given = given.map(api::quantity::Quantity::of).unwrap_or_default();
        if asked > given && matches!(name.as_str(), "cpu" | "memory") {
            let problem =
                format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.push(FieldError::invalid(
                path.child("requests").key(&name),
                given.to_string(),
                problem,
            ));
        }
    }
}

fn host_network(spec: &PodSpec, pod: bool, path: &Path, errors: &mut Errors) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        for (port_index, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if (pod || host_port != 0) && host_port != port.container_port {
                let path = path.child("containers").index(index).child("ports").index(port_index);
                let problem = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(path.child("hostPort"), host_port, problem));
            }
        }
    }
}

fn policies(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    check::one_of(
        check::text(&spec.restart_policy),
        &["Always", "OnFailure", "Never"],
        &path.child("restartPolicy"),
        errors,
    );
    check::one_of(
        check::text(&spec.dns_policy),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        &path.child("dnsPolicy"),
        errors,
    );
    check::one_of_or_unset(
        &spec.preemption_policy,
        &["PreemptLowerPriority", "Never"],
        &path.child("preemptionPolicy"),
        errors,
    );
    if let Some(os) = &spec.os {
        check::one_of(&os.name, &["linux", "windows"], &path.child("os").child("name"), errors);
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        check::in_range(seconds, 1, i32::MAX.into(), &path.child("activeDeadlineSeconds"), errors);
    }
}

fn host_users(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [
        ("hostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ];
    for (field, _) in shared.into_iter().filter(|(_, set)| *set == Some(true)) {
        errors.push(FieldError::forbidden(path.child(field), "when `pod.Spec.HostUsers` is false"));
    }
}

fn names(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let subdomains = [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, name) in subdomains {
        if !check::text(name).is_empty() {
            check::dns_subdomain(check::text(name), &path.child(field), errors);
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !check::text(name).is_empty() {
            check::dns_label(check::text(name), &path.child(field), errors);
        }
    }
}
