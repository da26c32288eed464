//! Kinds that a CustomResourceDefinition defines, and their objects.

pub mod definition;

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Map, Value};

use crate::apply::Schema;
use crate::kind::{DecodeError, KindRef, KindRow, Text};
use crate::object::Object;
use crate::structural::{Column, Structural, TooLarge};
use crate::webhook::WebhookClient;

/// What a row has only if a CustomResourceDefinition defines its kind.
#[derive(Debug)]
pub struct Custom {
    /// Name of the definition: `widgets.example.com`.
    pub definition: String,
    pub uid: String,
    /// That of the definition: of its specification.
    pub generation: i64,
    pub list_kind: String,
    /// The version that objects are stored in.
    pub storage_version: String,
    /// The schema of the row's own version.
    pub schema: Arc<Structural>,
    /// Those of all versions, whether they are served or not.
    pub schemas: Arc<BTreeMap<String, Arc<Structural>>>,
    pub columns: Vec<PrinterColumn>,
    pub scale: Option<ScalePaths>,
    /// The row's selectable fields are those of all versions; these are of its own version.
    pub selectable: Vec<Text>,
    /// Who makes one version of another; `None`: nothing but the name differs.
    pub converter: Option<Converter>,
    /// What a client of a deprecated version is told.
    pub deprecation: Option<String>,
    /// The definition is being deleted: no object can be created any more.
    pub terminating: bool,
}

impl KindRow {
    /// A copy of the names of a kind, for where there is nothing of it any more.
    pub fn detached(&self) -> KindRef {
        KindRef::Custom(Arc::new(Self {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
            singular: self.singular.clone(),
            scope: self.scope,
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            subresources: self.subresources.clone(),
            selectable: self.selectable.clone(),
            stored: self.stored,
            form: self.form,
            computed: self.computed,
            custom: None,
        }))
    }

    /// Whether both are of the same definition, which has not changed in between.
    pub fn is_defined_like(&self, other: &Self) -> bool {
        let defined =
            |row: &Self| row.custom.as_ref().map(|custom| (custom.uid.clone(), custom.generation));
        self == other && defined(self) == defined(other)
    }

    /// A stored object as this version has it: with its name, pruned and with its defaults. `None`:
    /// it is so already, is no JSON, or has to be converted first.
    ///
    /// # Errors
    /// When its defaults are too large.
    pub fn read_stored(&self, json: &[u8]) -> Result<Option<Vec<u8>>, TooLarge> {
        let Some(custom) = &self.custom else { return Ok(None) };
        let api_version = self.api_version();
        if custom.schema.is_read_as_stored(json, &api_version) {
            return Ok(None);
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(json) else { return Ok(None) };
        if custom.converter.is_some() && value["apiVersion"] != api_version {
            return Ok(None);
        }
        let differs = custom.schema.read(&mut value)?;
        if value["apiVersion"] == api_version && !differs {
            return Ok(None);
        }
        value["apiVersion"] = api_version.into();
        let Value::Object(members) = value else { return Ok(None) };
        Ok(Some(metadata_first(&members)))
    }

    /// Whether a new object that has been pruned and has its defaults is stored as this version
    /// reads it. What a schema has as the default of the status is only added by reading, since
    /// new objects have no status.
    pub fn reads_what_it_creates(&self) -> bool {
        self.storage_version() == self.version
            && self.custom.as_ref().is_none_or(|custom| !custom.schema.defaults("status"))
    }

    /// What objects of the kind are merged by.
    pub fn merge_schema(&self) -> Schema<'_> {
        match &self.custom {
            Some(custom) => (&*custom.schema).into(),
            None => self.schema().into(),
        }
    }

    /// The version in which objects are stored.
    pub fn storage_version(&self) -> &str {
        self.custom.as_ref().map_or(&self.version, |custom| &custom.storage_version)
    }

    /// That with the group.
    pub fn storage_api_version(&self) -> String {
        match &self.custom {
            Some(custom) => format!("{}/{}", self.group, custom.storage_version),
            None => self.api_version(),
        }
    }

    /// The webhook that converts objects of this version to others.
    pub fn converter(&self) -> Option<&Converter> {
        self.custom.as_ref()?.converter.as_ref()
    }

    /// Whether objects of this version may differ in more than their version's name from what the
    /// caches hold.
    pub fn reads_converted(&self) -> bool {
        self.converter().is_some() || self.storage_version() != self.version
    }

    fn encoded_api_version(&self) -> String {
        if self.converter().is_some() { self.api_version() } else { self.storage_api_version() }
    }
}

/// An object's JSON, with the metadata where it is found quickly.
pub fn metadata_first(members: &Map<String, Value>) -> Vec<u8> {
    let leading = ["apiVersion", "kind", "metadata"];
    let first = leading.iter().filter_map(|name| Some((*name, members.get(*name)?)));
    let rest = members.iter().filter(|(name, _)| !leading.contains(&name.as_str()));
    let mut out = Vec::with_capacity(512);
    for (name, value) in first.chain(rest.map(|(name, value)| (name.as_str(), value))) {
        out.push(if out.is_empty() { b'{' } else { b',' });
        let written = serde_json::to_writer(&mut out, name);
        out.push(b':');
        let written = written.and_then(|()| serde_json::to_writer(&mut out, value));
        written.expect("JSON values always serialize to JSON");
    }
    out.push(b'}');
    out
}

/// A webhook that makes one version of another.
#[derive(Clone, Debug)]
pub struct Converter {
    pub client: WebhookClient,
    /// The version of ConversionReview that it is sent: the first that Kubernetes knows too.
    pub review_version: Option<String>,
}

