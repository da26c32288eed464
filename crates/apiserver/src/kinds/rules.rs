//! What strategies share: the separation of spec and status.

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

pub(crate) use status_apart;
