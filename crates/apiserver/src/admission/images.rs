//! AlwaysPullImages: nobody uses an image only because it is on a node already
//! (`k8s.io/kubernetes/plugin/pkg/admission/alwayspullimages`).

use std::collections::BTreeSet;

use api::ApiError;
use api::object::Object;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::attributes::Attributes;

const ALWAYS: &str = "Always";

/// Sets the policy of all containers and image volumes.
///
/// # Errors
/// None.
pub fn always_pull(attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    if has_no_new_image(attributes, object) {
        return Ok(());
    }
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
        return Ok(());
    };
    let always = || Some(ALWAYS.to_owned());
    let inits = spec.init_containers.iter_mut().flatten();
    for container in inits.chain(&mut spec.containers) {
        container.image_pull_policy = always();
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        container.image_pull_policy = always();
    }
    for volume in spec.volumes.iter_mut().flatten() {
        if let Some(image) = &mut volume.image {
            image.pull_policy = always();
        }
    }
    Ok(())
}

/// Checks that nobody has set another policy since.
///
/// # Errors
/// 403.
pub fn check(attributes: &Attributes<'_>, object: &dyn Object) -> Result<(), ApiError> {
    if has_no_new_image(attributes, object) {
        return Ok(());
    }
    let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    match spec.and_then(|spec| policies(spec).find(|(_, policy)| policy != &Some(ALWAYS))) {
        None => Ok(()),
        Some((field, policy)) => {
            let policy = policy.unwrap_or_default();
            let error = FieldError::not_supported(field, policy, &[ALWAYS]);
            Err(attributes.forbidden(object, error))
        }
    }
}

/// Every pull policy with its field.
fn policies(spec: &PodSpec) -> impl Iterator<Item = (String, Option<&str>)> {
    let inits = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let inits = inits.map(|container| ("initContainers", container.image_pull_policy.as_deref()));
    let own = spec.containers.iter();
    let own = own.map(|container| ("containers", container.image_pull_policy.as_deref()));
    let ephemeral =
        ephemeral.map(|container| ("ephemeralContainers", container.image_pull_policy.as_deref()));
    let containers = inits.enumerate().chain(own.enumerate()).chain(ephemeral.enumerate());
    let containers = containers
        .map(|(index, (list, policy))| (format!("spec.{list}[{index}].imagePullPolicy"), policy));
    let volumes = spec.volumes.iter().flatten().enumerate();
    containers.chain(volumes.filter_map(|(index, volume)| {
        let image = volume.image.as_ref()?;
        Some((format!("spec.volumes[{index}].image.pullPolicy"), image.pull_policy.as_deref()))
    }))
}

/// Whether an update names only images that the pod has already.
fn has_no_new_image(attributes: &Attributes<'_>, object: &dyn Object) -> bool {
    let images = |object: &dyn Object| -> BTreeSet<String> {
        let Some(spec) = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()) else {
            return BTreeSet::new();
        };
        let inits = spec.init_containers.iter().flatten();
        let containers = inits.chain(&spec.containers).map(|container| &container.image);
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        let images = containers.chain(ephemeral.map(|container| &container.image)).flatten();
        images.cloned().collect()
    };
    attributes.old_object().is_some_and(|old| images(object).is_subset(&images(old)))
}
