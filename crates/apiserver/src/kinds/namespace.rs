//! Namespaces.

use super::check;
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};
use serde_json::Value;

use super::{Column, Context, Strategy, fill};

/// Every namespace has its name in this label.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer of the namespace controller.
const FINALIZER: &str = "kubernetes";

/// The strategy of Namespaces.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::text("Status", "The status of the namespace."), columns::AGE];

impl Strategy for Rules {
    type Object = Namespace;

    fn default(&self, namespace: &mut Namespace) {
        if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
        fill::text(&mut namespace.status.get_or_insert_default().phase, "Active");
    }

    fn prepare_create(&self, namespace: &mut Namespace, _: &Context<'_>) {
        namespace.status = Some(NamespaceStatus {
            phase: Some("Active".to_owned()),
            ..NamespaceStatus::default()
        });
        let spec = namespace.spec.get_or_insert_with(NamespaceSpec::default);
        let finalizers = spec.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    /// `finalize` changes the spec's finalizers and nothing else.
    fn prepare_status_update(&self, new: &mut Namespace, old: &Namespace, context: &Context<'_>) {
        if context.subresource == "finalize" {
            new.status.clone_from(&old.status);
        } else {
            new.spec.clone_from(&old.spec);
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::dns_label(name)
    }

    fn validate(&self, namespace: &Namespace) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
        for (index, finalizer) in finalizers.enumerate() {
            let path = Path::new("spec").child("finalizers").index(index);
            check::qualified_name(finalizer, &path, &mut errors);
            if !finalizer.contains('/') && finalizer != FINALIZER {
                let problem = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(FieldError::invalid(&path, finalizer, problem));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        let phase = namespace.status.as_ref().and_then(|status| status.phase.clone());
        vec![
            columns::name(&namespace.metadata),
            phase.unwrap_or_default().into(),
            columns::age(&namespace.metadata, now),
        ]
    }
}
