//! The kinds of `metrics.k8s.io/v1beta1`: what nodes and pods use at the moment.
//!
//! Their objects are computed when somebody asks for them. They have no Rust types: their rows are
//! made as those of custom kinds, from a definition of their own.

use std::sync::{Arc, LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::custom::definition;
use crate::kind::{KindRef, KindRow};

pub const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

/// `nodes` and `pods`.
static ROWS: LazyLock<Vec<Arc<KindRow>>> = LazyLock::new(|| {
    definitions()
        .into_iter()
        .map(|definition| {
            let definition: CustomResourceDefinition =
                serde_json::from_value(definition).expect("the definitions are well-formed");
            Arc::new(definition::computed(&definition).expect("they have one version"))
        })
        .collect()
});

/// The rows of both kinds.
pub fn rows() -> impl Iterator<Item = KindRef> {
    ROWS.iter().cloned().map(KindRef::Custom)
}

/// A definition by its name, as JSON: with the descriptions of the fields.
pub fn definition(name: &str) -> Option<Value> {
    definitions().into_iter().find(|definition| definition["metadata"]["name"] == name)
}

fn definitions() -> [Value; 2] {
    let quantities = || {
        json!({"type": "object", "description": "The amounts, by resource: cpu and memory.",
            "additionalProperties": {"x-kubernetes-int-or-string": true}})
    };
    let containers = json!({"type": "array", "description": "What each container uses.",
    "items": {"type": "object", "required": ["name", "usage"], "properties": {
        "name": {"type": "string", "description": "The container's name."},
        "usage": quantities(),
    }}});
    [
        definition_of("nodes", "NodeMetrics", "Cluster", ("usage", quantities())),
        definition_of("pods", "PodMetrics", "Namespaced", ("containers", containers)),
    ]
}

fn definition_of(plural: &str, kind: &str, scope: &str, (field, usage): (&str, Value)) -> Value {
    let mut properties = json!({
        "timestamp": {"type": "string", "format": "date-time",
            "description": "The end of the time that usage was measured over."},
        "window": {"type": "string", "description": "The length of that time."},
    });
    properties[field] = usage;
    json!({
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": scope,
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": VERSION, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["timestamp", "window", field],
                    "properties": properties,
                }}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_metrics_server() {
        let rows: Vec<_> = rows().collect();
        let names = |row: &KindRef| (row.plural.to_string(), row.list_kind(), row.namespaced());
        assert_eq!(
            rows.iter().map(names).collect::<Vec<_>>(),
            [
                ("nodes".to_owned(), "NodeMetricsList".to_owned(), false),
                ("pods".to_owned(), "PodMetricsList".to_owned(), true)
            ]
        );
        for row in rows {
            assert!(row.computed && !row.has_objects() && row.singular.is_empty(), "{row}");
            let name = row.qualified_resource();
            assert!(definition(&name).is_some(), "{name}");
        }
    }
}
