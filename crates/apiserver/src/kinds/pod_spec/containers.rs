//! Containers: regular, init and ephemeral.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, PodSpec, Volume, VolumeDevice, VolumeMount,
};

use super::handlers::{self, ProbeKind};
use super::resources::{self, Owner};
use super::{env, security};
use crate::kinds::at::At;
use crate::kinds::check::{self, Unique};

/// What containers are validated against.
pub struct PodContext<'a> {
    pub spec: &'a PodSpec,
    pub volumes: BTreeMap<&'a str, &'a Volume>,
    /// The pod uses the host's user namespace.
    pub host_users: bool,
    /// A Pod, not a template.
    pub pod: bool,
}

pub fn regular(context: &PodContext<'_>, at: &At<'_>) {
    let containers = &context.spec.containers;
    if containers.is_empty() {
        at.required("");
    }
    let mut names = Unique::default();
    for (index, container) in containers.iter().enumerate() {
        let at = at.index(index);
        shared(container, context, &at);
        names.add(&container.name, &at.child("name"));
        running(container, context, &at);
        if let Some(policy) = &container.restart_policy {
            at.child("restartPolicy").one_of(policy, &["Always", "Never", "OnFailure"]);
        }
    }
    host_ports(containers.iter(), at);
}

pub fn init(context: &PodContext<'_>, at: &At<'_>) {
    let mut names = Unique::default();
    for container in &context.spec.containers {
        names.is_new(&container.name);
    }
    for (index, container) in context.spec.init_containers.iter().flatten().enumerate() {
        let at = at.index(index);
        shared(container, context, &at);
        if !container.name.is_empty() {
            names.add(&container.name, &at.child("name"));
        }
        if let Some(policy) = &container.restart_policy {
            at.child("restartPolicy").one_of(policy, &["Always", "Never", "OnFailure"]);
        }
        host_ports(std::iter::once(container), &at);
        if api::pod::is_sidecar(container) {
            running(container, context, &at);
            continue;
        }
        let set = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            at.child(field)
                .forbidden("may not be set for init containers without restartPolicy=Always");
        }
    }
}

/// Lifecycle hooks and probes.
fn running(container: &Container, context: &PodContext<'_>, at: &At<'_>) {
    if let Some(lifecycle) = &container.lifecycle {
        let grace = context.spec.termination_grace_period_seconds;
        handlers::lifecycle(lifecycle, grace, &at.child("lifecycle"));
    }
    let probes = [
        ("livenessProbe", &container.liveness_probe, ProbeKind::Liveness),
        ("readinessProbe", &container.readiness_probe, ProbeKind::Readiness),
        ("startupProbe", &container.startup_probe, ProbeKind::Startup),
    ];
    for (field, probe, kind) in probes {
        handlers::probe(probe.as_ref(), kind, &at.child(field));
    }
}

/// Checks that apply to every type of container.
fn shared(container: &Container, context: &PodContext<'_>, at: &At<'_>) {
    let name_path = at.child("name");
    if container.name.is_empty() {
        name_path.required("");
    } else {
        name_path.dns_label(&container.name);
    }
    let image = check::text(&container.image);
    at.child("image").not_empty(image);
    if context.pod && image.trim() != image {
        at.child("image").invalid(image, "must not have leading or trailing whitespace");
    }
    at.child("terminationMessagePolicy").one_of(
        check::text(&container.termination_message_policy),
        &["FallbackToLogsOnError", "File"],
    );
    ports(container.ports.as_deref().unwrap_or_default(), &at.child("ports"));
    env::validate(container.env.as_deref().unwrap_or_default(), &at.child("env"));
    env::validate_from(container.env_from.as_deref().unwrap_or_default(), &at.child("envFrom"));
    mounts(container, context, &at.child("volumeMounts"));
    devices(container, context, &at.child("volumeDevices"));
    at.child("imagePullPolicy")
        .one_of(check::text(&container.image_pull_policy), &["Always", "IfNotPresent", "Never"]);
    resources::validate(container.resources.as_ref(), Owner::Container, &at.child("resources"));
    resources::resize_policy(
        container.resize_policy.as_deref().unwrap_or_default(),
        check::text(&context.spec.restart_policy),
        &at.child("resizePolicy"),
    );
    let security = container.security_context.as_ref();
    security::container(security, context.host_users, &at.child("securityContext"));
}

fn ports(ports: &[ContainerPort], at: &At<'_>) {
    let mut names = Unique::default();
    for (index, port) in ports.iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let problems = check::port_name(name);
            if problems.is_empty() {
                names.add(name, &at.child("name"));
            }
            at.child("name").texts(problems, name);
        }
        if port.container_port == 0 {
            at.child("containerPort").required("");
        } else {
            at.child("containerPort").port_number(port.container_port);
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            at.child("hostPort").port_number(number);
        }
        at.child("protocol").one_of(check::text(&port.protocol), check::PROTOCOLS);
    }
}

