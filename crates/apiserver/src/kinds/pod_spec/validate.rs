//! Validation of a pod's spec as a whole (`ValidatePodSpec`).

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

use super::containers::{self, PodContext};
use super::resources::{self, Owner};
use super::{affinity, scheduling, security};
use crate::kinds::at::At;
use crate::kinds::check::{self, Unique};
use crate::kinds::volumes;

/// A template: labels, annotations and spec.
pub fn template(template: &PodTemplateSpec, at: &At<'_>) {
    template_metadata(template, at);
    let none = PodSpec::default();
    let pod = template.spec.as_ref().unwrap_or(&none);
    let at = at.child("spec");
    spec(pod, false, &at);
    if pod.ephemeral_containers.iter().flatten().next().is_some() {
        at.child("ephemeralContainers")
            .forbidden("ephemeral containers not allowed in pod template");
    }
}

/// A template's labels and annotations.
pub fn template_metadata(template: &PodTemplateSpec, at: &At<'_>) {
    let Some(metadata) = &template.metadata else {
        return;
    };
    at.child("labels").labels(metadata.labels.as_ref());
    at.child("annotations").annotations(metadata.annotations.as_ref());
}

/// `pod` is true for a Pod's own spec, false for a template's.
pub fn spec(spec: &PodSpec, pod: bool, at: &At<'_>) {
    if spec.termination_grace_period_seconds.is_none() {
        at.child("terminationGracePeriodSeconds").required("");
    }
    let volume_list = spec.volumes.as_deref().unwrap_or_default();
    volumes::validate::all(volume_list, &at.child("volumes"));
    let context = PodContext {
        spec,
        volumes: volume_list.iter().map(|volume| (volume.name.as_str(), volume)).collect(),
        host_users: spec.host_users != Some(false),
        pod,
    };
    claims(spec, &at.child("resourceClaims"));
    containers::regular(&context, &at.child("containers"));
    containers::init(&context, &at.child("initContainers"));
    containers::ephemeral(&context, &at.child("ephemeralContainers"));
    pod_resources(spec, &at.child("resources"));
    host_network(spec, pod, at);
    policies(spec, at);
    at.child("nodeSelector").labels(spec.node_selector.as_ref());
    if let Some(context) = &spec.security_context {
        security::pod(context, spec, &at.child("securityContext"));
    }
    affinity::validate(spec.affinity.as_ref(), &at.child("affinity"));
    let policy = check::text(&spec.dns_policy);
    scheduling::dns(spec.dns_config.as_ref(), policy, &at.child("dnsConfig"));
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        at.item("readinessGates", index)
            .child("conditionType")
            .qualified_name(&gate.condition_type);
    }
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    scheduling::gates(gates, &at.child("schedulingGates"));
    let spread = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    affinity::spread(spread, &at.child("topologySpreadConstraints"));
    host_users(spec, at);
    names(spec, at);
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    scheduling::tolerations(tolerations, &at.child("tolerations"));
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    scheduling::host_aliases(aliases, &at.child("hostAliases"));
    for (name, amount) in spec.overhead.iter().flatten() {
        resources::quantity(name, amount, &at.entry("overhead", name));
    }
}

fn claims(spec: &PodSpec, at: &At<'_>) {
    let mut seen = Unique::default();
    for (index, claim) in spec.resource_claims.iter().flatten().enumerate() {
        let at = at.index(index);
        if claim.name.is_empty() {
            at.child("name").required("");
        } else if seen.add(&claim.name, &at.child("name")) {
            at.child("name").dns_label(&claim.name);
        }
        let problem = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => continue,
        };
        at.invalid(&claim.name, problem);
    }
}

fn pod_resources(spec: &PodSpec, at: &At<'_>) {
    let Some(own) = &spec.resources else { return };
    if own.claims.is_some() {
        at.child("claims").forbidden("claims cannot be set for Resources at pod-level");
    }
    resources::validate(Some(own), Owner::Pod, at);
    let mut alone = spec.clone();
    (alone.resources, alone.overhead) = (None, None);
    for (name, asked) in api::pod::resources(&alone, api::pod::Side::Requests) {
        let given = own.requests.as_ref().and_then(|requests| requests.get(&name));
        let given = given.map(api::quantity::Quantity::of).unwrap_or_default();
        if asked > given && matches!(name.as_str(), "cpu" | "memory") {
            let problem =
                format!("must be greater than or equal to aggregate container requests of {asked}");
            at.entry("requests", &name).invalid(given.to_string(), problem);
        }
    }
}

fn host_network(spec: &PodSpec, pod: bool, at: &At<'_>) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        for (port_index, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if (pod || host_port != 0) && host_port != port.container_port {
                let at = at.item("containers", index);
                let at = at.item("ports", port_index);
                at.child("hostPort")
                    .invalid(host_port, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn policies(spec: &PodSpec, at: &At<'_>) {
    at.child("restartPolicy")
        .one_of(check::text(&spec.restart_policy), &["Always", "OnFailure", "Never"]);
    at.child("dnsPolicy").one_of(
        check::text(&spec.dns_policy),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    at.child("preemptionPolicy")
        .one_of_or_unset(&spec.preemption_policy, &["PreemptLowerPriority", "Never"]);
    if let Some(os) = &spec.os {
        at.child("os.name").one_of(&os.name, &["linux", "windows"]);
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        at.child("activeDeadlineSeconds").in_range(seconds, 1, i32::MAX.into());
    }
}

fn host_users(spec: &PodSpec, at: &At<'_>) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [
        ("hostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ];
    for (field, _) in shared.into_iter().filter(|(_, set)| *set == Some(true)) {
        at.child(field).forbidden("when `pod.Spec.HostUsers` is false");
    }
}

fn names(spec: &PodSpec, at: &At<'_>) {
    let subdomains = [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, name) in subdomains {
        if !check::text(name).is_empty() {
            at.child(field).dns_subdomain(check::text(name));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !check::text(name).is_empty() {
            at.child(field).dns_label(check::text(name));
        }
    }
}
