//! Any kind, field by field.

use serde_json::Value;

use super::text::{Text, word};
use super::{heading, labels};

pub fn describe(object: &Value, out: &mut Text) {
    heading(object, out);
    labels(object, out);
    out.line("API Version", word(&object["apiVersion"]));
    out.line("Kind", word(&object["kind"]));
    out.section("Metadata", |out| {
        for (key, value) in object["metadata"].as_object().into_iter().flatten() {
            if !matches!(
                key.as_str(),
                "name" | "namespace" | "labels" | "annotations" | "managedFields"
            ) {
                field(key, value, out);
            }
        }
    });
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            field(key, value, out);
        }
    }
}

fn field(key: &str, value: &Value, out: &mut Text) {
    let title = title(key);
    match value {
        Value::Null => {}
        Value::Object(map) if map.is_empty() => out.line(&title, "{}"),
        Value::Object(map) => out.section(&title, |out| {
            for (key, value) in map {
                field(key, value, out);
            }
        }),
        Value::Array(items) => out.section(&title, |out| {
            for item in items {
                match item {
                    Value::Object(map) => {
                        for (key, value) in map {
                            field(key, value, out);
                        }
                    }
                    other => out.raw(&word(other)),
                }
            }
        }),
        other => out.line(&title, word(other)),
    }
}

/// `podIPs` becomes `Pod IPs`; keys that are not names (labels, files) stay as they are.
fn title(key: &str) -> String {
    if !key
        .chars()
        .all(|character| character.is_ascii_alphanumeric())
    {
        return key.to_owned();
    }
    let mut title = String::new();
    let mut before_lower = false;
    for (index, character) in key.chars().enumerate() {
        if index == 0 {
            title.push(character.to_ascii_uppercase());
        } else {
            if character.is_ascii_uppercase() && before_lower {
                title.push(' ');
            }
            title.push(character);
        }
        before_lower = character.is_ascii_lowercase();
    }
    title
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
            ("a.b/c", "a.b/c"),
        ] {
            assert_eq!(title(key), expected);
        }
    }
}
