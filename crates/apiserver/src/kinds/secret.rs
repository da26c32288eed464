//! Secrets.

use k8s_openapi::api::core::v1::Secret;

use super::{Strategy, fill};

/// The strategy of Secrets.
pub struct Rules;

impl Strategy for Rules {
    type Object = Secret;

    /// `stringData` is a way to write `data`: it wins over it and is never stored.
    fn default(&self, secret: &mut Secret) {
        fill::text(&mut secret.type_, "Opaque");
        for (key, text) in secret.string_data.take().into_iter().flatten() {
            let value = k8s_openapi::ByteString(text.into_bytes());
            secret.data.get_or_insert_default().insert(key, value);
        }
    }

    /// The type cannot be taken away by leaving it out.
    fn prepare_update(&self, new: &mut Secret, old: &Secret, _: &super::Context<'_>) {
        if new.type_.as_deref().unwrap_or_default().is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }
}
