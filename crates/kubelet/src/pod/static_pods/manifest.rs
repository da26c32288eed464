//! From a manifest to a static pod (`pkg/kubelet/config/common.go`): pure.

use std::path::Path;

use api::Kind;
use api::defaults::pod_spec;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Annotation of a static pod: where its manifest is from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of a static pod: changes with its manifest.
pub const HASH: &str = "kubernetes.io/config.hash";
/// The only source of static pods here.
pub const FILE: &str = "file";

/// Bytes of a uid that is made from a manifest; it is written in hexadecimal.
const UID_BYTES: usize = 16;

/// Why a manifest is not a static pod.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("couldn't parse as pod: {0}")]
    Yaml(String),
    #[error("invalid pod: {0}")]
    Invalid(String),
    #[error("couldn't parse as pod")]
    Decode(#[source] api::kind::DecodeError),
    #[error("static pods may not reference {0}")]
    Refers(&'static str),
}

/// The static pod of a manifest, as it runs on the node called `node`.
///
/// # Errors
/// The text is not a pod, or one that cannot be static.
pub fn parse(text: &str, path: &Path, node: &str) -> Result<Pod, ManifestError> {
    let object = document(text)?;
    if (object["apiVersion"].as_str(), object["kind"].as_str()) != (Some("v1"), Some("Pod")) {
        return Err(ManifestError::Invalid("it is of another kind".to_owned()));
    }
    if let Some(what) = api::references::first(&object["spec"]) {
        return Err(ManifestError::Refers(what));
    }
    let mut pod = Pod::decode(object.to_string().as_bytes()).map_err(ManifestError::Decode)?;
    if pod.metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Err(ManifestError::Invalid("name is needed for the pod".to_owned()));
    }
    complete(&mut pod, path, node);
    match problem(&pod) {
        None => Ok(pod),
        Some(problem) => Err(ManifestError::Invalid(problem)),
    }
}

fn document(text: &str) -> Result<Value, ManifestError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let read = serde_saphyr::from_multiple_with_options::<Value>(text, options);
    let mut documents = read.map_err(|error| {
        let text = error.to_string();
        ManifestError::Yaml(text.lines().next().unwrap_or_default().to_owned())
    })?;
    documents.retain(|document| !document.is_null());
    match <[Value; 1]>::try_from(documents) {
        Ok([document]) => Ok(document),
        Err(all) => {
            Err(ManifestError::Invalid(format!("the file has {} documents, not one", all.len())))
        }
    }
}

/// Identity, annotations and defaults.
fn complete(pod: &mut Pod, path: &Path, node: &str) {
    (pod.metadata.resource_version, pod.metadata.deletion_timestamp) = (None, None);
    if pod.metadata.uid.as_deref().unwrap_or_default().is_empty() {
        pod.metadata.uid = Some(uid(pod, path, node));
    }
    let metadata = &mut pod.metadata;
    let name = metadata.name.get_or_insert_default();
    name.push('-');
    name.push_str(&node.to_lowercase());
    if metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        metadata.namespace = Some("default".to_owned());
    }
    let hash = metadata.uid.clone().unwrap_or_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), hash);
    annotations.insert(SOURCE.to_owned(), FILE.to_owned());
    annotations.remove(api::pod::MIRROR);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // Nothing takes it off its node but its file.
    let always = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&always) {
        tolerations.push(always);
    }
    pod_spec::spec(spec);
    pod_spec::pod(spec);
    let phase = Some("Pending".to_owned());
    pod.status = Some(PodStatus { phase, ..PodStatus::default() });
}

