//! How objects are printed: `-o wide|yaml|json|name|jsonpath=...|custom-columns=...`.

mod columns;
pub mod jsonpath;
pub mod table;

use std::str::FromStr;

use anyhow::bail;
use serde_json::{Value, json};

use super::resources::Resource;
use jsonpath::Template;

/// The value of `-o`.
#[derive(Clone, Debug)]
pub enum Format {
    Wide,
    Yaml,
    Json,
    Name,
    JsonPath(Template),
    Columns(columns::Columns),
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, argument) = text.split_once('=').unwrap_or((text, ""));
        let file = |path: &str| {
            std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("{path}: {error}"))
        };
        Ok(match name {
            "wide" => Self::Wide,
            "yaml" => Self::Yaml,
            "json" => Self::Json,
            "name" => Self::Name,
            "jsonpath" => Self::JsonPath(Template::parse(argument)?),
            "jsonpath-file" => {
                Self::JsonPath(Template::parse(file(argument)?.trim_end_matches('\n'))?)
            }
            "custom-columns" => Self::Columns(argument.parse()?),
            "custom-columns-file" => Self::Columns(columns::Columns::from_file(&file(argument)?)?),
            _ => bail!(
                "unable to match a printer suitable for the output format {name:?}, allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
            ),
        })
    }
}

/// Prints one or many whole objects. A collection, or several objects, become a `List`.
pub fn print_objects(
    format: &Format,
    objects: &[(&Resource, Value)],
    single: bool,
) -> anyhow::Result<()> {
    match format {
        Format::Name => {
            for (resource, object) in objects {
                println!(
                    "{}",
                    resource.path(object["metadata"]["name"].as_str().unwrap_or_default())
                );
            }
        }
        Format::Columns(columns) => {
            let values: Vec<&Value> = objects.iter().map(|(_, object)| object).collect();
            print!("{}", columns.render(&values));
        }
        Format::Yaml => {
            let text = yaml(&list_or_single(objects, single))?;
            print!("{text}");
        }
        Format::Json | Format::Wide => println!("{:#}", list_or_single(objects, single)),
        Format::JsonPath(template) => {
            print!("{}", template.render(&list_or_single(objects, single))?)
        }
    }
    Ok(())
}

fn list_or_single(objects: &[(&Resource, Value)], single: bool) -> Value {
    match objects {
        [(_, only)] if single => without_managed_fields(only),
        _ => json!({
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {"resourceVersion": ""},
            "items": objects.iter().map(|(_, object)| without_managed_fields(object)).collect::<Vec<_>>(),
        }),
    }
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

/// YAML as kubectl writes it: keys sorted, literal blocks for text of several lines.
pub fn yaml(value: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
