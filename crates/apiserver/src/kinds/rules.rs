//! What many strategies share: the separation of spec and status, and the generation.

/// The rules of kinds with `spec` and a `status` subresource: creates and updates of the object
/// leave status alone, updates of status leave spec and labels alone.
macro_rules! status_apart {
    () => {
        status_apart!(Default::default());
    };
    ($first:expr) => {
        fn prepare_create(&self, object: &mut Self::Object, _: &crate::kinds::Context<'_>) {
            object.status = Some($first);
        }

        fn prepare_update(
            &self,
            new: &mut Self::Object,
            old: &Self::Object,
            _: &crate::kinds::Context<'_>,
        ) {
            new.status.clone_from(&old.status);
        }

        fn prepare_status_update(
            &self,
            new: &mut Self::Object,
            old: &Self::Object,
            _: &crate::kinds::Context<'_>,
        ) {
            new.spec.clone_from(&old.spec);
            new.metadata.labels.clone_from(&old.metadata.labels);
        }
    };
}

/// The generation rises when the spec changes.
macro_rules! generation_of_spec {
    () => {
        fn generation_changes(&self, new: &Self::Object, old: &Self::Object) -> Option<bool> {
            Some(new.spec != old.spec)
        }
    };
}

pub(crate) use {generation_of_spec, status_apart};
