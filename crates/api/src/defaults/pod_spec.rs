//! Defaults of a pod's spec (`pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements,
};

use super::{fill, volume};

/// Defaults of a template: those of every pod spec.
pub fn template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    spec(template.spec.get_or_insert_default());
}

/// Defaults of every pod spec, in a Pod or in a template.
pub fn spec(spec: &mut PodSpec) {
    fill::text(&mut spec.dns_policy, "ClusterFirst");
    fill::text(&mut spec.restart_policy, "Always");
    spec.security_context.get_or_insert_default();
    fill::missing(&mut spec.termination_grace_period_seconds, 30i64);
    fill::text(&mut spec.scheduler_name, "default-scheduler");
    service_account(spec);
    fill::amounts(&mut spec.overhead);
    resources(&mut spec.resources);
    spec.containers.iter_mut().for_each(container);
    spec.init_containers.iter_mut().flatten().for_each(container);
    spec.ephemeral_containers.iter_mut().flatten().for_each(ephemeral);
    spec.volumes.iter_mut().flatten().for_each(volume::volume);
}

/// Defaults of a Pod only, not of a template.
pub fn pod(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        requests_from_limits(container);
        if host_network {
            for port in container.ports.iter_mut().flatten() {
                fill::nonzero(&mut port.host_port, port.container_port);
            }
        }
    }
    fill::missing(&mut spec.enable_service_links, true);
    pod_level_requests(spec);
}

/// `serviceAccount` is the deprecated name of `serviceAccountName`; both are always equal.
fn service_account(spec: &mut PodSpec) {
    let name = spec.service_account_name.take().filter(|name| !name.is_empty());
    let name = name.or_else(|| spec.service_account.take().filter(|name| !name.is_empty()));
    spec.service_account.clone_from(&name);
    spec.service_account_name = name;
}

/// `Always` for the tag `latest` or none; an image with a digest has no tag.
pub fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let (name, digest) =
        name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    match name.split_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        None if digest.is_some() => "IfNotPresent",
        _ => "Always",
    }
}

fn container(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    fill::text(&mut container.image_pull_policy, pull_policy(image));
    fill::text(&mut container.termination_message_path, "/dev/termination-log");
    fill::text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        fill::text(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(env);
    fill::missing(&mut container.resources, ResourceRequirements::default());
    resources(&mut container.resources);
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    container.lifecycle.iter_mut().for_each(lifecycle);
}

fn ephemeral(container: &mut EphemeralContainer) {
    let image = container.image.as_deref().unwrap_or_default();
    fill::text(&mut container.image_pull_policy, pull_policy(image));
    fill::text(&mut container.termination_message_path, "/dev/termination-log");
    fill::text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        fill::text(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(env);
    fill::missing(&mut container.resources, ResourceRequirements::default());
    resources(&mut container.resources);
}

fn env(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else {
        return;
    };
    if let Some(field) = &mut source.field_ref {
        fill::text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        fill::missing(&mut resource.divisor, volume::zero());
        fill::amount(&mut resource.divisor);
    }
    if let Some(file) = &mut source.file_key_ref {
        fill::missing(&mut file.optional, false);
    }
}

fn resources(resources: &mut Option<ResourceRequirements>) {
    if let Some(resources) = resources {
        fill::amounts(&mut resources.limits);
        fill::amounts(&mut resources.requests);
    }
}

fn probe(probe: &mut Probe) {
    fill::nonzero(&mut probe.timeout_seconds, 1);
    fill::nonzero(&mut probe.period_seconds, 10);
    fill::nonzero(&mut probe.success_threshold, 1);
    fill::nonzero(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        fill::missing(&mut grpc.service, "");
    }
}

fn lifecycle(lifecycle: &mut Lifecycle) {
    let http = |handler: &mut LifecycleHandler| handler.http_get.iter_mut().for_each(http_get);
    lifecycle.post_start.iter_mut().for_each(http);
    lifecycle.pre_stop.iter_mut().for_each(http);
}

fn http_get(action: &mut HTTPGetAction) {
    fill::text(&mut action.path, "/");
    fill::text(&mut action.scheme, "HTTP");
}

fn requests_from_limits(container: &mut Container) {
    let Some(resources) = &mut container.resources else {
        return;
    };
    let Some(limits) = &resources.limits else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, amount) in limits {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

/// Pod-level requests that are unset: the sum of the containers' requests, or else the pod-level
/// limit.
fn pod_level_requests(spec: &mut PodSpec) {
    let Some(resources) = &spec.resources else {
        return;
    };
    let limits = resources.limits.clone().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let supported =
        |name: &str| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
    let mut alone = spec.clone();
    (alone.resources, alone.overhead) = (None, None);
    let asked = crate::pod::resources(&alone, crate::pod::Side::Requests);
    let requests = spec.resources.get_or_insert_default().requests.get_or_insert_default();
    for (name, amount) in asked {
        if matches!(name.as_str(), "cpu" | "memory") {
            requests.entry(name).or_insert_with(|| amount.to_text());
        }
    }
    for (name, amount) in limits {
        if supported(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
}
