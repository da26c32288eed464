//! Namespaces.

use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};

use super::columns::text;
use super::fill;
use super::table::{Parts, Rows, age, name};

/// Every namespace has its name in this label.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer of the namespace controller.
const FINALIZER: &str = "kubernetes";

pub static RULES: Rows<Namespace> = Rows {
    default: |namespace| {
        if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
        fill::text(&mut namespace.status.get_or_insert_default().phase, "Active");
    },
    name: api::names::dns_label,
    parts: Parts {
        create: |namespace, _| {
            namespace.status = Some(NamespaceStatus {
                phase: Some("Active".to_owned()),
                ..NamespaceStatus::default()
            });
            let spec = namespace.spec.get_or_insert_with(NamespaceSpec::default);
            let finalizers = spec.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
            }
        },
        update: |new, old, _| {
            new.spec.clone_from(&old.spec);
            new.status.clone_from(&old.status);
        },
        // `finalize` changes the spec's finalizers and nothing else.
        status: |new, old, context| {
            if context.subresource == "finalize" {
                new.status.clone_from(&old.status);
            } else {
                new.spec.clone_from(&old.spec);
            }
        },
    },
    judge: |namespace, at| {
        let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
        for (index, finalizer) in finalizers.enumerate() {
            let at = at.item("spec.finalizers", index);
            at.qualified_name(finalizer);
            if !finalizer.contains('/') && finalizer != FINALIZER {
                let problem = "name is neither a standard finalizer name nor is it fully qualified";
                at.invalid(finalizer, problem);
            }
        }
    },
    columns: &[name(), text("Status", "The status of the namespace.").at("status.phase"), age()],
    ..Rows::NEW
};
