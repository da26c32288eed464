//! What the verbs that write objects share: `--dry-run`, `--field-manager`, `--validate`, `-o`, and
//! the line that reports what was done.

use rpc::api_v1::WriteOptions;
use serde_json::Value;

use crate::discovery::Resource;
use crate::output::{PrintFlags, Printer};

/// `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

impl DryRun {
    /// What a message ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// Flags of verbs that write.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WriteFlags {
    #[command(flatten)]
    pub print: PrintFlags,
    /// none, client (only show what would be sent) or server (the server does everything but
    /// persist it)
    #[arg(long, global = true, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
    /// The name under which the server tracks who set fields
    #[arg(long, global = true)]
    pub field_manager: Option<String>,
}

impl WriteFlags {
    /// The options of a write.
    pub fn options(&self, manager: &str) -> WriteOptions {
        WriteOptions {
            dry_run: self.dry_run == DryRun::Server,
            field_manager: self.field_manager.clone().unwrap_or(manager.to_owned()),
            ..Default::default()
        }
    }

    /// Reports what is done, in the format that the flags ask for.
    pub fn report(&self) -> anyhow::Result<Report> {
        Ok(Report { printer: self.print.printer()?, dry_run: self.dry_run })
    }
}

/// Reports each object that was written.
pub struct Report {
    printer: Option<Printer>,
    dry_run: DryRun,
}

impl Report {
    /// `deployment.apps/web scaled (dry run)`, or the object in the format asked for.
    pub fn done(&mut self, resource: &Resource, object: &Value, what: &str) -> anyhow::Result<()> {
        match &mut self.printer {
            Some(printer) => printer.object(resource, object),
            None => {
                self.words(resource, object, what);
                Ok(())
            }
        }
    }

    /// `deployment.apps/web edited`, whatever format was asked for.
    pub fn words(&self, resource: &Resource, object: &Value, what: &str) {
        println!("{} {what}{}", path(resource, object), self.dry_run.suffix());
    }
}

/// `deployment.apps/web`; what a subresource answers may be of another kind
/// (`scale.autoscaling/web`).
fn path(resource: &Resource, object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or(&resource.kind);
    if kind == resource.kind {
        return resource.path(name);
    }
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = kind.to_lowercase();
    if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
}

/// `--validate`.
#[derive(Clone, Debug, clap::Args)]
pub struct ValidateFlag {
    /// Check fields strictly, warn, or ignore what is unknown
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", value_parser = ["strict", "warn", "ignore", "true", "false"])]
    validate: String,
}

impl ValidateFlag {
    /// The value of the `fieldValidation` parameter.
    pub fn field_validation(&self) -> String {
        field_validation(&self.validate).to_owned()
    }
}

/// The value of the `fieldValidation` parameter for `--validate`.
pub fn field_validation(validate: &str) -> &'static str {
    match validate {
        "warn" => "Warn",
        "ignore" | "false" => "Ignore",
        _ => "Strict",
    }
}