/// A printer column: `additionalPrinterColumns` of a version.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    pub name: String,
    /// `string`, `integer`, `date`, `boolean`, `number`
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i32,
    /// `.spec.replicas`
    pub json_path: String,
    /// The path and the type, parsed; `None` if they cannot be.
    pub compiled: Option<Column>,
}

impl PrinterColumn {
    /// The cell of an object.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        self.compiled.as_ref().map_or(Value::Null, |column| column.cell(object, now))
    }
}

/// Where the subresource `scale` finds its fields, as JSON paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// An object of a custom kind: its metadata, and everything else as JSON.
#[derive(Clone, Debug)]
pub struct CustomObject {
    kind: KindRef,
    pub metadata: ObjectMeta,
    /// All members but `apiVersion`, `kind` and `metadata`.
    pub body: Map<String, Value>,
}

impl CustomObject {
    /// # Errors
    /// When the JSON is not an object, or its metadata is none.
    pub fn decode(kind: KindRef, json: &[u8]) -> Result<Self, DecodeError> {
        let failed = |source| DecodeError { kind: kind.kind.to_string(), source };
        let value = serde_json::from_slice(json).map_err(failed)?;
        let Value::Object(body) = value else {
            return Err(failed(serde_json::Error::custom("not an object")));
        };
        Self::of_members(kind, body)
    }

    /// # Errors
    /// When the metadata is none.
    pub fn of_members(kind: KindRef, mut body: Map<String, Value>) -> Result<Self, DecodeError> {
        body.remove("apiVersion");
        body.remove("kind");
        let metadata = match body.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(metadata) => ObjectMeta::deserialize(metadata)
                .map_err(|source| DecodeError { kind: kind.kind.to_string(), source })?,
        };
        Ok(Self { kind, metadata, body })
    }

    /// The whole object as JSON.
    pub fn to_value(&self) -> Value {
        let metadata = serde_json::to_value(&self.metadata);
        self.with_metadata(metadata.expect("metadata always serializes to JSON"))
    }

    /// What schemas and their rules see of the object: of its metadata only the names.
    pub fn to_judged(&self) -> Value {
        let names = [("name", &self.metadata.name), ("generateName", &self.metadata.generate_name)];
        let names = names
            .into_iter()
            .filter_map(|(field, name)| Some((field.to_owned(), Value::from(name.as_deref()?))));
        self.with_metadata(Value::Object(names.collect()))
    }

    fn with_metadata(&self, metadata: Value) -> Value {
        let mut whole = self.body.clone();
        whole.insert("apiVersion".to_owned(), self.kind.api_version().into());
        whole.insert("kind".to_owned(), self.kind.kind.to_string().into());
        whole.insert("metadata".to_owned(), metadata);
        Value::Object(whole)
    }
}

/// What the subresource `scale` shows of a custom resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomScale {
    pub wanted: Option<i32>,
    pub present: i32,
    pub selector: Option<String>,
}

/// The members of a path without indexes: `.spec.replicas`.
fn members(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|part| !part.is_empty())
}

impl CustomObject {
    fn at(&self, path: &str) -> Option<&Value> {
        let mut members = members(path);
        let first = self.body.get(members.next()?)?;
        members.try_fold(first, |value, member| value.get(member))
    }

    /// The scale of an object whose kind has that subresource.
    pub fn scale(&self) -> Option<CustomScale> {
        let paths = self.kind.custom.as_ref()?.scale.as_ref()?;
        let number = |path| self.at(path)?.as_i64().and_then(|number| i32::try_from(number).ok());
        let selector = paths.label_selector.as_ref().and_then(|path| self.at(path)?.as_str());
        Some(CustomScale {
            wanted: number(&paths.spec_replicas),
            present: number(&paths.status_replicas).unwrap_or_default(),
            selector: selector.map(str::to_owned),
        })
    }

    /// Sets the number that the subresource `scale` shows as wanted. `None`: there is no place for
    /// it.
    pub fn set_replicas(&mut self, replicas: i32) -> Option<()> {
        let kind = self.kind.clone();
        let path = &kind.custom.as_ref()?.scale.as_ref()?.spec_replicas;
        let mut members = members(path).peekable();
        let mut at = &mut self.body;
        while let Some(member) = members.next() {
            if members.peek().is_none() {
                at.insert(member.to_owned(), replicas.into());
                return Some(());
            }
            let below = at.entry(member).or_insert_with(|| Value::Object(Map::new()));
            at = below.as_object_mut()?;
        }
        None
    }
}

impl Object for CustomObject {
    fn row(&self) -> KindRef {
        self.kind.clone()
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn json(&self) -> Value {
        self.to_value()
    }

    /// In the storage version, if nothing but its name differs.
    fn encode(&self) -> Vec<u8> {
        let text = |value: &dyn Fn(&mut Vec<u8>) -> serde_json::Result<()>, out: &mut Vec<u8>| {
            value(out).expect("JSON values and metadata always serialize to JSON");
        };
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"apiVersion\":");
        text(&|out| serde_json::to_writer(out, &self.kind.encoded_api_version()), &mut out);
        out.extend_from_slice(b",\"kind\":");
        text(&|out| serde_json::to_writer(out, &self.kind.kind), &mut out);
        out.extend_from_slice(b",\"metadata\":");
        text(&|out| serde_json::to_writer(out, &self.metadata), &mut out);
        for (name, value) in &self.body {
            out.push(b',');
            text(&|out| serde_json::to_writer(out, name), &mut out);
            out.push(b':');
            text(&|out| serde_json::to_writer(out, value), &mut out);
        }
        out.push(b'}');
        out
    }

    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn Object) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| {
            self.kind == other.kind && self.metadata == other.metadata && self.body == other.body
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