/// Changes with whatever is in the manifest, and where it is.
fn uid(pod: &Pod, path: &Path, node: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(pod.encode());
    digest.update(format!("host:{node}file:{}", path.display()));
    digest.finalize().iter().take(UID_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// What keeps a pod from being run at all. The apiserver validates the rest, when it is to have the
/// pod's mirror.
fn problem(pod: &Pod) -> Option<String> {
    let (metadata, spec) = (&pod.metadata, pod.spec.as_ref()?);
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let name = |field: &str, value: &str, problems: Vec<String>| {
        problems.into_iter().next().map(|why| format!("{field}: Invalid value: {value:?}: {why}"))
    };
    let (own, namespace, uid) =
        (text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    let of_pod = name("metadata.name", &own, api::names::dns_subdomain(&own))
        .or_else(|| name("metadata.namespace", &namespace, api::names::dns_label(&namespace)))
        .or_else(|| name("metadata.uid", &uid, api::names::dns_label(&uid)));
    if of_pod.is_some() {
        return of_pod;
    }
    if api::pod::is_object_uid(&uid) {
        return Some(format!("metadata.uid: Invalid value: {uid:?}: it may be another pod's"));
    }
    if spec.containers.is_empty() {
        return Some("spec.containers: Required value".to_owned());
    }
    if spec.ephemeral_containers.iter().flatten().next().is_some() {
        return Some("spec.ephemeralContainers: Forbidden: cannot be set on create".to_owned());
    }
    let mut seen: Vec<&str> = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let own = container.name.as_str();
        if let Some(problem) = name("name of a container", own, api::names::dns_label(own)) {
            return Some(problem);
        }
        if seen.contains(&own) {
            return Some(format!("name of a container: Duplicate value: {own:?}"));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Some(format!("image of container {own:?}: Required value"));
        }
        seen.push(own);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pod, String> {
        parse(text, Path::new("/manifests/web.yaml"), "Node-1").map_err(|error| error.to_string())
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\n\
        spec: {containers: [{name: main, image: 'web:1', resources: {limits: {cpu: 100m}}}]}\n";

    #[test]
    fn a_pod_with_the_identity_and_the_defaults_of_a_static_one() {
        let pod = read(WEB).unwrap();
        let (metadata, spec) = (pod.metadata, pod.spec.unwrap());
        assert_eq!(metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(metadata.namespace.as_deref(), Some("default"));
        let uid = metadata.uid.unwrap();
        assert_eq!(uid.len(), 32);
        let annotations = metadata.annotations.unwrap();
        assert_eq!((annotations[HASH].as_str(), annotations[SOURCE].as_str()), (&*uid, "file"));
        assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
        assert_eq!(spec.tolerations.unwrap().len(), 1);
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
        let resources = spec.containers[0].resources.clone().unwrap();
        assert_eq!(resources.requests.unwrap()["cpu"].0, "100m");

        let again = parse(WEB, Path::new("/manifests/web.yaml"), "Node-1").unwrap();
        assert_eq!(again.metadata.uid.as_deref(), Some(&*uid), "the file is the same");
        for (text, path) in [(WEB.replace("100m", "200m"), "/manifests/web.yaml")]
            .into_iter()
            .chain([(WEB.to_owned(), "/manifests/other.yaml")])
        {
            let other = parse(&text, Path::new(path), "Node-1").unwrap();
            assert_ne!(other.metadata.uid.as_deref(), Some(&*uid));
        }
        let own = read(&WEB.replace("name: web, ", "name: web, uid: own, ")).unwrap();
        assert_eq!(own.metadata.uid.as_deref(), Some("own"));
    }

    #[test]
    fn what_is_not_a_static_pod() {
        let pod = |from: &str, to: &str| WEB.replace(from, to);
        for (text, expected) in [
            ("".to_owned(), "invalid pod: the file has 0 documents, not one"),
            (format!("{WEB}---\n{WEB}"), "invalid pod: the file has 2 documents, not one"),
            ("a: [".to_owned(), "couldn't parse as pod: "),
            (pod("kind: Pod", "kind: Node"), "invalid pod: it is of another kind"),
            (pod("name: web, ", ""), "invalid pod: name is needed for the pod"),
            (
                pod("name: web, ", "name: Web, "),
                "invalid pod: metadata.name: Invalid value: \"Web-",
            ),
            (pod("name: web, ", "name: web, uid: ../x, "), "invalid pod: metadata.uid: Invalid"),
            (
                pod("name: web, ", "name: web, uid: 6298388c-f466-4303-bf1c-cdaa1edf07fa, "),
                "invalid pod: metadata.uid: Invalid",
            ),
            (pod("name: main, ", ""), "invalid pod: name of a container: Invalid value: \"\""),
            (pod("spec: {", "spec: 1 #{"), "couldn't parse as pod"),
            (pod("image: 'web:1', ", ""), "invalid pod: image of container \"main\": Required"),
            (
                pod("spec: {", "spec: {serviceAccountName: own, "),
                "static pods may not reference serviceaccounts",
            ),
            (
                pod("spec: {", "spec: {volumes: [{name: v, configMap: {name: c}}], "),
                "static pods may not reference configmaps",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(expected), "{error:?} {expected:?}");
        }
    }
}
