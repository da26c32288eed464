//! `skiff explain`: documents fields, from the server's OpenAPI documents.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::discovery::{Resource, Resources};
use crate::request::Connection;

/// Width at which descriptions are wrapped.
const WIDTH: usize = 76;
/// Depth at which --recursive stops: some types contain themselves.
const DEPTH_MAX: usize = 12;
/// Values that are shown beside a field; the field itself lists all.
const VALUES_MAX: usize = 4;

#[derive(clap::Args)]
pub struct Args {
    /// TYPE, or TYPE.field.field
    path: Option<String>,
    /// Show the names of all fields below
    #[arg(long)]
    recursive: bool,
    /// group/version, if not the preferred one
    #[arg(long)]
    api_version: Option<String>,
}

/// The schemas of one group version.
struct Schemas(Value);

impl Schemas {
    /// Follows references, also those in an `allOf` with one entry, which puts a description beside
    /// one.
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..8 {
            let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
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
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        let resolved = self.resolve(schema);
        if resolved["items"].is_object() {
            return format!("[]{}", self.type_name(&resolved["items"]));
        }
        if resolved["additionalProperties"].is_object() {
            return format!("map[string]{}", self.type_name(&resolved["additionalProperties"]));
        }
        match (reference, resolved["type"].as_str()) {
            (Some(reference), Some("object") | None) => {
                reference.rsplit('.').next().unwrap_or_default().to_owned()
            }
            (_, Some("object")) => "Object".to_owned(),
            (_, Some(name)) => name.to_owned(),
            (_, None) => "Object".to_owned(),
        }
    }

    /// What a field may be, if the schema lists it.
    fn values<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        let shown = |value: &'a str| if value.is_empty() { "\"\"" } else { value };
        self.resolve(schema)["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(shown)
            .collect()
    }
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let Some(path) = &args.path else {
        bail!(
            "You must specify the type of resource to explain. Use \"skiff api-resources\" for a complete list of supported resources."
        );
    };
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut parts = path.split('.');
    let word = parts.next().unwrap_or_default();
    let found = match &args.api_version {
        None => resources.find(word)?,
        Some(version) => {
            let found = resources.find(word)?;
            resources.of_kind(version, &found.kind).map_err(|_| {
                anyhow::anyhow!(
                    "couldn't find resource for \"{version}, Resource={}\"",
                    found.plural
                )
            })?
        }
    };
    let prefix = if found.group.is_empty() { "api" } else { "apis" };
    let path = format!("/openapi/v3/{prefix}/{}", found.api_version());
    let body = client.get_path(&path, "application/json").await?;
    let schemas =
        Schemas(serde_json::from_slice(&body).context("the OpenAPI document is not JSON")?);
    let all = schemas.0["components"]["schemas"]
        .as_object()
        .context("the OpenAPI document has no schemas")?;
    let is_kind = |schema: &&Value| {
        schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten().any(|kind| {
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
            print_kind(found);
            bail!("field {name:?} does not exist")
        };
        field = Some((name, next));
        schema = next;
    }
    print(&schemas, found, field, schema, args.recursive);
    Ok(ExitCode::SUCCESS)
}

fn print_kind(resource: &Resource) {
    if !resource.group.is_empty() {
        println!("GROUP:      {}", resource.group);
    }
    println!("KIND:       {}\nVERSION:    {}\n", resource.kind, resource.version);
}

fn print(
    schemas: &Schemas,
    resource: &Resource,
    field: Option<(&str, &Value)>,
    schema: &Value,
    recursive: bool,
) {
    print_kind(resource);
    if let Some((name, schema)) = field {
        println!("FIELD: {name} <{}>", schemas.type_name(schema));
        let values = schemas.values(schema);
        if values.is_empty() {
            println!("\n");
        } else {
            println!("ENUM:\n    {}\n", values.join("\n    "));
        }
    }
    println!("DESCRIPTION:");
    let object = schemas.object(schema);
    let mut texts: Vec<&str> = Vec::new();
    for text in [&schema["description"], &object["description"]] {
        texts.extend(text.as_str().filter(|text| !texts.contains(text)));
    }
    if texts.is_empty() {
        texts.push("<empty>");
    }
    for line in texts.into_iter().flat_map(wrap) {
        println!("    {line}");
    }
    println!("    ");
    if object["properties"].is_object() {
        println!("FIELDS:");
        fields(schemas, object, recursive, 1);
    }
    println!();
}

fn fields(schemas: &Schemas, object: &Value, recursive: bool, depth: usize) {
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let indent = "  ".repeat(depth);
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        let mark = if required.contains(&name.as_str()) { " -required-" } else { "" };
        println!("{indent}{name}\t<{}>{mark}", schemas.type_name(schema));
        let values = schemas.values(schema);
        if !values.is_empty() {
            let more = if values.len() > VALUES_MAX { ", ...." } else { "" };
            println!("{indent}enum: {}{more}", values[..values.len().min(VALUES_MAX)].join(", "));
        }
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

/// Lines of at most [`WIDTH`]. An empty line separates paragraphs, an indented one stands alone.
fn wrap(text: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let alone = line.trim().is_empty() || line.starts_with(' ');
        match paragraphs.last_mut() {
            Some(paragraph) if open && !alone => {
                paragraph.push(' ');
                paragraph.push_str(line);
            }
            _ => paragraphs.push(line.to_owned()),
        }
        open = !alone;
    }
    let mut lines = Vec::new();
    for paragraph in paragraphs {
        let text = paragraph.trim_start_matches(' ');
        let mut line = " ".repeat(paragraph.len() - text.len());
        for (index, word) in text.split(' ').enumerate() {
            if line.len() + word.len() + 1 > WIDTH && !line.trim().is_empty() {
                lines.push(line.trim_end().to_owned());
                line.clear();
            } else if index > 0 && !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_joined_and_indented_lines_stand_alone() {
        let long = "word ".repeat(20);
        assert_eq!(wrap("a\nb  c\n\nd\n  e\nf"), ["a b  c", "", "d", "  e", "f"]);
        assert_eq!(wrap(long.trim()).len(), 2);
    }
}
