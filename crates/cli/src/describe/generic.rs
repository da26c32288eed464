//! Any kind, field by field.

use serde_json::{Map, Value};

use crate::describe::labels;
use crate::describe::text::{Description, word};
use crate::output::go_text;

pub fn describe(object: &Value, out: &mut Description) {
    out.line("Name", word(&object["metadata"]["name"]));
    out.line("Namespace", word(&object["metadata"]["namespace"]));
    labels(object, out);
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for own in ["name", "namespace", "labels", "annotations", "managedFields"] {
            metadata.remove(own);
        }
    }
    if let Some(map) = object.as_object() {
        contents(map, out);
    }
}

fn contents(map: &Map<String, Value>, out: &mut Description) {
    for (key, value) in map {
        let title = title(key);
        match value {
            Value::Object(inner) => out.section(&title, |out| contents(inner, out)),
            Value::Array(items) => out.section(&title, |out| {
                for item in items {
                    match item {
                        Value::Object(inner) => contents(inner, out),
                        other => out.raw(&go_text(other)),
                    }
                }
            }),
            other => out.line(&title, go_text(other)),
        }
    }
}

/// `podIPs` becomes `Pod I Ps` in kubectl, `Pod IPs` here; keys with other characters are kept.
fn title(key: &str) -> String {
    let letters = key.chars().all(|character| character.is_alphabetic() || character == '-');
    if !letters {
        return key.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut before: Option<char> = None;
    for character in key.chars() {
        let starts = character.is_uppercase() && !before.is_some_and(char::is_uppercase);
        match words.last_mut() {
            Some(word) if !starts => word.push(character),
            _ => words.push(character.to_string()),
        }
        before = Some(character);
    }
    let capital = |word: String| match word.to_uppercase().as_str() {
        upper @ ("API" | "URL" | "UID" | "OSB" | "GUID") => upper.to_owned(),
        _ => {
            let mut characters = word.chars();
            let first = characters.next().map(char::to_uppercase);
            first.into_iter().flatten().chain(characters).collect()
        }
    };
    let words: Vec<String> = words.into_iter().map(capital).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        for (key, expected) in [
            ("podIPs", "Pod IPs"),
            ("spec", "Spec"),
            ("clusterIP", "Cluster IP"),
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("a.b/c", "a.b/c"),
        ] {
            assert_eq!(title(key), expected);
        }
    }
}
