//! Warnings about what is valid in a pod but unlikely to be intended
//! (`k8s.io/kubernetes/pkg/api/pod/warnings.go`).

mod containers;

use std::collections::BTreeSet;

use api::ObjectMeta;
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, Volume, WeightedPodAffinityTerm,
};

use super::affinity::{PREFERRED, REQUIRED};
use crate::kinds::at::At;

/// Deprecated labels of nodes, and their successors.
const NODE_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];
/// Annotations without effect: the version, and the field that replaces them.
const ANNOTATIONS: &[(&str, &str, &str)] = &[
    ("scheduler.alpha.kubernetes.io/critical-pod", "v1.16+", "priorityClassName"),
    ("security.alpha.kubernetes.io/sysctls", "v1.11+", "sysctls"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "v1.11+", "sysctls"),
];
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Why a name that is not a DNS label is unsuitable for a pod or a workload.
pub fn name(metadata: &ObjectMeta, used_in: &str) -> Option<String> {
    let problems = api::names::dns_label(metadata.name.as_deref().unwrap_or_default());
    (!problems.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        )
    })
}

/// Warnings about a workload's template, which is at `spec.template`.
pub fn template(template: &PodTemplateSpec) -> Vec<String> {
    template_at(template, "spec.template")
}

/// Warnings about a template at a path.
pub fn template_at(template: &PodTemplateSpec, path: &str) -> Vec<String> {
    let none = ObjectMeta::default();
    let metadata = template.metadata.as_ref().unwrap_or(&none);
    At::warnings(|at| {
        let at = at.child(path);
        if let Some(spec) = &template.spec {
            let annotations = at.child("metadata.annotations");
            Warnings { spec, metadata, at: at.child("spec"), annotations }.all(true);
        }
    })
}

/// Warnings about a pod.
pub fn pod(spec: &PodSpec, metadata: &ObjectMeta) -> Vec<String> {
    At::warnings(|at| {
        let annotations = at.child("metadata.annotations");
        Warnings { spec, metadata, at: at.child("spec"), annotations }.all(false);
    })
}

/// A pod that may be warned about.
struct Warnings<'a> {
    spec: &'a PodSpec,
    metadata: &'a ObjectMeta,
    at: At<'a>,
    annotations: At<'a>,
}

