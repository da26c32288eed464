//! Warnings about containers.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, ResourceRequirements, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::Warnings;
use crate::kinds::at::At;

const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The parts of a container of any type that are examined.
struct AnyContainer<'a> {
    name: &'a str,
    at: At<'a>,
    env: &'a [EnvVar],
    ports: &'a [ContainerPort],
    resources: Option<&'a ResourceRequirements>,
    security: Option<&'a SecurityContext>,
}

impl Warnings<'_> {
    /// Init, regular and ephemeral containers, in upstream's order.
    fn all_containers(&self) -> Vec<AnyContainer<'_>> {
        let mut all = Vec::new();
        let lists = [
            ("initContainers", self.spec.init_containers.as_deref()),
            ("containers", Some(self.spec.containers.as_slice())),
        ];
        for (field, list) in lists {
            for (index, container) in list.unwrap_or_default().iter().enumerate() {
                all.push(AnyContainer {
                    name: &container.name,
                    at: self.at.item(field, index),
                    env: container.env.as_deref().unwrap_or_default(),
                    ports: container.ports.as_deref().unwrap_or_default(),
                    resources: container.resources.as_ref(),
                    security: container.security_context.as_ref(),
                });
            }
        }
        let ephemeral = self.spec.ephemeral_containers.iter().flatten().enumerate();
        for (index, container) in ephemeral {
            all.push(AnyContainer {
                name: &container.name,
                at: self.at.item("ephemeralContainers", index),
                env: container.env.as_deref().unwrap_or_default(),
                ports: container.ports.as_deref().unwrap_or_default(),
                resources: container.resources.as_ref(),
                security: container.security_context.as_ref(),
            });
        }
        all
    }

    pub(super) fn containers(&self, in_template: bool) {
        let pod = self.spec.security_context.as_ref();
        let pod_profile = pod.is_some_and(|pod| pod.app_armor_profile.is_some());
        for container in self.all_containers() {
            let security = container.security;
            let seccomp = format!("{SECCOMP}{}", container.name);
            if security.is_none_or(|own| own.seccomp_profile.is_none())
                && self.has_annotation(&seccomp)
            {
                let problem = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
                self.annotations.key(&seccomp).warn(problem);
            }
            let apparmor = format!("{APPARMOR}{}", container.name);
            let profile =
                pod_profile || security.is_some_and(|own| own.app_armor_profile.is_some());
            if in_template && !profile && self.has_annotation(&apparmor) {
                let problem = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
                self.annotations.key(&apparmor).warn(problem);
            }
            let at = container.at.child("resources");
            for (field, amounts) in [
                ("limits", container.resources.and_then(|own| own.limits.as_ref())),
                ("requests", container.resources.and_then(|own| own.requests.as_ref())),
            ] {
                self.fractions(amounts, &at.child(field));
            }
            self.env(container.env, &container.at.child("env"));
        }
    }

    /// Memory and storage are counted in whole bytes.
    pub(super) fn fractions(&self, amounts: Option<&BTreeMap<String, Text>>, at: &At<'_>) {
        for name in ["memory", "ephemeral-storage"] {
            let amount = amounts.and_then(|amounts| amounts.get(name)).map(Quantity::of);
            if let Some(amount) = amount.filter(|amount| !amount.is_whole()) {
                let problem = format!(
                    "fractional byte value {:?} is invalid, must be an integer",
                    amount.to_string()
                );
                at.key(name).warn(problem);
            }
        }
    }

    /// A variable that is set twice, other than to extend its first value.
    fn env(&self, env: &[EnvVar], at: &At<'_>) {
        let mut seen = BTreeSet::new();
        for (index, variable) in env.iter().enumerate() {
            let name = &variable.name;
            if seen.insert(name) {
                continue;
            }
            let reference = format!("$({name})");
            let value = variable.value.as_deref().unwrap_or_default();
            let builds_on =
                variable.value_from.is_none() && value != reference && value.contains(&reference);
            if !builds_on {
                let problem = format!(
                    "hides previous definition of {name:?}, which may be dropped when using apply"
                );
                at.index(index).warn(problem);
            }
        }
    }

    /// Conflicting ports, over all containers.
    pub(super) fn ports(&self) {
        let containers = self.all_containers();
        let mut all: BTreeMap<(i32, &str), Vec<(At<'_>, &ContainerPort)>> = BTreeMap::new();
        for container in &containers {
            for (index, port) in container.ports.iter().enumerate() {
                let at = container.at.item("ports", index);
                let host_ip = port.host_ip.as_deref().unwrap_or_default();
                if !host_ip.is_empty() && port.host_port.unwrap_or(0) == 0 {
                    at.warn(format!("hostIP set without hostPort: {}", printed(port)));
                }
                let protocol = port.protocol.as_deref().unwrap_or_default();
                let others = all.entry((port.container_port, protocol)).or_default();
                for (place, other) in others.iter() {
                    if let Some(problem) = clash(port, other) {
                        at.warn(format!("{problem} with {place}"));
                    }
                }
                others.push((at, port));
            }
        }
    }
}

fn clash(port: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let host_port = |port: &ContainerPort| port.host_port.unwrap_or(0);
    let host_ip = |port: &ContainerPort| port.host_ip.clone().unwrap_or_default();
    let (one, two) = (host_port(port), host_port(other));
    if (host_ip(port), one) == (host_ip(other), two) {
        Some("duplicate port definition")
    } else if one == 0 || two == 0 {
        Some("overlapping port definition")
    } else if one == two && host_ip(port).is_empty() != host_ip(other).is_empty() {
        Some("dangerously ambiguous port definition")
    } else {
        None
    }
}

/// A port as Go prints it.
fn printed(port: &ContainerPort) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        port.name.as_deref().unwrap_or_default(),
        port.host_port.unwrap_or(0),
        port.container_port,
        port.protocol.as_deref().unwrap_or_default(),
        port.host_ip.as_deref().unwrap_or_default()
    )
}
