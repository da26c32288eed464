//! Image volumes (`volumes[].image`): pulled according to their policy, and mounted at the volume's
//! path.

use k8s_openapi::api::core::v1::ImageVolumeSource;

use super::image::{Usable, credentials, policy_of, usable};
use super::{PodActions, Problem, run_blocking};
use crate::image::Image;
use crate::pod::pod_ext::PodExt;
use crate::volume::{MountedVolumes, mount};
use runtime::errors::cause_chain;

impl PodActions {
    /// Mounts those that are not mounted; `volumes` has their paths.
    pub(super) async fn mount_images(&self, volumes: &MountedVolumes) -> Result<(), Problem> {
        for volume in self.pod.spec_ref().volumes.iter().flatten() {
            let (Some(source), Some(place)) = (&volume.image, volumes.by_name.get(&volume.name))
            else {
                continue;
            };
            let path = place.path.clone();
            let failed = |message: String| {
                let name = &volume.name;
                let text = format!("MountVolume.SetUp failed for volume {name:?} : {message}");
                Problem::new("FailedMount", text)
            };
            let mounted = mount::is_mount_point(&path);
            if mounted.map_err(|error| failed(cause_chain(&error)))? {
                continue;
            }
            let image = self.image_of(source).await.map_err(failed)?;
            let runtime = &self.context.runtime;
            let view = runtime.view_image(self.pod.uid(), &volume.name, &image.id);
            let view = view.await.map_err(|error| failed(cause_chain(&error)))?;
            let Some(view) = view else {
                continue;
            };
            run_blocking(move || {
                mount::read_only(&view.kind, &view.source, &view.options, &path)
                    .map_err(|error| cause_chain(&error))
            })
            .await
            .map_err(failed)?;
        }
        Ok(())
    }

    async fn image_of(&self, source: &ImageVolumeSource) -> Result<Image, String> {
        let name = source.reference.as_deref().unwrap_or_default();
        let images = &self.context.images;
        let policy = policy_of(source.pull_policy.as_deref(), name);
        let credentials = credentials(self).await;
        match usable(images, name, policy, &credentials).await {
            Ok(Usable::Here(image)) => Ok(image),
            Ok(Usable::Never(message)) => Err(message),
            Ok(Usable::MustPull) => {
                let pulled = images.pull(name, &credentials).await;
                pulled.map_err(|error| {
                    format!("Failed to pull image {name:?}: {}", cause_chain(&error))
                })
            }
            Err(error) => Err(cause_chain(&error)),
        }
    }
}
