//! Documents of other servers, merged into the one of all kinds (OpenAPI v2). Pure.
//!
//! Of a definition that both have, one is enough; another one of the same name is renamed, as
//! `k8s.io/kube-openapi/pkg/aggregator` does it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What is referred to by name.
const SECTIONS: [&str; 2] = ["definitions", "parameters"];

/// A section and a name in it.
type Place = (&'static str, String);

/// Adds the paths of another document, and what they refer to. What is malformed is left out.
pub fn merge(ours: &mut Value, theirs: &Value) {
    let Some(paths) = theirs.get("paths").and_then(Value::as_object) else {
        return;
    };
    let found = |(section, name): &Place| theirs.get(section)?.get(name);
    let mut names: BTreeMap<Place, String> = BTreeMap::new();
    let mut open: Vec<Place> = Vec::new();
    for path in paths.values() {
        collect(path, &mut open);
    }
    while let Some(place) = open.pop() {
        if names.contains_key(&place) {
            continue;
        }
        if let Some(value) = found(&place) {
            names.insert(place.clone(), free_name(ours, &place, value));
            collect(value, &mut open);
        }
    }
    for (place, name) in &names {
        let Some(mut value) = found(place).cloned() else { continue };
        rename(&mut value, &names);
        section(ours, place.0).entry(name.clone()).or_insert(value);
    }
    for (path, value) in paths {
        let mut value = value.clone();
        rename(&mut value, &names);
        section(ours, "paths").insert(path.clone(), value);
    }
}

fn section<'a>(document: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let section = &mut document[name];
    if !section.is_object() {
        *section = Value::Object(Map::new());
    }
    section.as_object_mut().expect("it is an object now")
}

/// The first name of its kind that is free, or means the same.
fn free_name(ours: &Value, (section, name): &Place, value: &Value) -> String {
    let fits = |name: &str| ours[*section].get(name).is_none_or(|known| known == value);
    if fits(name) {
        return name.clone();
    }
    let numbered = (2_u32..).map(|number| format!("{name}_v{number}"));
    numbered.into_iter().find(|name| fits(name)).expect("there are numbers without end")
}

fn place(reference: &str) -> Option<Place> {
    let (section, name) = reference.strip_prefix("#/")?.split_once('/')?;
    let section = SECTIONS.into_iter().find(|known| *known == section)?;
    Some((section, name.to_owned()))
}

/// Everything that a value refers to.
fn collect(value: &Value, found: &mut Vec<Place>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).and_then(place));
            members.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<Place, String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get_mut("$ref")
                && let Some(place) = reference.as_str().and_then(place)
                && let Some(name) = names.get(&place)
            {
                *reference = format!("#/{}/{name}", place.0).into();
            }
            members.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_paths_refer_to_comes_along_under_a_free_name() {
        let mut ours = json!({"paths": {"/apis/a": {}}, "definitions": {
            "Same": {"type": "object"}, "Other": {"type": "string"}, "Other_v2": {"type": "number"}}});
        let theirs = json!({
            "paths": {"/apis/b": {"get": {"parameters": [{"$ref": "#/parameters/p"}],
                "schema": {"$ref": "#/definitions/Other"}}}},
            "parameters": {"p": {"name": "p"}, "unused": {}},
            "definitions": {
                "Other": {"properties": {"same": {"$ref": "#/definitions/Same"},
                    "self": {"$ref": "#/definitions/Other"}, "odd": {"$ref": "elsewhere"},
                    "gone": {"$ref": "#/definitions/Missing"}}},
                "Same": {"type": "object"}, "Unused": {}}});
        let expected = json!({
            "paths": {"/apis/a": {}, "/apis/b": {"get": {"parameters": [{"$ref": "#/parameters/p"}],
                "schema": {"$ref": "#/definitions/Other_v3"}}}},
            "parameters": {"p": {"name": "p"}},
            "definitions": {
                "Same": {"type": "object"}, "Other": {"type": "string"}, "Other_v2": {"type": "number"},
                "Other_v3": {"properties": {"same": {"$ref": "#/definitions/Same"},
                    "self": {"$ref": "#/definitions/Other_v3"}, "odd": {"$ref": "elsewhere"},
                    "gone": {"$ref": "#/definitions/Missing"}}}}});
        merge(&mut ours, &theirs);
        assert_eq!(ours, expected);
        for odd in [json!(null), json!([]), json!({"paths": 1}), json!({"paths": {"/x": [1]}})] {
            merge(&mut ours, &odd);
        }
        assert_eq!(ours["definitions"], expected["definitions"]);
    }
}
