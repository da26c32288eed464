//! Manifests: files, directories and standard input, YAML or JSON, many documents each.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::labels::Selector;
use client::Client;
use serde_json::Value;

use crate::discovery::{Resource, Resources};

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub object: Value,
    /// The file, for messages.
    pub source: String,
}

impl Document {
    fn field(&self, pointer: &str) -> Option<String> {
        self.object
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub fn api_version(&self) -> String {
        self.field("/apiVersion").unwrap_or_default()
    }

    pub fn kind(&self) -> String {
        self.field("/kind").unwrap_or_default()
    }

    pub fn name(&self) -> String {
        self.field("/metadata/name").unwrap_or_default()
    }

    pub fn namespace(&self) -> Option<String> {
        self.field("/metadata/namespace")
    }

    /// Whether a label selector matches the object.
    pub fn matches(&self, selector: &Selector) -> bool {
        let labels: BTreeMap<String, String> = self.object["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        selector.matches(Some(&labels))
    }

    /// The server's resource for the object.
    pub fn resource<'a>(&self, resources: &'a Resources) -> anyhow::Result<&'a Resource> {
        let (version, kind) = (self.api_version(), self.kind());
        resources.of_kind(&version, &kind).map_err(|_| {
            anyhow::anyhow!(
                "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {kind:?} in version {version:?}\nensure CRDs are installed first",
                self.name(),
                self.namespace().unwrap_or_default(),
                self.source,
            )
        })
    }
}

/// Flags that name manifests.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilenameOptions {
    /// Manifest file, directory, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    names: Vec<String>,
    /// Descend into directories given with -f
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Not supported
    #[arg(short = 'k', long, value_name = "DIRECTORY", hide = true)]
    kustomize: Option<String>,
}

impl FilenameOptions {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.kustomize.is_none()
    }

    /// # Errors
    /// When no manifest is named.
    pub fn require(&self) -> anyhow::Result<()> {
        if self.is_empty() {
            bail!("must specify one of -f and -k");
        }
        Ok(())
    }

    /// Reads every document; lists are split into their items. A file that cannot be parsed does
    /// not keep the others from being read.
    ///
    /// # Errors
    /// When a path does not exist.
    pub fn read(&self) -> anyhow::Result<(Vec<Document>, Vec<anyhow::Error>)> {
        if let Some(directory) = &self.kustomize {
            bail!(
                "kustomize is not part of skiff: use 'kustomize build {directory} | skiff apply -f -'"
            );
        }
        let (mut documents, mut errors) = (Vec::new(), Vec::new());
        let mut take = |text: &str, source: &str| match parse(text, source) {
            Ok(found) => documents.extend(found),
            Err(error) => errors.push(error),
        };
        for name in &self.names {
            if name == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input")?;
                take(&text, "STDIN");
                continue;
            }
            if name.starts_with("http://") || name.starts_with("https://") {
                bail!("{name}: manifests are read from files only; download it first");
            }
            for file in files(Path::new(name), self.recursive)? {
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("the path {:?} cannot be accessed", file.display()))?;
                take(&text, &file.display().to_string());
            }
        }
        Ok((documents, errors))
    }

    /// As [`read`](Self::read), with the first file that cannot be parsed as an error.
    pub fn read_all(&self) -> anyhow::Result<Vec<Document>> {
        let (documents, errors) = self.read()?;
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(documents),
        }
    }
}

/// Flags that name manifests, and which of their objects are meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Manifests {
    #[command(flatten)]
    pub files: FilenameOptions,
    /// Only the manifests' objects with these labels
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
}

impl Manifests {
    pub fn selector(&self) -> anyhow::Result<Selector> {
        Ok(Selector::parse(&self.selector)?)
    }

    /// The documents that the selector matches, and the errors of files that cannot be parsed.
    ///
    /// # Errors
    /// When a path does not exist.
    pub fn read(&self) -> anyhow::Result<(Vec<Document>, Vec<anyhow::Error>)> {
        let selector = self.selector()?;
        let (mut documents, errors) = self.files.read()?;
        documents.retain(|document| document.matches(&selector));
        Ok((documents, errors))
    }
}

/// The namespace that an object goes to; a flag that contradicts the manifest is an error.
pub fn namespace_of(
    flag: Option<&str>,
    client: &Client,
    resource: &Resource,
    document: &Document,
) -> anyhow::Result<String> {
    if !resource.namespaced {
        return Ok(String::new());
    }
    match (flag, document.namespace()) {
        (Some(flag), Some(own)) if flag != own => {
            bail!(
                "the namespace from the provided object {own:?} does not match the namespace {flag:?}. You must pass '--namespace={own}' to perform this operation."
            )
        }
        (_, Some(own)) => Ok(own),
        (_, None) => Ok(client.default_namespace().to_owned()),
    }
}

fn files(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    if !path.exists() {
        bail!("the path {:?} does not exist", path.display());
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        entries.push(entry?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() {
            if recursive {
                found.extend(files(&entry, recursive)?);
            }
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Reads the documents of one text.
pub fn parse(text: &str, source: &str) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for object in
        values(text).map_err(|error| anyhow::anyhow!("error parsing {source}: {error:#}"))?
    {
        if object.is_null() {
            continue;
        }
        let items = match (&object["kind"], &object["items"]) {
            (Value::String(kind), Value::Array(items)) if kind.ends_with("List") => items.clone(),
            _ => vec![object],
        };
        for object in items {
            let document = Document { object, source: source.to_owned() };
            for (field, value) in
                [("apiVersion", document.api_version()), ("kind", document.kind())]
            {
                if value.is_empty() {
                    bail!("error validating {source:?}: {field} not set");
                }
            }
            documents.push(document);
        }
    }
    Ok(documents)
}

/// YAML 1.1 as Kubernetes reads it, or JSON.
pub fn values(text: &str) -> anyhow::Result<Vec<Value>> {
    if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        return Ok(stream.collect::<Result<_, _>>()?);
    }
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let text = error.to_string();
        // The first line has the message; the rest shows the location.
        let first = text.lines().next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        let first = first.split(", set DuplicateKeyPolicy").next().unwrap_or(first);
        let (place, what) = first.split_once(": ").unwrap_or(("", first));
        let line = place.split(" column ").next().unwrap_or_default();
        anyhow::anyhow!("error converting YAML to JSON: yaml: {line}: {what}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_yaml_1_1() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {mode: 0644, on: yes}\n---\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: ns}}\n";
        let documents = parse(text, "x").unwrap();
        let names: Vec<_> = documents
            .iter()
            .map(|document| (document.kind(), document.name(), document.namespace()))
            .collect();
        assert_eq!(
            names,
            [("ConfigMap".into(), "a".into(), None), ("Pod".into(), "b".into(), Some("ns".into()))]
        );
        assert_eq!(documents[0].object["data"]["mode"], 0o644);
    }

    #[test]
    fn errors_are_reported() {
        assert!(parse("a: [", "x").unwrap_err().to_string().starts_with("error parsing x:"));
        assert_eq!(
            parse("{\"kind\":\"Pod\"}", "x").unwrap_err().to_string(),
            "error validating \"x\": apiVersion not set"
        );
        assert!(parse("apiVersion: v1\nkind: Pod\nkind: Pod\n", "x").is_err());
        assert!(
            FilenameOptions { names: vec!["/does/not/exist".into()], ..Default::default() }
                .read()
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
    }
}
