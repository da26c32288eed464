//! `skiff explain`: what fields mean, from the server's OpenAPI documents.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Connection;
use super::resources::Resources;

/// Width at which descriptions are wrapped.
const WIDTH: usize = 76;
/// Types nested deeper than this are not shown by --recursive: some contain themselves.
const DEPTH_MAX: usize = 12;

#[derive(clap::Args)]
pub struct Args {
    /// TYPE, or TYPE.field.field
    path: String,
    /// Show the names of all fields below
    #[arg(long)]
    recursive: bool,
    /// group/version, when it is not the preferred one
    #[arg(long)]
    api_version: Option<String>,
}

/// The schemas of one group version.
struct Schemas(Value);

impl Schemas {
    /// Follows references; `allOf` with one entry is how descriptions are put beside them.
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..8 {
            let reference = schema["$ref"]
                .as_str()
                .or_else(|| schema["allOf"][0]["$ref"].as_str());
            let Some(name) =
                reference.and_then(|reference| reference.strip_prefix("#/components/schemas/"))
            else {
                break;
            };
            schema = &self.0["components"]["schemas"][name];
        }
        schema
    }

    /// The object inside lists and maps.
    fn object<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let resolved = self.resolve(schema);
        for inner in ["items", "additionalProperties"] {
            if resolved[inner].is_object() {
                return self.object(&resolved[inner]);
            }
        }
        resolved
    }

    /// `<string>`, `<[]Container>`, `<map[string]string>`
    fn type_name(&self, schema: &Value) -> String {
        let reference = schema["$ref"]
            .as_str()
            .or_else(|| schema["allOf"][0]["$ref"].as_str());
        let resolved = self.resolve(schema);
        if resolved["items"].is_object() {
            return format!("[]{}", self.type_name(&resolved["items"]));
        }
        if resolved["additionalProperties"].is_object() {
            return format!(
                "map[string]{}",
                self.type_name(&resolved["additionalProperties"])
            );
        }
        match (reference, resolved["type"].as_str()) {
            (Some(reference), Some("object") | None) => {
                reference.rsplit('.').next().unwrap_or_default().to_owned()
            }
            (_, Some(name)) => name.to_owned(),
            (_, None) => "Object".to_owned(),
        }
    }
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut parts = args.path.split('.');
    let word = parts.next().unwrap_or_default();
    let found = match &args.api_version {
        None => resources.find(word)?,
        Some(version) => {
            let kind = &resources.find(word)?.kind;
            resources.of_kind(version, kind)?
        }
    };
    let prefix = if found.group.is_empty() {
        "api"
    } else {
        "apis"
    };
    let path = format!("/openapi/v3/{prefix}/{}", found.api_version());
    let body = client.get_path(&path, "application/json").await?;
    let schemas =
        Schemas(serde_json::from_slice(&body).context("the OpenAPI document is not JSON")?);
    let all = schemas.0["components"]["schemas"]
        .as_object()
        .context("the OpenAPI document has no schemas")?;
    let is_kind = |schema: &&Value| {
        schema["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|kind| {
                kind["group"] == found.group.as_str()
                    && kind["version"] == found.version.as_str()
                    && kind["kind"] == found.kind.as_str()
            })
    };
    let mut schema = all
        .values()
        .find(is_kind)
        .with_context(|| format!("couldn't find the schema of {}", found.kind))?;
    let mut field: Option<(&str, &Value)> = None;
    for name in parts {
        let properties = &schemas.object(schema)["properties"];
        let Some(next) = properties.get(name) else {
            bail!("field {name:?} does not exist")
        };
        field = Some((name, next));
        schema = next;
    }
    print(&schemas, found, field, schema, args.recursive);
    Ok(ExitCode::SUCCESS)
}

fn print(
    schemas: &Schemas,
    resource: &super::resources::Resource,
    field: Option<(&str, &Value)>,
    schema: &Value,
    recursive: bool,
) {
    if !resource.group.is_empty() {
        println!("GROUP:      {}", resource.group);
    }
    println!(
        "KIND:       {}\nVERSION:    {}\n",
        resource.kind, resource.version
    );
    if let Some((name, schema)) = field {
        println!("FIELD: {name} <{}>\n", schemas.type_name(schema));
    }
    println!("DESCRIPTION:");
    let own = schema["description"].as_str();
    let object = schemas.object(schema);
    let text = own
        .or_else(|| object["description"].as_str())
        .unwrap_or("<empty>");
    for line in wrap(text) {
        println!("    {line}");
    }
    if object["properties"].is_object() {
        println!("\nFIELDS:");
        fields(schemas, object, recursive, 1);
    }
}

fn fields(schemas: &Schemas, object: &Value, recursive: bool, depth: usize) {
    let required: Vec<&str> = object["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let indent = "  ".repeat(depth);
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        let mark = if required.contains(&name.as_str()) {
            " -required-"
        } else {
            ""
        };
        println!("{indent}{name}\t<{}>{mark}", schemas.type_name(schema));
        if recursive {
            let inner = schemas.object(schema);
            if inner["properties"].is_object() && depth < DEPTH_MAX {
                fields(schemas, inner, true, depth + 1);
            }
            continue;
        }
        let text = schema["description"]
            .as_str()
            .or_else(|| schemas.resolve(schema)["description"].as_str());
        for line in wrap(text.unwrap_or("<no description>")) {
            println!("{indent}  {line}");
        }
        println!();
    }
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + word.len() + 1 > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}