fn host_ports<'a>(containers: impl Iterator<Item = &'a Container>, at: &At<'_>) {
    let mut seen = Unique::default();
    for (index, container) in containers.enumerate() {
        for (port_index, port) in container.ports.iter().flatten().enumerate() {
            if let Some(number) = port.host_port.filter(|number| *number != 0) {
                let (protocol, ip) = (check::text(&port.protocol), check::text(&port.host_ip));
                let at = at.part(index, "ports");
                seen.add(&format!("{protocol}/{ip}/{number}"), &at.part(port_index, "hostPort"));
            }
        }
    }
}

fn mounts(container: &Container, context: &PodContext<'_>, at: &At<'_>) {
    let mut points: Vec<&str> = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let own = at.index(index);
        own.child("name").not_empty(&mount.name);
        if !context.volumes.contains_key(mount.name.as_str()) {
            own.child("name").not_found(&mount.name);
        }
        own.child("mountPath").not_empty(&mount.mount_path);
        if points.contains(&mount.mount_path.as_str()) {
            own.child("mountPath").invalid(&mount.mount_path, "must be unique");
        }
        points.push(&mount.mount_path);
        for device in container.volume_devices.iter().flatten() {
            if device.name == mount.name {
                own.child("name").invalid(&mount.name, "must not already exist in volumeDevices");
            }
            if device.device_path == mount.mount_path {
                own.child("mountPath").invalid(
                    &mount.mount_path,
                    "must not already exist as a path in volumeDevices",
                );
            }
        }
        sub_paths(mount, &own, at);
        propagation(mount, container, at);
    }
}

fn sub_paths(mount: &VolumeMount, own: &At<'_>, list: &At<'_>) {
    let (sub_path, expression) = (check::text(&mount.sub_path), check::text(&mount.sub_path_expr));
    // Upstream reports the list in these two, not the element.
    if !sub_path.is_empty() {
        list.child("subPath").local_descending_path(sub_path);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            own.child("subPathExpr")
                .invalid(expression, "subPathExpr and subPath are mutually exclusive");
        }
        list.child("subPathExpr").local_descending_path(expression);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, at: &At<'_>) {
    const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let privileged =
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
    if let Some(mode) = &mount.mount_propagation {
        let at = at.child("mountPropagation");
        if !MODES.contains(&mode.as_str()) {
            at.not_supported(mode, MODES);
        }
        if mode == "Bidirectional" && !privileged {
            at.forbidden(
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
    let Some(mode) = &mount.recursive_read_only else {
        return;
    };
    let at = at.child("recursiveReadOnly");
    match mode.as_str() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if mount.read_only != Some(true) {
                at.forbidden("may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                at.forbidden(
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        other => at.not_supported(other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Container, context: &PodContext<'_>, at: &At<'_>) {
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, VolumeDevice { device_path, name }) in
        container.volume_devices.iter().flatten().enumerate()
    {
        let own = at.index(index);
        own.child("name").not_empty(name);
        if names.contains(&name.as_str()) {
            own.child("name").invalid(name, "must be unique");
        }
        match context.volumes.get(name.as_str()) {
            None => own.child("name").not_found(name),
            Some(volume)
                if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() =>
            {
                own.child("name").invalid(name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) => {}
        }
        own.child("devicePath").not_empty(device_path);
        if paths.contains(&device_path.as_str()) {
            own.child("devicePath").invalid(device_path, "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            own.child("devicePath").invalid(device_path, "can not contain backsteps ('..')");
        }
        names.push(name);
        paths.push(device_path);
    }
}

pub fn ephemeral(context: &PodContext<'_>, at: &At<'_>) {
    let spec = context.spec;
    let others: Vec<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.name.as_str())
        .collect();
    let mut names = Unique::default();
    for name in &others {
        names.is_new(name);
    }
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = at.index(index);
        shared(&as_container(container), context, &at);
        names.add(&container.name, &at.child("name"));
        let target = check::text(&container.target_container_name);
        if !target.is_empty() && !others.contains(&target) {
            at.child("targetContainerName").not_found(target);
        }
        let set = [
            ("ports", container.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            (
                "resources",
                container
                    .resources
                    .as_ref()
                    .is_some_and(|resources| *resources != Default::default()),
            ),
            (
                "resizePolicy",
                container.resize_policy.as_ref().is_some_and(|policy| !policy.is_empty()),
            ),
            ("restartPolicy", container.restart_policy.is_some()),
        ];
        let problem = "cannot be set for an Ephemeral Container";
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            at.child(field).forbidden(problem);
        }
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let at = at.item("volumeMounts", index);
            if !check::text(&mount.sub_path).is_empty() {
                at.child("subPath").forbidden(problem);
            }
            if !check::text(&mount.sub_path_expr).is_empty() {
                at.child("subPathExpr").forbidden(problem);
            }
        }
    }
}

fn as_container(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        name: container.name,
        image: container.image,
        termination_message_policy: container.termination_message_policy,
        env: container.env,
        env_from: container.env_from,
        volume_mounts: container.volume_mounts,
        volume_devices: container.volume_devices,
        image_pull_policy: container.image_pull_policy,
        security_context: container.security_context,
        ..Container::default()
    }
}
