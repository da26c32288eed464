//! Paths and operations of a kind: enough for clients to see which verbs, bodies and parameters
//! exist.

use api::KindRow;
use api::schema;
use serde_json::{Map, Value, json};

use super::schemas::{Dialect, Schemas};

const JSON: &str = "application/json";
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Adds the paths and schemas of a kind and of its subresources.
pub fn of_kind(row: &KindRow, schemas: &mut Schemas, paths: &mut Map<String, Value>) {
    let dialect = schemas.dialect();
    let (object, list) = match (row.schema(), &row.custom) {
        (Some(definition), _) => {
            (schemas.reference(definition), schemas.list_reference(definition))
        }
        (None, Some(custom)) => schemas.custom(row, custom),
        (None, None) => return,
    };
    let root = format!("/{}", super::path(&row.group, &row.version));
    let collection = if row.namespaced() {
        format!("{root}/namespaces/{{namespace}}/{}", row.plural)
    } else {
        format!("{root}/{}", row.plural)
    };
    let builder = Builder { row, namespaced: row.namespaced() };
    if !row.has_objects() {
        let create = builder.operation(schemas, "post", "create", Some(&object), &object);
        paths.insert(collection, builder.item(dialect, false, vec![("post", create)]));
        return;
    }
    let status = definition_reference(schemas, STATUS);
    let delete_options = definition_reference(schemas, DELETE_OPTIONS);
    let operations = vec![
        ("get", builder.operation(schemas, "get", "list", None, &list)),
        ("post", builder.operation(schemas, "post", "create", Some(&object), &object)),
        (
            "delete",
            builder.operation(
                schemas,
                "delete",
                "deletecollection",
                Some(&delete_options),
                &status,
            ),
        ),
    ];
    if row.namespaced() {
        let everywhere = Builder { row, namespaced: false };
        let get = everywhere.operation(schemas, "get", "list", None, &list);
        paths.insert(
            format!("{root}/{}", row.plural),
            everywhere.item(dialect, false, vec![("get", get)]),
        );
    }
    paths.insert(collection.clone(), builder.item(dialect, false, operations));
    let single = format!("{collection}/{{name}}");
    let mut operations = read_and_write(&builder, schemas, &object);
    operations.push((
        "delete",
        builder.operation(schemas, "delete", "delete", Some(&delete_options), &status),
    ));
    paths.insert(single.clone(), builder.item(dialect, true, operations));
    for subresource in row.subresources.iter() {
        let path = format!("{single}/{subresource}");
        let operations = match &**subresource {
            "status" | "ephemeralcontainers" | "resize" => {
                read_and_write(&builder, schemas, &object)
            }
            "scale" => {
                let scale = definition_reference(schemas, "io.k8s.api.autoscaling.v1.Scale");
                read_and_write(&builder, schemas, &scale)
            }
            "eviction" => create_only(&builder, schemas, "io.k8s.api.policy.v1.Eviction"),
            "token" => create_only(&builder, schemas, "io.k8s.api.authentication.v1.TokenRequest"),
            "binding" => create_only(&builder, schemas, "io.k8s.api.core.v1.Binding"),
            "finalize" => {
                vec![("put", builder.operation(schemas, "put", "put", Some(&object), &object))]
            }
            "log" => vec![(
                "get",
                builder.operation(schemas, "get", "get", None, &json!({"type": "string"})),
            )],
            _ => vec![(
                "get",
                builder.operation(schemas, "get", "connect", None, &json!({"type": "string"})),
            )],
        };
        paths.insert(path, builder.item(dialect, true, operations));
    }
}

fn definition_reference(schemas: &mut Schemas, name: &str) -> Value {
    schema::definition(name).map_or_else(|| json!({"type": "object"}), |row| schemas.reference(row))
}

type Operations = Vec<(&'static str, Value)>;

fn read_and_write(builder: &Builder, schemas: &mut Schemas, object: &Value) -> Operations {
    vec![
        ("get", builder.operation(schemas, "get", "get", None, object)),
        ("put", builder.operation(schemas, "put", "put", Some(object), object)),
        (
            "patch",
            builder.operation(schemas, "patch", "patch", Some(&json!({"type": "object"})), object),
        ),
    ]
}

fn create_only(builder: &Builder, schemas: &mut Schemas, name: &str) -> Operations {
    let body = definition_reference(schemas, name);
    vec![("post", builder.operation(schemas, "post", "create", Some(&body), &body))]
}

struct Builder<'a> {
    row: &'a KindRow,
    namespaced: bool,
}

impl Builder<'_> {
    fn item(&self, dialect: Dialect, named: bool, operations: Operations) -> Value {
        // Namespaces are only deleted one by one.
        let whole = !named && self.row.kind == "Namespace";
        let mut item: Map<String, Value> = operations
            .into_iter()
            .filter(|(method, _)| !(whole && *method == "delete"))
            .map(|(method, operation)| (method.to_owned(), operation))
            .collect();
        let mut parameters = Vec::new();
        for (name, there) in [("name", named), ("namespace", self.namespaced)] {
            if there {
                let mut parameter = json!({"name": name, "in": "path", "required": true,
                    "description": format!("{name} of the {}", self.row.kind)});
                match dialect {
                    Dialect::V2 => parameter["type"] = "string".into(),
                    Dialect::V3 => parameter["schema"] = json!({"type": "string"}),
                }
                parameters.push(parameter);
            }
        }
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), parameters.into());
        }
        item.into()
    }

    fn operation(
        &self,
        schemas: &Schemas,
        method: &str,
        action: &str,
        body: Option<&Value>,
        answer: &Value,
    ) -> Value {
        let row = self.row;
        let mut operation = json!({
            "tags": [format!("{}_{}", if row.group.is_empty() { "core" } else { &row.group }, row.version)],
            "description": format!("{action} {}", row.kind),
            "parameters": parameters(schemas.dialect(), method, action),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": row.group, "version": row.version, "kind": row.kind},
        });
        if schemas.dialect() == Dialect::V2 {
            operation["responses"] = json!({"200": {"description": "OK", "schema": answer}});
            if method == "patch" {
                operation["consumes"] = PATCHES.into();
            }
            return operation;
        }
        operation["responses"] =
            json!({"200": {"description": "OK", "content": {JSON: {"schema": answer}}}});
        if let Some(body) = body {
            let types: &[&str] = if method == "patch" { PATCHES } else { &[JSON] };
            let content: Map<String, Value> =
                types.iter().map(|media| ((*media).to_owned(), json!({"schema": body}))).collect();
            operation["requestBody"] = json!({ "content": content });
        }
        operation
    }
}

fn parameters(dialect: Dialect, method: &str, action: &str) -> Vec<Value> {
    let names: &[(&str, &str)] = match (method, action) {
        ("get", "list") => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        ("post" | "put", _) => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        }
        ("patch", _) => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        ("delete", _) => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("propagationPolicy", "string"),
        ],
        _ => &[],
    };
    names
        .iter()
        .map(|(name, ty)| match dialect {
            Dialect::V2 => json!({"name": name, "in": "query", "type": ty, "uniqueItems": true}),
            Dialect::V3 => {
                json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
            }
        })
        .collect()
}
