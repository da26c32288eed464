//! `x-kubernetes-validations`.

use serde_json::{Map, Value};

/// A rule as the schema has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleText {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: String,
    pub field_path: String,
    pub optional_old_self: bool,
}

/// The rules of one schema.
pub fn read(schema: &Map<String, Value>) -> Box<[RuleText]> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .map(|rule| {
            let text =
                |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            RuleText {
                rule: text("rule"),
                message: text("message"),
                message_expression: text("messageExpression"),
                reason: text("reason"),
                field_path: text("fieldPath"),
                optional_old_self: rule["optionalOldSelf"].as_bool().unwrap_or_default(),
            }
        })
        .collect()
}

/// Rules cannot be judged, so no definition may have any.
pub fn errors(node: &super::node::Node, path: &str) -> Vec<crate::status::FieldError> {
    let mut found = Vec::new();
    for (index, rule) in node.rules.iter().enumerate() {
        let field = format!("{path}.x-kubernetes-validations[{index}].rule");
        let detail = "compilation failed: validation rules are not supported";
        found.push(crate::status::FieldError::invalid(field, &rule.rule, detail));
    }
    for child in node.children() {
        found.extend(errors(child, path));
    }
    found
}
