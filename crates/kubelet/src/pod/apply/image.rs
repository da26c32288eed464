//! Ensures that a container's images are on the node, according to their pull policies: its own, and
//! those of the volumes that it mounts.

use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;

use super::image_volume::image_volumes;
use super::{Outcome, PodActions, Problem};
use crate::image::{Image, ImageError, ImageService, RegistryCredential, SecretSource};
use crate::pod::declared::{Declared, find};
use crate::pod::pod_ext::PodExt;

/// Waiting reason when the container runtime cannot be asked about an image.
pub const INSPECT_ERROR: &str = "ImageInspectError";

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The given policy, or the default for the image's name.
fn policy_of(asked: Option<&str>, image: &str) -> Policy {
    match asked {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some(_) => Policy::IfNotPresent,
        None if is_latest(image) => Policy::Always,
        None => Policy::IfNotPresent,
    }
}

/// Whether there is no tag or `:latest`, and no digest.
fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Whether a pod may use what is on the node.
enum Usable {
    Here(Image),
    /// It is not here, or is for others only.
    MustPull,
    /// As before, and the policy forbids to pull. With the message.
    Never(String),
}

/// Finds an image on the node, for a pod with these credentials.
async fn usable(
    images: &ImageService,
    image: &str,
    policy: Policy,
    credentials: &[RegistryCredential],
) -> Result<Usable, ImageError> {
    if policy == Policy::Always {
        return Ok(Usable::MustPull);
    }
    let found = images.status(image).await?;
    let is_here = found.is_some();
    match found {
        Some(found) if !images.must_pull(image, &found, credentials).await => {
            Ok(Usable::Here(found))
        }
        _ if policy == Policy::IfNotPresent => Ok(Usable::MustPull),
        _ if is_here => Ok(Usable::Never(format!(
            "Container image \"{image}\" is present with pull policy of Never but does not have the \
             proper credentials to access the image"
        ))),
        _ => Ok(Usable::Never(format!(
            "Container image \"{image}\" is not present with pull policy of Never"
        ))),
    }
}

impl PodActions {
    pub async fn ensure_image(self, container: String, attempt: u32) -> Outcome {
        let result = match find(&self.pod, &container) {
            Some(declared) => self.images(&declared, attempt).await,
            None => {
                let problem = Problem::new("ErrImagePull", "the container is not declared");
                Err((String::new(), problem))
            }
        };
        Outcome::Image { container, attempt, result: result.map(|image| image.id) }
    }

    /// The container's image, and those of the volumes that it mounts. Fails with the image's name.
    async fn images(&self, declared: &Declared, attempt: u32) -> Result<Image, (String, Problem)> {
        let (image, policy) = (declared.image(), declared.container.image_pull_policy.as_deref());
        let failed = |image: &str, problem| (image.to_owned(), problem);
        let found = self.image(declared, image, policy).await;
        let found = found.map_err(|problem| failed(image, problem))?;
        self.prepare(declared, attempt, &found).await;
        for (_, source) in image_volumes(&self.pod, declared) {
            let image = source.reference.as_deref().unwrap_or_default();
            let ensured = self.image(declared, image, source.pull_policy.as_deref()).await;
            ensured.map_err(|problem| failed(image, problem))?;
        }
        Ok(found)
    }

    async fn image(
        &self,
        declared: &Declared,
        image: &str,
        policy: Option<&str>,
    ) -> Result<Image, Problem> {
        let policy = policy_of(policy, image);
        if let Err(error) = ImageService::check_name(image) {
            let text = format!("Failed to apply default image tag \"{image}\": {error}");
            return Err(self.refused(declared, "InspectFailed", error.waiting_reason(), text));
        }
        let credentials = credentials(self).await;
        match usable(&self.context.images, image, policy, &credentials).await {
            Ok(Usable::Here(found)) => {
                let text = format!(
                    "Container image \"{image}\" already present on machine and can be accessed by \
                     the pod"
                );
                self.note(declared, "Pulled", text);
                Ok(found)
            }
            Ok(Usable::MustPull) => self.pull(declared, image, &credentials).await,
            Ok(Usable::Never(text)) => {
                let reason = "ErrImageNeverPull";
                Err(self.refused(declared, reason, reason, text))
            }
            Err(error) => Err(Problem::new(INSPECT_ERROR, error.to_string())),
        }
    }