impl Warnings<'_> {
    fn all(&self, in_template: bool) {
        self.node_labels();
        self.spreading();
        self.deprecated_annotations();
        self.volumes();
        self.repetitions();
        self.overhead();
        self.containers(in_template);
        self.ports();
        if self.spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
            let problem = "must be >= 0; negative values are invalid and will be treated as 1";
            self.at.child("terminationGracePeriodSeconds").warn(problem);
        }
        self.affinity();
    }

    fn has_annotation(&self, key: &str) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key(key))
    }

    fn node_labels(&self) {
        let spec = self.spec;
        for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
            if let Some(problem) = deprecated(key) {
                self.at.entry("nodeSelector", key).warn(problem);
            }
        }
        let affinity = spec.affinity.as_ref();
        let Some(nodes) = affinity.and_then(|affinity| affinity.node_affinity.as_ref()) else {
            return;
        };
        let at = self.at.child("affinity.nodeAffinity");
        let required = nodes.required_during_scheduling_ignored_during_execution.as_ref();
        let own = at.child(REQUIRED);
        let own = own.child("nodeSelectorTerms");
        for (index, term) in
            required.iter().flat_map(|selector| &selector.node_selector_terms).enumerate()
        {
            self.term(term, &own.index(index));
        }
        let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let own = at.child(PREFERRED);
        for (index, term) in preferred.enumerate() {
            self.term(&term.preference, &own.part(index, "preference"));
        }
    }

    fn term(&self, term: &NodeSelectorTerm, at: &At<'_>) {
        for (index, expression) in term.match_expressions.iter().flatten().enumerate() {
            if let Some(problem) = deprecated(&expression.key) {
                let at = at.item("matchExpressions", index);
                at.child("key").warn(format!("{} is {problem}", expression.key));
            }
        }
    }

    fn spreading(&self) {
        let spec = self.spec;
        let constraints = spec.topology_spread_constraints.iter().flatten();
        for (index, constraint) in constraints.enumerate() {
            let at = self.at.item("topologySpreadConstraints", index);
            let key = &constraint.topology_key;
            if let Some(problem) = deprecated(key) {
                at.child("topologyKey").warn(format!("{key} is {problem}"));
            }
            if constraint.label_selector.is_none() {
                at.child("labelSelector").warn(NO_SELECTOR);
            }
        }
    }

    fn deprecated_annotations(&self) {
        for (key, version, field) in ANNOTATIONS {
            if self.has_annotation(key) {
                let problem =
                    format!("non-functional in {version}; use the \"{field}\" field instead");
                self.annotations.key(key).warn(problem);
            }
        }
    }

    fn volumes(&self) {
        let spec = self.spec;
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            for (field, there, problem) in deprecated_volumes(volume) {
                if there {
                    self.at.item("volumes", index).child(field).warn(problem);
                }
            }
        }
    }

    fn repetitions(&self) {
        let spec = self.spec;
        let mut seen = BTreeSet::new();
        for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
            if !seen.insert(alias.ip.as_str()) {
                let at = self.at.item("hostAliases", index);
                at.child("ip").warn(format!("duplicate ip {:?}", alias.ip));
            }
        }
        let secrets = || spec.image_pull_secrets.iter().flatten().enumerate();
        let at = self.at.child("imagePullSecrets");
        let mut seen = BTreeSet::new();
        for (index, secret) in secrets().filter(|(_, secret)| !seen.insert(&secret.name)) {
            at.part(index, "name").warn(format!("duplicate name {:?}", secret.name));
        }
        for (index, _) in secrets().filter(|(_, secret)| secret.name.is_empty()) {
            at.part(index, "name").warn("invalid empty name \"\"");
        }
    }

    fn overhead(&self) {
        let spec = self.spec;
        self.fractions(spec.overhead.as_ref(), &self.at.child("overhead"));
        let context = spec.security_context.as_ref();
        let profile = context.and_then(|context| context.seccomp_profile.as_ref());
        if profile.is_none() && self.has_annotation(SECCOMP) {
            let problem = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
            self.annotations.key(SECCOMP).warn(problem);
        }
    }

    fn affinity(&self) {
        let spec = self.spec;
        let Some(affinity) = &spec.affinity else { return };
        let at = self.at.child("affinity");
        if let Some(near) = &affinity.pod_affinity {
            self.terms(
                near.required_during_scheduling_ignored_during_execution.as_deref(),
                near.preferred_during_scheduling_ignored_during_execution.as_deref(),
                &at.child("podAffinity"),
            );
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            self.terms(
                far.required_during_scheduling_ignored_during_execution.as_deref(),
                far.preferred_during_scheduling_ignored_during_execution.as_deref(),
                &at.child("podAntiAffinity"),
            );
        }
    }

    fn terms(
        &self,
        required: Option<&[PodAffinityTerm]>,
        preferred: Option<&[WeightedPodAffinityTerm]>,
        at: &At<'_>,
    ) {
        let own = at.child(REQUIRED);
        for (index, term) in required.unwrap_or_default().iter().enumerate() {
            if term.label_selector.is_none() {
                own.part(index, "labelSelector").warn(NO_SELECTOR);
            }
        }
        let own = at.child(PREFERRED);
        for (index, term) in preferred.unwrap_or_default().iter().enumerate() {
            if term.pod_affinity_term.label_selector.is_none() {
                own.part(index, "podAffinityTerm.labelSelector").warn(NO_SELECTOR);
            }
        }
    }
}

fn deprecated(label: &str) -> Option<String> {
    let found = NODE_LABELS.iter().find(|(old, _, _)| *old == label);
    found.map(|(_, version, new)| format!("deprecated since {version}; use \"{new}\" instead"))
}

fn deprecated_volumes(volume: &Volume) -> [(&'static str, bool, &'static str); 9] {
    [
        (
            "photonPersistentDisk",
            volume.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11"),
        ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ]
}

#[cfg(test)]
mod tests;
