//! Paths and operations of a kind, by rule from its row, named as upstream names them
//! (`operationId`), which is what generators of clients make methods of.

use api::schema;
use api::{Kind, KindRow};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Map, Value, json};

use super::operation::{Gvk, Operation};
use super::parameters::{self, Parameter, in_path};
use super::schemas::Schemas;
use crate::paths::discovery::{Subresource, subresource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// The methods that are proxied.
const PROXIED: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch"];
const DEPRECATED: &str = "deprecated: use the 'watch' parameter with a list operation instead";

/// Adds the paths and schemas of a kind and of its subresources.
pub fn of_kind(row: &KindRow, schemas: &mut Schemas<'_>, paths: &mut Map<String, Value>) {
    let (object, list) = match (row.schema(), &row.custom) {
        (Some(definition), _) if row.has_objects() || row.computed => {
            (schemas.reference(definition), schemas.list_reference(definition))
        }
        (Some(definition), _) => (schemas.reference(definition), Value::Null),
        (None, Some(custom)) => schemas.custom(row, custom),
        (None, None) => return,
    };
    let root = format!("/{}", super::path(&row.group, &row.version));
    let within = if row.namespaced() { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{within}/{}", row.plural);
    let mut builder = Builder { row, schemas, paths };
    let whole = Item { named: false, namespaced: row.namespaced(), subresource: "" };
    if row.computed {
        return builder.reads(&root, within, &object, &list);
    }
    if !row.has_objects() {
        let create = builder.create(&whole, &object);
        return builder.add(collection, &whole, vec![create], &[parameters::PRETTY]);
    }
    let mut operations = vec![
        builder.list(&whole, &list),
        builder.create(&whole, &object),
        builder.delete_collection(&whole),
    ];
    if row == Namespace::ROW {
        // Namespaces are only deleted one by one.
        operations.pop();
    }
    builder.add(collection.clone(), &whole, operations, &[parameters::PRETTY]);
    let single = Item { named: true, ..whole };
    let mut operations = builder.read_and_write(&single, &object);
    operations.push(builder.delete(&single));
    builder.add(format!("{collection}/{{name}}"), &single, operations, &[parameters::PRETTY]);
    for name in row.subresources.iter() {
        builder.subresource(&format!("{collection}/{{name}}/{name}"), name, &object);
    }
    if row.namespaced() {
        let everywhere = Item { namespaced: false, ..whole };
        let get = builder.list(&everywhere, &list);
        let items = [parameters::LIST, &[parameters::PRETTY]].concat();
        let get = Operation { parameters: &[], ..get };
        builder.add(format!("{root}/{}", row.plural), &everywhere, vec![get], &items);
    }
    builder.watches(&root, within);
}

/// A path of a kind.
#[derive(Clone, Copy)]
struct Item<'a> {
    named: bool,
    namespaced: bool,
    subresource: &'a str,
}

struct Builder<'a, 'b> {
    row: &'a KindRow,
    schemas: &'a mut Schemas<'b>,
    paths: &'a mut Map<String, Value>,
}

impl Builder<'_, '_> {
    fn add(
        &mut self,
        path: String,
        item: &Item<'_>,
        operations: Vec<Operation>,
        own: &[Parameter],
    ) {
        let dialect = self.schemas.dialect();
        let mut object: Map<String, Value> = operations
            .iter()
            .map(|operation| (operation.method.to_owned(), operation.render(dialect)))
            .collect();
        let mut parameters = Vec::new();
        if item.named {
            parameters.push(in_path(dialect, "name", format!("name of the {}", self.row.kind)));
        }
        if item.namespaced {
            parameters.push(in_path(dialect, "namespace", "namespace of the object".to_owned()));
        }
        if path.ends_with("{path}") {
            parameters.push(in_path(dialect, "path", "path of the proxied request".to_owned()));
        }
        parameters.extend(own.iter().map(|parameter| parameter.of(dialect)));
        object.insert("parameters".to_owned(), parameters.into());
        self.paths.insert(path, object.into());
    }

    /// `createCoreV1NamespacedPodEviction`
    fn id(&self, verb: &str, item: &Item<'_>, end: &str) -> String {
        let scope = if item.namespaced { "Namespaced" } else { "" };
        let group = camel(&self.row.group);
        let (version, kind) = (capital(&self.row.version), &self.row.kind);
        let (verb, middle) = verb.split_once(' ').unwrap_or((verb, ""));
        let subresource = capital(item.subresource);
        format!("{verb}{group}{version}{middle}{scope}{kind}{subresource}{end}")
    }

    fn operation(
        &self,
        (method, action): (&'static str, &'static str),
        id: String,
        description: String,
        parameters: &'static [Parameter],
        answer: &Value,
    ) -> Operation {
        let row = self.row;
        let group = camel(&row.group);
        let mut characters = group.chars();
        let first = characters.next().map(|first| first.to_ascii_lowercase());
        let group: String = first.into_iter().chain(characters).collect();
        Operation {
            method,
            action,
            id,
            description,
            tag: format!("{group}_{}", row.version),
            kind: (row.group.clone(), row.version.clone(), row.kind.clone()),
            custom: row.custom.is_some(),
            parameters,
            body: None,
            answer: answer.clone(),
        }
    }

    fn meta(&mut self, name: &str) -> Value {
        self.named(&format!("{META}.{name}"))
    }

    fn named(&mut self, name: &str) -> Value {
        match schema::definition(name) {
            Some(row) => self.schemas.reference(row),
            None => json!({"type": "object"}),
        }
    }

    fn list(&mut self, item: &Item<'_>, list: &Value) -> Operation {
        let end = if self.row.namespaced() && !item.namespaced { "ForAllNamespaces" } else { "" };
        let description = format!("list or watch objects of kind {}", self.row.kind);
        let id = self.id("list", item, end);
        self.operation(("get", "list"), id, description, parameters::LIST, list)
    }

    fn create(&mut self, item: &Item<'_>, object: &Value) -> Operation {
        let id = self.id("create", item, "");
        let description = match item.subresource {
            "" => format!("create {}", self.row.kind),
            name => format!("create {name} of {}", self.row.kind),
        };
        let body = Some((object.clone(), true));
        let create = self.operation(("post", "post"), id, description, parameters::CREATE, object);
        Operation { body, ..create }
    }

    fn delete_collection(&mut self, item: &Item<'_>) -> Operation {
        let (status, options) = (self.meta("Status"), self.meta("DeleteOptions"));
        let id = self.id("delete Collection", item, "");
        let description = format!("delete all selected objects of kind {}", self.row.kind);
        let (method, known) = (("delete", "deletecollection"), parameters::DELETE_COLLECTION);
        let delete = self.operation(method, id, description, known, &status);
        Operation { body: Some((options, false)), ..delete }
    }

    fn delete(&mut self, item: &Item<'_>) -> Operation {
        let (status, options) = (self.meta("Status"), self.meta("DeleteOptions"));
        let (id, description) = (self.id("delete", item, ""), format!("delete {}", self.row.kind));
        let method = ("delete", "delete");
        let delete = self.operation(method, id, description, parameters::DELETE, &status);
        Operation { body: Some((options, false)), ..delete }
    }

    fn get(&mut self, item: &Item<'_>, object: &Value) -> Operation {
        let id = self.id("read", item, "");
        self.operation(("get", "get"), id, self.about("read", item), &[], object)
    }

    fn about(&self, what: &str, item: &Item<'_>) -> String {
        let of = if item.subresource.is_empty() { "" } else { " of" };
        format!("{what} {}{of} the specified {}", item.subresource, self.row.kind)
            .replace("  ", " ")
    }

    fn put(&mut self, item: &Item<'_>, object: &Value) -> Operation {
        let (id, about) = (self.id("replace", item, ""), self.about("replace", item));
        let put = self.operation(("put", "put"), id, about, parameters::CREATE, object);
        Operation { body: Some((object.clone(), true)), ..put }
    }

    fn read_and_write(&mut self, item: &Item<'_>, object: &Value) -> Vec<Operation> {
        let patch = self.meta("Patch");
        let (id, about) = (self.id("patch", item, ""), self.about("partially update", item));
        let change = self.operation(("patch", "patch"), id, about, parameters::PATCH, object);
        let change = Operation { body: Some((patch, true)), ..change };
        vec![self.get(item, object), self.put(item, object), change]
    }

    fn subresource(&mut self, path: &str, name: &str, object: &Value) {
        let Subresource { group, version, kind, .. } = subresource(self.row, name);
        let body = schema::kind(&group, &version, &kind);
        let gvk: Gvk = (group, version, kind);
        let item = Item { named: true, namespaced: self.row.namespaced(), subresource: name };
        let text = json!({"type": "string"});
        let mut own = vec![parameters::PRETTY];
        let mut operations = match name {
            "log" => {
                own = parameters::of_stream(name).to_vec();
                vec![self.get(&item, &text)]
            }
            "exec" | "attach" | "portforward" | "proxy" => return self.streams(path, &item, gvk),
            "finalize" => vec![self.put(&item, object)],
            "eviction" | "binding" | "token" => {
                let body = body.map(|row| self.schemas.reference(row));
                vec![self.create(&item, &body.unwrap_or_else(|| json!({"type": "object"})))]
            }
            "scale" => {
                let scale = self.named("io.k8s.api.autoscaling.v1.Scale");
                self.read_and_write(&item, &scale)
            }
            _ => self.read_and_write(&item, object),
        };
        operations.iter_mut().for_each(|operation| operation.kind = gvk.clone());
        self.add(path.to_owned(), &item, operations, &own);
    }

    /// `exec` and its like, and what follows `proxy`.
    fn streams(&mut self, path: &str, item: &Item<'_>, kind: Gvk) {
        let proxy = item.subresource == "proxy";
        let methods: &[&'static str] = if proxy { PROXIED } else { &["get", "post"] };
        let ends: &[&str] = if proxy { &["", "WithPath"] } else { &[""] };
        for end in ends {
            let connect = methods.iter().map(|method| {
                let id = self.id(&format!("connect {}", capital(method)), item, end);
                let description = format!(
                    "connect {} requests to {} of {}",
                    method.to_uppercase(),
                    item.subresource,
                    self.row.kind
                );
                let text = json!({"type": "string"});
                let method = (*method, "connect");
                let kind = kind.clone();
                Operation { kind, ..self.operation(method, id, description, &[], &text) }
            });
            let connect = connect.collect();
            let path = if end.is_empty() { path.to_owned() } else { format!("{path}/{{path}}") };
            self.add(path, item, connect, parameters::of_stream(item.subresource));
        }
    }

    /// What there is of a kind whose objects are computed.
    fn reads(&mut self, root: &str, within: &str, object: &Value, list: &Value) {
        let plural = &self.row.plural;
        let (collection, all) = (format!("{root}{within}/{plural}"), format!("{root}/{plural}"));
        let whole = Item { named: false, namespaced: self.row.namespaced(), subresource: "" };
        let single = Item { named: true, ..whole };
        let get = self.get(&single, object);
        self.add(format!("{collection}/{{name}}"), &single, vec![get], &[parameters::PRETTY]);
        for (path, item) in [(collection, whole), (all, Item { namespaced: false, ..whole })] {
            let list = self.list(&item, list);
            self.add(path, &item, vec![list], &[parameters::PRETTY]);
        }
    }

    /// The deprecated paths of watches.
    fn watches(&mut self, root: &str, within: &str) {
        let (row, event) = (self.row, self.schemas.watch_event());
        let own = [parameters::LIST, &[parameters::PRETTY]].concat();
        let whole = Item { named: false, namespaced: row.namespaced(), subresource: "" };
        let (single, everywhere) =
            (Item { named: true, ..whole }, Item { namespaced: false, ..whole });
        let mut paths = vec![
            (format!("{root}/watch{within}/{}", row.plural), whole, "List"),
            (format!("{root}/watch{within}/{}/{{name}}", row.plural), single, ""),
        ];
        if row.namespaced() {
            let all = "ListForAllNamespaces";
            paths.push((format!("{root}/watch/{}", row.plural), everywhere, all));
        }
        for (path, item, end) in paths {
            let id = self.id("watch", &item, end);
            let (action, description) = match item.named {
                true => ("watch", format!("watch an object of kind {}. {DEPRECATED}", row.kind)),
                false => ("watchlist", format!("watch a list of {}. {DEPRECATED}", row.kind)),
            };
            let get = self.operation(("get", action), id, description, &[], &event);
            self.add(path, &item, vec![get], &own);
        }
    }
}

/// `RbacAuthorization` of `rbac.authorization.k8s.io`; `Core` of the core group.
fn camel(group: &str) -> String {
    match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => "Core".to_owned(),
        parts => parts.split('.').map(capital).collect(),
    }
}

fn capital(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}
