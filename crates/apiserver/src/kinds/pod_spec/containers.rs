//! Containers: regular, init and ephemeral.

use std::collections::BTreeMap;

use api::status::FieldError;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, PodSpec, Volume, VolumeDevice, VolumeMount,
};

use super::handlers::{self, ProbeKind};
use super::resources::{self, Owner};
use super::{env, security};
use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;

/// What containers are validated against.
pub struct PodContext<'a> {
    pub spec: &'a PodSpec,
    pub volumes: BTreeMap<&'a str, &'a Volume>,
    /// The pod uses the host's user namespace.
    pub host_users: bool,
    /// A Pod, not a template.
    pub pod: bool,
}

pub fn regular(context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    let containers = &context.spec.containers;
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let mut names = Unique::default();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        shared(container, context, &path, errors);
        names.insert(&container.name, &path.child("name"), errors);
        running(container, context, &path, errors);
        if let Some(policy) = &container.restart_policy {
            check::one_of(
                policy,
                &["Always", "Never", "OnFailure"],
                &path.child("restartPolicy"),
                errors,
            );
        }
    }
    host_ports(containers.iter(), path, errors);
}

pub fn init(context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    let mut names = Unique::default();
    for container in &context.spec.containers {
        names.insert(&container.name, path, &mut Errors::new());
    }
    for (index, container) in context.spec.init_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        shared(container, context, &path, errors);
        if !container.name.is_empty() {
            names.insert(&container.name, &path.child("name"), errors);
        }
        if let Some(policy) = &container.restart_policy {
            check::one_of(
                policy,
                &["Always", "Never", "OnFailure"],
                &path.child("restartPolicy"),
                errors,
            );
        }
        host_ports(std::iter::once(container), &path, errors);
        if api::pod::is_sidecar(container) {
            running(container, context, &path, errors);
            continue;
        }
        let set = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            let problem = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(path.child(field), problem));
        }
    }
}

/// Lifecycle hooks and probes.
fn running(container: &Container, context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    if let Some(lifecycle) = &container.lifecycle {
        let grace = context.spec.termination_grace_period_seconds;
        handlers::lifecycle(lifecycle, grace, &path.child("lifecycle"), errors);
    }
    let probes = [
        ("livenessProbe", &container.liveness_probe, ProbeKind::Liveness),
        ("readinessProbe", &container.readiness_probe, ProbeKind::Readiness),
        ("startupProbe", &container.startup_probe, ProbeKind::Startup),
    ];
    for (field, probe, kind) in probes {
        handlers::probe(probe.as_ref(), kind, &path.child(field), errors);
    }
}

/// Checks that apply to every type of container.
fn shared(container: &Container, context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    let name_path = path.child("name");
    if container.name.is_empty() {
        errors.push(FieldError::required(&name_path, ""));
    } else {
        check::dns_label(&container.name, &name_path, errors);
    }
    let image = check::text(&container.image);
    check::required(image, &path.child("image"), errors);
    if context.pod && image.trim() != image {
        let problem = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.child("image"), image, problem));
    }
    check::one_of(
        check::text(&container.termination_message_policy),
        &["FallbackToLogsOnError", "File"],
        &path.child("terminationMessagePolicy"),
        errors,
    );
    ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), errors);
    env::validate(container.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
    env::validate_from(
        container.env_from.as_deref().unwrap_or_default(),
        &path.child("envFrom"),
        errors,
    );
    mounts(container, context, &path.child("volumeMounts"), errors);
    devices(container, context, &path.child("volumeDevices"), errors);
    check::one_of(
        check::text(&container.image_pull_policy),
        &["Always", "IfNotPresent", "Never"],
        &path.child("imagePullPolicy"),
        errors,
    );
    resources::validate(
        container.resources.as_ref(),
        Owner::Container,
        &path.child("resources"),
        errors,
    );
    resources::resize_policy(
        container.resize_policy.as_deref().unwrap_or_default(),
        check::text(&context.spec.restart_policy),
        &path.child("resizePolicy"),
        errors,
    );
    let security = container.security_context.as_ref();
    security::container(security, context.host_users, &path.child("securityContext"), errors);
}

fn ports(ports: &[ContainerPort], path: &Path, errors: &mut Errors) {
    let mut names = Unique::default();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let problems = check::port_name(name);
            if problems.is_empty() {
                names.insert(name, &path.child("name"), errors);
            }
            check::invalid(problems, name, &path.child("name"), errors);
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            check::port_number(port.container_port, &path.child("containerPort"), errors);
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            check::port_number(number, &path.child("hostPort"), errors);
        }
        check::one_of(
            check::text(&port.protocol),
            check::PROTOCOLS,
            &path.child("protocol"),
            errors,
        );
    }
}

