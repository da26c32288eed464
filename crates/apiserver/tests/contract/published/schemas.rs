//! Definitions with the measures of published ones, and objects that fit them.

use serde_json::{Map, Value, json};

use super::rows::Row;

/// The order of the versions' names; the first one is stored.
pub const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// The message of the rule that every definition has.
pub const MESSAGE: &str = "level must not be above limit";

/// A sequence of numbers that is the same in every run.
pub struct Sequence(u64);

impl Sequence {
    pub fn of(text: &str) -> Self {
        Self(text.bytes().fold(7, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// A node of a schema.
struct Node {
    schema: Value,
    /// Members of an object, by name, or the one element of a list or map.
    below: Vec<(String, usize)>,
    element: Option<&'static str>,
    depth: usize,
    /// Below a list or a map, where rules cost more and cannot see what was there before.
    repeated: bool,
}

/// A schema as it grows.
struct Tree<'a> {
    row: &'a Row,
    nodes: Vec<Node>,
    objects: Vec<usize>,
    numbers: Sequence,
}

impl<'a> Tree<'a> {
    fn new(row: &'a Row) -> Self {
        let mut tree = Self {
            row,
            nodes: Vec::new(),
            objects: Vec::new(),
            numbers: Sequence::of(row.resource),
        };
        tree.nodes.push(Node {
            schema: json!({"type": "object"}),
            below: Vec::new(),
            element: None,
            depth: 0,
            repeated: false,
        });
        tree
    }

    fn add(
        &mut self,
        parent: usize,
        name: &str,
        schema: Value,
        element: Option<&'static str>,
    ) -> usize {
        let (index, above) = (self.nodes.len(), &self.nodes[parent]);
        let (depth, repeated) = (above.depth + 1, above.repeated || above.element.is_some());
        self.nodes.push(Node { schema, below: Vec::new(), element, depth, repeated });
        self.nodes[parent].below.push((name.to_owned(), index));
        index
    }

    fn name(&self) -> String {
        format!("field{}", self.nodes.len())
    }

    fn object(&mut self, parent: usize, name: &str) -> usize {
        let index = self.add(parent, name, json!({"type": "object"}), None);
        self.objects.push(index);
        index
    }

    /// An object that may still have members, not too deep.
    fn parent(&mut self) -> usize {
        let depth = self.row.count("depth");
        loop {
            let found = self.objects[self.numbers.below(self.objects.len())];
            if self.nodes[found].depth < depth.max(3) {
                return found;
            }
        }
    }

    /// Puts a list or a map below an object: its element is an object if one is left.
    fn collection(&mut self, parent: usize, column: &str, objects: &mut usize) {
        let bound = |limit: &str| json!({limit: 8});
        let (mut schema, element) = match column {
            "map" => (json!({"type": "object"}), "additionalProperties"),
            "atomic" => (json!({"type": "array", "x-kubernetes-list-type": "atomic"}), "items"),
            "set" => (json!({"type": "array", "x-kubernetes-list-type": "set"}), "items"),
            "keyed" => (
                json!({"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["key"]}),
                "items",
            ),
            _ => (json!({"type": "array"}), "items"),
        };
        if self.row.count("bound") > 0 {
            let limit = if column == "map" { "maxProperties" } else { "maxItems" };
            extend(&mut schema, bound(limit));
        }
        let name = self.name();
        let list = self.add(parent, &name, schema, Some(element));
        let room = self.nodes[list].depth < self.row.count("depth");
        if column == "keyed" {
            let item = self.object(list, "");
            *objects = objects.saturating_sub(1);
            self.add(item, "key", json!({"type": "string", "maxLength": 16}), None);
            self.nodes[item].schema["required"] = json!(["key"]);
        } else if *objects > 0 && room && matches!(column, "list" | "atomic" | "map") {
            *objects -= 1;
            self.object(list, "");
        } else {
            self.add(list, "", json!({"type": "string", "maxLength": 64}), None);
        }
    }

    fn emit(&self, index: usize, text: &str) -> Value {
        let node = &self.nodes[index];
        let mut schema = node.schema.clone();
        if index > 0 {
            schema["description"] = text.into();
        }
        let below = |(name, index): &(String, usize)| (name.clone(), self.emit(*index, text));
        match node.element {
            Some(element) => schema[element] = self.emit(node.below[0].1, text),
            None if !node.below.is_empty() => {
                schema["properties"] = Value::Object(node.below.iter().map(below).collect());
            }
            None => {}
        }
        schema
    }
}

fn extend(schema: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    schema.as_object_mut().unwrap().extend(more);
}

/// The schema of one version.
fn schema(row: &Row) -> Value {
    let mut tree = Tree::new(row);
    let spec = tree.object(0, "spec");
    tree.nodes[0].schema["required"] = json!(["spec"]);
    for (name, schema) in [
        ("level", json!({"type": "integer", "maximum": 1_000})),
        ("limit", json!({"type": "integer", "default": 10})),
        ("mode", json!({"type": "string", "enum": ["One", "Two"], "maxLength": 8})),
    ] {
        tree.add(spec, name, schema, None);
    }
    tree.nodes[spec].schema["required"] = json!(["level"]);
    let status = json!({"type": "object", "properties": {"count": {"type": "integer"}}});
    tree.add(0, "status", status, None);
    let mut objects = row.count("object").saturating_sub(1);
    // As deep as the published one.
    let mut at = spec;
    while objects > 0 && tree.nodes[at].depth + 1 < row.count("depth") {
        let name = tree.name();
        at = tree.object(at, &name);
        objects -= 1;
    }
    for column in ["keyed", "list", "atomic", "map", "set"] {
        for _ in 0..row.count(column) {
            let parent = tree.parent();
            tree.collection(parent, column, &mut objects);
        }
    }
    for _ in 0..objects {
        let (parent, name) = (tree.parent(), tree.name());
        tree.object(parent, &name);
    }
    leaves(&mut tree);
    wholes(&mut tree);
    rules(&mut tree, spec);
    let nodes = tree.nodes.len();
    let bare = tree.emit(0, "").to_string().len();
    let wanted = 1_000 * row.count("kb") / row.count("versions");
    let text = "x".repeat(wanted.saturating_sub(bare) / nodes);
    tree.emit(0, &text)
}

/// The members that have none of their own, with their bounds, defaults and nulls.
fn leaves(tree: &mut Tree<'_>) {
    let row = tree.row;
    let kinds = [
        ("string", json!({"type": "string", "maxLength": 64})),
        ("integer", json!({"type": "integer", "format": "int64"})),
        ("number", json!({"type": "number", "minimum": 0})),
        ("boolean", json!({"type": "boolean"})),
        ("enum", json!({"type": "string", "enum": ["One", "Two"]})),
        (
            "pattern",
            json!({"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}),
        ),
        ("time", json!({"type": "string", "format": "date-time"})),
        ("byte", json!({"type": "string", "format": "byte"})),
        ("cidr", json!({"type": "string", "format": "cidr"})),
        (
            "intstr",
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true}),
        ),
        ("preserve", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
        (
            "embedded",
            json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true}),
        ),
    ];
    let (mut defaults, mut nulls, mut required) =
        (row.count("default"), row.count("nullable"), row.count("required"));
    for (column, schema) in kinds {
        for _ in 0..row.count(column) {
            let (parent, name) = (tree.parent(), tree.name());
            let mut schema = schema.clone();
            let default = match column {
                "boolean" => json!(true),
                "enum" => json!("Two"),
                "integer" => json!(3),
                _ => Value::Null,
            };
            if !default.is_null() && defaults > 0 {
                defaults -= 1;
                schema["default"] = default;
            } else if nulls > 0 {
                nulls -= 1;
                schema["nullable"] = true.into();
            } else if required > 0 && column != "preserve" {
                required -= 1;
                let all = &mut tree.nodes[parent].schema["required"];
                match all.as_array_mut() {
                    Some(all) => all.push(name.clone().into()),
                    None => *all = json!([name]),
                }
            }
            tree.add(parent, &name, schema, None);
        }
    }
}

/// The names of an object's members of a type.
fn members(tree: &Tree<'_>, object: usize, fits: impl Fn(&Value) -> bool) -> Vec<String> {
    let below = tree.nodes[object].below.iter();
    below
        .filter(|(_, index)| fits(&tree.nodes[*index].schema))
        .map(|(name, _)| name.clone())
        .collect()
}

fn is_text(schema: &Value) -> bool {
    schema["maxLength"] == 64 && schema["type"] == "string" && schema.get("nullable").is_none()
}

/// Atomic objects, and objects of which one of two members has to be there.
fn wholes(tree: &mut Tree<'_>) {
    let (mut atomic, mut either) = (tree.row.count("whole"), tree.row.count("either"));
    for object in tree.objects.clone() {
        let texts = members(tree, object, is_text);
        let only_texts = !texts.is_empty() && texts.len() == tree.nodes[object].below.len();
        if only_texts && atomic > 0 {
            atomic -= 1;
            tree.nodes[object].schema["x-kubernetes-map-type"] = "atomic".into();
        } else if let ([one, other, ..], true) = (&texts[..], either > 0) {
            either -= 1;
            tree.nodes[object].schema["anyOf"] =
                json!([{"required": [one]}, {"required": [other]}]);
        }
    }
}

fn add_rule(tree: &mut Tree<'_>, object: usize, rule: String, message: &str) {
    let rules = &mut tree.nodes[object].schema["x-kubernetes-validations"];
    let rule = json!({"rule": rule, "message": message});
    match rules.as_array_mut() {
        Some(rules) => rules.push(rule),
        None => *rules = json!([rule]),
    }
}

/// The rules, which use the functions that the published ones use.
fn rules(tree: &mut Tree<'_>, spec: usize) {
    if tree.row.count("rule") == 0 {
        let level = tree.nodes[spec].below[0].1;
        tree.nodes[level].schema["maximum"] = 10.into();
        return;
    }
    add_rule(tree, spec, "self.level <= self.limit".to_owned(), MESSAGE);
    let functions: Vec<&str> = tree.row.text("functions").split(',').collect();
    let (count, changes) = (tree.row.count("rule") - 1, tree.row.count("change"));
    let objects = tree.objects.iter().copied();
    let rooms: Vec<usize> = objects.filter(|object| !tree.nodes[*object].repeated).collect();
    for number in 0..count {
        let object = rooms[number % rooms.len()];
        let lists = members(tree, object, |schema| schema["maxItems"] == 8);
        let texts = members(tree, object, is_text);
        let function = functions[number % functions.len()];
        let rule = match (function, lists.first(), texts.first()) {
            (_, _, Some(text)) if number < changes => {
                format!("!has(oldSelf.{text}) || self.{text} == oldSelf.{text}")
            }
            ("size", Some(list), _) => format!("!has(self.{list}) || size(self.{list}) <= 8"),
            ("all", Some(list), _) => {
                format!("!has(self.{list}) || self.{list}.all(one, size('text') == 4)")
            }
            ("exists", Some(list), _) => {
                format!(
                    "!has(self.{list}) || size(self.{list}) == 0 || self.{list}.exists(one, size('text') == 4)"
                )
            }
            (_, _, Some(text)) => {
                let holds = match function {
                    "matches" => format!("!self.{text}.matches('^forbidden')"),
                    "isip" => format!("!isIP(self.{text}) || ip(self.{text}).family() == 4"),
                    "cidr" => {
                        format!("!isCIDR(self.{text}) || cidr(self.{text}).prefixLength() > 7")
                    }
                    "duration" => {
                        format!("self.{text} != '1h' || duration(self.{text}) > duration('1m')")
                    }
                    "split" => format!("self.{text}.split(',').size() < 100"),
                    _ => format!("self.{text} != 'forbidden'"),
                };
                format!("!has(self.{text}) || {holds}")
            }
            _ => "size('text') == 4".to_owned(),
        };
        add_rule(tree, object, rule, &format!("rule {number}"));
    }
}

/// The definition of a row.
pub fn definition(row: &Row) -> Value {
    let schema = schema(row);
    let subresource = |name: &str| row.has("subresources", name);
    let columns = [
        json!({"name": "Level", "type": "integer", "jsonPath": ".spec.level"}),
        json!({"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        json!({"name": "Ready", "type": "string", "priority": 1,
            "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
    ];
    let columns = columns.iter().cycle().take(row.count("columns")).enumerate();
    let columns: Vec<Value> = columns
        .map(|(number, column)| {
            let mut column = column.clone();
            column["name"] = format!("{} {number}", column["name"].as_str().unwrap()).into();
            column
        })
        .collect();
    let fields = [".spec.level", ".spec.mode", ".spec.limit"].iter().take(row.count("selectable"));
    let fields: Vec<Value> = fields.map(|field| json!({"jsonPath": field})).collect();
    let served = row.count("served");
    let versions = VERSIONS.iter().take(row.count("versions")).enumerate();
    let versions: Vec<Value> = versions
        .map(|(number, name)| {
            let mut version = json!({"name": name, "served": number < served, "storage": number == 0,
                "schema": {"openAPIV3Schema": schema}});
            if number > 0 && row.text("deprecated") == "yes" {
                version["deprecated"] = true.into();
            }
            if !columns.is_empty() {
                version["additionalPrinterColumns"] = columns.clone().into();
            }
            if !fields.is_empty() {
                version["selectableFields"] = fields.clone().into();
            }
            if subresource("status") {
                version["subresources"]["status"] = json!({});
            }
            if subresource("scale") {
                version["subresources"]["scale"] = json!({"specReplicasPath": ".spec.limit",
                    "statusReplicasPath": ".status.count"});
            }
            version
        })
        .collect();
    let (plural, kind) = (row.plural(), row.kind());
    let texts = |count: usize| -> Vec<String> {
        let own = row.resource.replace('.', "-");
        (0..count).map(|number| format!("s{number}-{own}")).collect()
    };
    let mut names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
        "listKind": format!("{kind}List")});
    for (field, column) in [("shortNames", "short"), ("categories", "categories")] {
        let texts = texts(row.count(column));
        if !texts.is_empty() {
            names[field] = texts.into();
        }
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": row.resource,
            "annotations": {"api-approved.kubernetes.io": "https://example.com/approved"}},
        "spec": {"group": row.group(), "scope": row.text("scope"), "versions": versions,
            "names": names}})
}

/// An object of a definition that is valid, and that has about half of the fields it may have.
pub fn object(row: &Row, definition: &Value, name: &str) -> Value {
    let mut numbers = Sequence::of(name);
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut spec = value(&schema["properties"]["spec"], &mut numbers);
    spec["level"] = 5.into();
    spec["limit"] = 10.into();
    json!({"apiVersion": format!("{}/{}", row.group(), VERSIONS[0]), "kind": row.kind(),
        "metadata": {"name": name}, "spec": spec})
}

/// A value that fits a schema.
fn value(schema: &Value, numbers: &mut Sequence) -> Value {
    let number = numbers.below(1_000);
    if schema["x-kubernetes-int-or-string"] == true {
        return if number.is_multiple_of(2) {
            number.into()
        } else {
            format!("{}%", number % 100).into()
        };
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        return json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inner"},
            "data": {"number": number.to_string()}});
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return json!({"any": {"list": [number, {"deep": null}]}});
    }
    if schema["nullable"] == true && number.is_multiple_of(4) {
        return Value::Null;
    }
    match (schema["type"].as_str().unwrap(), schema["format"].as_str()) {
        ("object", _) => fields(schema, numbers),
        ("array", _) => {
            let item = |number: usize, numbers: &mut Sequence| {
                let mut item = value(&schema["items"], numbers);
                match schema["x-kubernetes-list-type"].as_str() {
                    Some("map") => item["key"] = format!("key{number}").into(),
                    Some("set") => item = format!("item{number}").into(),
                    _ => {}
                }
                item
            };
            (0..=number % 2).map(|number| item(number, numbers)).collect()
        }
        ("string", Some("date-time")) => "2026-01-02T03:04:05Z".into(),
        ("string", Some("byte")) => "c29tZXRoaW5n".into(),
        ("string", Some("cidr")) => format!("10.{}.0.0/16", number % 256).into(),
        ("string", _) => match schema["enum"].as_array() {
            Some(all) => all[number % all.len()].clone(),
            None => format!("text{number}").into(),
        },
        ("boolean", _) => number.is_multiple_of(2).into(),
        ("number", _) => json!(f64::from(u32::try_from(number).unwrap()) / 4.0),
        _ => number.into(),
    }
}

fn fields(schema: &Value, numbers: &mut Sequence) -> Value {
    if let Some(value_schema) = schema.get("additionalProperties") {
        let entries = 0..=numbers.below(2);
        let entry = |number| (format!("entry{number}"), value(value_schema, numbers));
        return Value::Object(entries.map(entry).collect());
    }
    let is_listed = |list: &Value, name: &str| {
        list.as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    let mut object = Map::new();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let needed = is_listed(&schema["required"], name)
            || is_listed(&schema["anyOf"][0]["required"], name);
        if needed || numbers.below(2) == 0 {
            object.insert(name.clone(), value(member, numbers));
        }
    }
    Value::Object(object)
}
