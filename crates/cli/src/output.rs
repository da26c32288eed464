//! How objects are printed: `-o
//! wide|yaml|json|name|jsonpath=...|go-template=...|custom-columns=...`.

mod columns;
pub mod event;
mod go_template;
pub mod table;
pub mod tabwriter;
mod yaml;

use anyhow::bail;
use serde_json::{Value, json};

use crate::discovery::Resource;
use api::jsonpath::Template;
pub use go_template::go_text;
pub use yaml::yaml;

/// Text of objects, which must not be a command to the terminal: escapes are shown as kubectl shows
/// them.
pub fn escaped(text: &str) -> String {
    text.replace('\u{1b}', "^[")
}

/// Flags of every verb that prints objects.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PrintFlags {
    /// yaml, json, name, wide, jsonpath=TEMPLATE, go-template=TEMPLATE,
    /// custom-columns=NAME:PATH,...
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<String>,
    /// The template (or its file) of -o go-template, jsonpath and the like
    #[arg(long, global = true)]
    template: Option<String>,
    /// Show metadata.managedFields in yaml and json
    #[arg(long, global = true)]
    show_managed_fields: bool,
    /// Ignore fields that a template names and an object lacks; default true
    #[arg(long, global = true, hide = true, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    allow_missing_template_keys: bool,
}

impl PrintFlags {
    /// Whether `-o wide` was given: a table rather than whole objects.
    pub fn is_wide(&self) -> bool {
        self.output.as_deref() == Some("wide")
    }

    /// The printer that the flags ask for; `None` for the verb's own output.
    pub fn printer(&self) -> anyhow::Result<Option<Printer>> {
        let Some(output) = &self.output else {
            return match &self.template {
                Some(template) => Ok(Some(self.printer_of("go-template", template)?)),
                None => Ok(None),
            };
        };
        let (name, argument) = output.split_once('=').unwrap_or((output, ""));
        let template = self.template.as_deref().unwrap_or_default();
        let argument = if argument.is_empty() { template } else { argument };
        Ok(Some(self.printer_of(name, argument)?))
    }

    fn printer_of(&self, name: &str, argument: &str) -> anyhow::Result<Printer> {
        let template = |text: &str| {
            let template = Template::parse(text)?;
            anyhow::Ok(if self.allow_missing_template_keys { template } else { template.strict() })
        };
        let format = match name {
            "yaml" => Format::Yaml,
            "json" | "wide" => Format::Json,
            "name" => Format::Name,
            "jsonpath" => Format::JsonPath(template(argument)?),
            "jsonpath-as-json" => Format::JsonPathAsJson(template(argument)?),
            "jsonpath-file" => Format::JsonPath(template(&file(argument)?)?),
            "custom-columns" => Format::Columns(argument.parse()?),
            "custom-columns-file" => {
                Format::Columns(columns::Columns::from_file(&file(argument)?)?)
            }
            "go-template" | "template" => {
                Format::GoTemplate(go_template::Template::parse(argument)?)
            }
            "go-template-file" | "templatefile" => {
                Format::GoTemplate(go_template::Template::parse(&file(argument)?)?)
            }
            _ => bail!(
                "unable to match a printer suitable for the output format {name:?}, allowed formats are: \
                 custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,\
                 jsonpath-file,name,template,templatefile,wide,yaml"
            ),
        };
        Ok(Printer {
            format,
            managed_fields: self.show_managed_fields,
            no_headers: false,
            printed: 0,
        })
    }
}

fn file(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end_matches('\n').to_owned())
        .map_err(|error| anyhow::anyhow!("error reading {path}, {error}"))
}

/// The value of `-o`.
#[derive(Clone, Debug)]
enum Format {
    Yaml,
    Json,
    Name,
    JsonPath(Template),
    JsonPathAsJson(Template),
    Columns(columns::Columns),
    GoTemplate(go_template::Template),
}

/// Prints objects in one format, one after the other.
#[derive(Clone, Debug)]
pub struct Printer {
    format: Format,
    managed_fields: bool,
    no_headers: bool,
    printed: usize,
}

impl Printer {
    /// Leaves out the headers of custom columns.
    pub fn without_headers(mut self, without: bool) -> Self {
        self.no_headers = without;
        self
    }

    /// Prints one object.
    pub fn object(&mut self, resource: &Resource, object: &Value) -> anyhow::Result<()> {
        self.names(&[(resource, object)], |printer| printer.value(object))
    }

    /// Prints a watch event: its type and the object.
    pub fn event(&mut self, kind: &str, object: &Value) -> anyhow::Result<()> {
        let object = self.shown(object);
        if matches!(self.format, Format::Json) {
            println!("{{\"type\":{:?},\"object\":{object}}}", kind);
            return Ok(());
        }
        self.value(&json!({"type": kind, "object": object}))
    }

    /// Prints several objects, as one list where the format has lists.
    pub fn list(&mut self, objects: &[(&Resource, Value)]) -> anyhow::Result<()> {
        let each: Vec<(&Resource, &Value)> =
            objects.iter().map(|(resource, object)| (*resource, object)).collect();
        self.names(&each, |printer| {
            if matches!(printer.format, Format::Columns(_)) {
                let values: Vec<&Value> = each.iter().map(|(_, object)| *object).collect();
                return printer.columns(&values);
            }
            let items: Vec<&Value> = each.iter().map(|(_, object)| *object).collect();
            printer.value(&json!({
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": ""},
                "items": items,
            }))
        })
    }

    /// `-o name` needs the resources; every other format only the value.
    fn names(
        &mut self,
        objects: &[(&Resource, &Value)],
        other: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !matches!(self.format, Format::Name) {
            return other(self);
        }
        for (resource, object) in objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            println!("{}", resource.path(name));
        }
        Ok(())
    }

    fn columns(&mut self, values: &[&Value]) -> anyhow::Result<()> {
        if let Format::Columns(columns) = &self.format {
            let headers = !self.no_headers && self.printed == 0;
            print!("{}", columns.render(values, headers));
            self.printed += values.len();
        }
        Ok(())
    }

    /// Prints a value that need not be an object of the server.
    pub fn value(&mut self, value: &Value) -> anyhow::Result<()> {
        let shown = self.shown(value);
        match &self.format {
            Format::Columns(_) => return self.columns(&[value]),
            Format::Yaml => {
                if self.printed > 0 {
                    println!("---");
                }
                print!("{}", yaml(&shown));
            }
            Format::JsonPath(template) => print!("{}", template.render(&shown)?),
            Format::JsonPathAsJson(template) => {
                println!("{}", json_text(&json!(template.find(&shown))));
            }
            Format::GoTemplate(template) => print!("{}", template.render(&shown)?),
            Format::Json | Format::Name => println!("{}", json_text(&shown)),
        }
        self.printed += 1;
        Ok(())
    }

    /// Without managed fields, unless they were asked for.
    fn shown(&self, value: &Value) -> Value {
        let mut value = value.clone();
        if self.managed_fields {
            return value;
        }
        let without = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        without(&mut value);
        if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
            items.iter_mut().for_each(without);
        }
        value
    }
}

/// JSON as kubectl writes it: indented by four spaces, HTML's special characters escaped.
pub fn json_text(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a JSON value can be written");
    String::from_utf8(bytes)
        .expect("JSON is UTF-8")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