    async fn pull(
        &self,
        declared: &Declared,
        image: &str,
        credentials: &[RegistryCredential],
    ) -> Result<Image, Problem> {
        self.note(declared, "Pulling", format!("Pulling image \"{image}\""));
        let begun = clock::monotonic();
        match self.context.images.pull(image, credentials).await {
            Ok(found) => {
                let took = printed(begun.elapsed());
                let text = format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {} bytes.",
                    found.size_bytes
                );
                self.note(declared, "Pulled", text);
                Ok(found)
            }
            Err(error) => {
                let text = format!("Failed to pull image \"{image}\": {error}");
                let mut problem = self.refused(declared, "Failed", error.waiting_reason(), text);
                problem.message = error.to_string();
                Err(problem)
            }
        }
    }

    /// Records two events: what happened, and the container's waiting reason.
    fn refused(&self, declared: &Declared, event: &str, reason: &str, text: String) -> Problem {
        let recorder = &self.context.recorder;
        recorder.warning(&self.pod, declared, event, text.clone());
        recorder.warning(&self.pod, declared, "Failed", format!("Error: {reason}"));
        Problem::new(reason, text)
    }

    fn note(&self, declared: &Declared, reason: &str, text: String) {
        self.context.recorder.normal(&self.pod, declared, reason, text);
    }

    /// Creates the root file system while network and volumes are being set up.
    async fn prepare(&self, declared: &Declared, attempt: u32, image: &Image) {
        let (runtime, pod) = (&self.context.runtime, self.pod.pod_ref());
        let prepared = runtime.prepare_rootfs(&pod, declared.name(), attempt, &image.id).await;
        if let Err(error) = prepared {
            tracing::debug!(%error, container = declared.name(), "cannot prepare the root file system ahead of time");
        }
    }
}

fn printed(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{}ms", took.as_millis())
    } else {
        format!("{:.3}s", took.as_secs_f64())
    }
}

/// The credentials in the pod's image pull secrets. One that is missing or unreadable is skipped,
/// as in Kubernetes: the pull fails if it was needed.
async fn credentials(actions: &PodActions) -> Vec<RegistryCredential> {
    let mut found = Vec::new();
    for reference in actions.pod.spec_ref().image_pull_secrets.iter().flatten() {
        let (objects, namespace) = (&actions.context.objects, actions.pod.pod_namespace());
        match objects.secret(namespace, &reference.name, &actions.worker).await {
            Ok(Some(secret)) => found.extend(read(&secret)),
            Ok(None) => {
                let text = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                actions.context.recorder.pod_warning(
                    &actions.pod,
                    "FailedToRetrieveImagePullSecret",
                    text,
                );
            }
            Err(error) => {
                tracing::warn!(%error, secret = reference.name, "cannot read an image pull secret")
            }
        }
    }
    found
}

/// `.dockerconfigjson` or `.dockercfg`.
fn read(secret: &Secret) -> Vec<RegistryCredential> {
    let data = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        serde_json::from_slice::<serde_json::Value>(&bytes.0).ok()
    };
    let auths = match data(".dockerconfigjson") {
        Some(config) => config.get("auths").cloned(),
        None => data(".dockercfg"),
    };
    let Some(serde_json::Value::Object(auths)) = auths else {
        return Vec::new();
    };
    let metadata = secret.metadata.clone();
    let source = SecretSource {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
    };
    auths.into_iter().map(|(registry, entry)| credential(registry, &entry, &source)).collect()
}

fn credential(
    registry: String,
    entry: &serde_json::Value,
    source: &SecretSource,
) -> RegistryCredential {
    let text =
        |key: &str| entry.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth").trim());
    if username.is_empty()
        && let Some((user, secret)) = decoded
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .as_deref()
            .and_then(|pair| pair.split_once(':'))
    {
        username = user.to_owned();
        password = secret.to_owned();
    }
    let token = match text("identitytoken") {
        token if token.is_empty() => text("registrytoken"),
        token => token,
    };
    RegistryCredential { registry, username, password, token, source: Some(source.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn latest_is_always_pulled() {
        for (image, latest) in [
            ("busybox", true),
            ("busybox:latest", true),
            ("busybox:1.36", false),
            ("localhost:5000/busybox", true),
            ("localhost:5000/busybox:1", false),
            ("busybox@sha256:00", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn docker_configs() {
        let config = br#"{"auths":{"reg:5000":{"auth":"bWU6cHc="},"b.io":{"username":"u","password":"p"},"t.io":{"identitytoken":"tok"}}}"#;
        let secret = Secret {
            data: Some([(".dockerconfigjson".to_owned(), ByteString(config.to_vec()))].into()),
            ..Default::default()
        };
        let mut found = read(&secret);
        found.sort_by(|a, b| a.registry.cmp(&b.registry));
        assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("u", "p"));
        assert_eq!((found[1].username.as_str(), found[1].password.as_str()), ("me", "pw"));
        assert_eq!(found[2].token, "tok");
    }
}