fn host_ports<'a>(
    containers: impl Iterator<Item = &'a Container>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = Unique::default();
    for (index, container) in containers.enumerate() {
        for (port_index, port) in container.ports.iter().flatten().enumerate() {
            if let Some(number) = port.host_port.filter(|number| *number != 0) {
                let text = format!(
                    "{}/{}/{number}",
                    check::text(&port.protocol),
                    check::text(&port.host_ip)
                );
                let path = path.index(index).child("ports").index(port_index).child("hostPort");
                seen.insert(&text, &path, errors);
            }
        }
    }
}

fn mounts(container: &Container, context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    let mut points: Vec<&str> = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let own = path.index(index);
        check::required(&mount.name, &own.child("name"), errors);
        if !context.volumes.contains_key(mount.name.as_str()) {
            errors.push(FieldError::not_found(own.child("name"), &mount.name));
        }
        check::required(&mount.mount_path, &own.child("mountPath"), errors);
        if points.contains(&mount.mount_path.as_str()) {
            errors.push(FieldError::invalid(
                own.child("mountPath"),
                &mount.mount_path,
                "must be unique",
            ));
        }
        points.push(&mount.mount_path);
        for device in container.volume_devices.iter().flatten() {
            if device.name == mount.name {
                let problem = "must not already exist in volumeDevices";
                errors.push(FieldError::invalid(own.child("name"), &mount.name, problem));
            }
            if device.device_path == mount.mount_path {
                let problem = "must not already exist as a path in volumeDevices";
                errors.push(FieldError::invalid(
                    own.child("mountPath"),
                    &mount.mount_path,
                    problem,
                ));
            }
        }
        sub_paths(mount, &own, path, errors);
        propagation(mount, container, path, errors);
    }
}

fn sub_paths(mount: &VolumeMount, own: &Path, list: &Path, errors: &mut Errors) {
    let (sub_path, expression) = (check::text(&mount.sub_path), check::text(&mount.sub_path_expr));
    // Upstream reports the list in these two, not the element.
    if !sub_path.is_empty() {
        check::local_descending_path(sub_path, &list.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let problem = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(own.child("subPathExpr"), expression, problem));
        }
        check::local_descending_path(expression, &list.child("subPathExpr"), errors);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut Errors) {
    const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let privileged =
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
    if let Some(mode) = &mount.mount_propagation {
        let path = path.child("mountPropagation");
        if !MODES.contains(&mode.as_str()) {
            errors.push(FieldError::not_supported(&path, mode, MODES));
        }
        if mode == "Bidirectional" && !privileged {
            let problem =
                "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(&path, problem));
        }
    }
    let Some(mode) = &mount.recursive_read_only else {
        return;
    };
    let path = path.child("recursiveReadOnly");
    match mode.as_str() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if mount.read_only != Some(true) {
                errors.push(FieldError::forbidden(
                    &path,
                    "may only be specified when readOnly is true",
                ));
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                let problem =
                    "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(&path, problem));
            }
        }
        other => {
            errors.push(FieldError::not_supported(
                &path,
                other,
                &["Disabled", "Enabled", "IfPossible"],
            ));
        }
    }
}

fn devices(container: &Container, context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, VolumeDevice { device_path, name }) in
        container.volume_devices.iter().flatten().enumerate()
    {
        let own = path.index(index);
        check::required(name, &own.child("name"), errors);
        if names.contains(&name.as_str()) {
            errors.push(FieldError::invalid(own.child("name"), name, "must be unique"));
        }
        match context.volumes.get(name.as_str()) {
            None => errors.push(FieldError::not_found(own.child("name"), name)),
            Some(volume)
                if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() =>
            {
                let problem = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(own.child("name"), name, problem));
            }
            Some(_) => {}
        }
        check::required(device_path, &own.child("devicePath"), errors);
        if paths.contains(&device_path.as_str()) {
            errors.push(FieldError::invalid(
                own.child("devicePath"),
                device_path,
                "must be unique",
            ));
        }
        if device_path.split('/').any(|part| part == "..") {
            let problem = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(own.child("devicePath"), device_path, problem));
        }
        names.push(name);
        paths.push(device_path);
    }
}

pub fn ephemeral(context: &PodContext<'_>, path: &Path, errors: &mut Errors) {
    let spec = context.spec;
    let others: Vec<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.name.as_str())
        .collect();
    let mut names = Unique::default();
    for name in &others {
        names.insert(name, path, &mut Errors::new());
    }
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        shared(&as_container(container), context, &path, errors);
        names.insert(&container.name, &path.child("name"), errors);
        let target = check::text(&container.target_container_name);
        if !target.is_empty() && !others.contains(&target) {
            errors.push(FieldError::not_found(path.child("targetContainerName"), target));
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
            errors.push(FieldError::forbidden(path.child(field), problem));
        }
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let path = path.child("volumeMounts").index(index);
            if !check::text(&mount.sub_path).is_empty() {
                errors.push(FieldError::forbidden(path.child("subPath"), problem));
            }
            if !check::text(&mount.sub_path_expr).is_empty() {
                errors.push(FieldError::forbidden(path.child("subPathExpr"), problem));
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
