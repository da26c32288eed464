//! One operation of a path, in either dialect.

use api::kind::Text;
use serde_json::{Map, Value, json};

use super::parameters::Parameter;
use super::schemas::Dialect;

/// What answers can be written in.
const PRODUCED: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Also for lists, which can be watched.
const STREAMED: &str = "application/json;stream=watch";
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
const ANY: &[&str] = &["*/*"];

/// A group, version and kind.
pub type Gvk = (Text, Text, Text);

/// A method of a path.
pub struct Operation {
    pub method: &'static str,
    /// What Kubernetes calls it: `list`, `watchlist`, `connect` …
    pub action: &'static str,
    pub id: String,
    pub description: String,
    pub tag: String,
    pub kind: Gvk,
    /// Of a custom resource, which has no protobuf form and no strategic merge patch.
    pub custom: bool,
    pub parameters: &'static [Parameter],
    /// The schema of the body, and whether there must be one.
    pub body: Option<(Value, bool)>,
    pub answer: Value,
}

impl Operation {
    /// As JSON.
    pub fn render(&self, dialect: Dialect) -> Value {
        let (group, version, kind) = &self.kind;
        let mut operation = json!({
            "description": self.description,
            "operationId": self.id,
            "tags": [self.tag],
            "responses": self.responses(dialect),
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let mut parameters: Vec<Value> =
            self.parameters.iter().map(|parameter| parameter.of(dialect)).collect();
        match (dialect, &self.body) {
            (Dialect::V3, Some((schema, required))) => {
                let content = content(self.consumed(), schema);
                operation["requestBody"] = json!({"content": content});
                if *required {
                    operation["requestBody"]["required"] = true.into();
                }
            }
            (Dialect::V2, Some((schema, required))) => {
                let mut body = json!({"in": "body", "name": "body", "schema": schema});
                if *required {
                    body["required"] = true.into();
                }
                parameters.insert(0, body);
            }
            (_, None) => {}
        }
        if dialect == Dialect::V2 {
            operation["consumes"] = self.consumed().into();
            operation["produces"] = self.produced().into();
            operation["schemes"] = json!(["https"]);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        operation
    }

    fn consumed(&self) -> &'static [&'static str] {
        match self.method {
            "patch" if self.action != "connect" && self.custom => CUSTOM_PATCHES,
            "patch" if self.action != "connect" => PATCHES,
            _ => ANY,
        }
    }

    fn produced(&self) -> Vec<&'static str> {
        match self.action {
            "connect" => ANY.to_vec(),
            _ if self.custom => PRODUCED[..2].to_vec(),
            "list" | "watch" | "watchlist" => [PRODUCED, &[STREAMED]].concat(),
            "get" if self.id.ends_with("Log") => [&["text/plain"], PRODUCED].concat(),
            _ => PRODUCED.to_vec(),
        }
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let codes: &[(&str, &str)] = match (self.method, self.action) {
            ("post", "post") => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            ("put" | "patch", "put" | "patch") => &[("200", "OK"), ("201", "Created")],
            ("delete", "delete") => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let mut responses: Map<String, Value> = codes
            .iter()
            .map(|(code, text)| {
                let mut response = json!({"description": text});
                match dialect {
                    Dialect::V2 => response["schema"] = self.answer.clone(),
                    Dialect::V3 => {
                        response["content"] = content(&self.produced(), &self.answer).into();
                    }
                }
                ((*code).to_owned(), response)
            })
            .collect();
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        responses.into()
    }
}

fn content(media: &[&str], schema: &Value) -> Map<String, Value> {
    media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
}
