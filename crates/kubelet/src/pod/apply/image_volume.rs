//! Image volumes (`volumes[].image`), mounted at the volume's path before the first container that
//! uses them starts. [`super::image`] has pulled them by then.

use k8s_openapi::api::core::v1::{ImageVolumeSource, Pod};

use super::{PodActions, Problem, run_blocking};
use crate::pod::declared::Declared;
use crate::pod::pod_ext::PodExt;
use crate::volume::{MountedVolumes, mount};
use runtime::errors::cause_chain;

/// Those that a container mounts, with their names.
pub(super) fn image_volumes<'a>(
    pod: &'a Pod,
    declared: &'a Declared,
) -> impl Iterator<Item = (&'a str, &'a ImageVolumeSource)> {
    let mounts =
        |name: &str| declared.container.volume_mounts.iter().flatten().any(|one| one.name == name);
    let volumes = pod.spec_ref().volumes.iter().flatten();
    volumes
        .filter(move |volume| mounts(&volume.name))
        .filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?)))
}

impl PodActions {
    /// Mounts those of a container that are not mounted; `volumes` has their paths.
    pub(super) async fn mount_images(
        &self,
        declared: &Declared,
        volumes: &MountedVolumes,
    ) -> Result<(), Problem> {
        for (name, source) in image_volumes(&self.pod, declared) {
            if let Some(volume) = volumes.by_name.get(name) {
                self.mount_image(name, source, volume.path.clone()).await.map_err(|message| {
                    let text = format!("failed to mount image volume {name:?}: {message}");
                    Problem::new("CreateContainerError", text)
                })?;
            }
        }
        Ok(())
    }

    async fn mount_image(
        &self,
        name: &str,
        source: &ImageVolumeSource,
        path: std::path::PathBuf,
    ) -> Result<(), String> {
        if mount::is_mount_point(&path).map_err(|error| cause_chain(&error))? {
            return Ok(());
        }
        let image = source.reference.as_deref().unwrap_or_default();
        let found = self.context.images.status(image).await;
        let found = found.map_err(|error| cause_chain(&error))?;
        let found = found.ok_or_else(|| format!("image {image:?} is not present"))?;
        let view = self.context.runtime.view_image(self.pod.uid(), name, &found.id).await;
        let Some(view) = view.map_err(|error| cause_chain(&error))? else {
            return Ok(());
        };
        run_blocking(move || {
            mount::read_only(&view.kind, &view.source, &view.options, &path)
                .map_err(|error| cause_chain(&error))
        })
        .await
    }
}
