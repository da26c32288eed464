//! The kinds that a CustomResourceDefinition defines.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionVersion,
};

use super::{Converter, Custom, PrinterColumn, ScalePaths};
use crate::kind::{KindRow, Scope, Text};
use crate::structural::{Column, Structural};

/// The conditions of a definition (`apiextensions.k8s.io/v1`).
pub const ESTABLISHED: &str = "Established";
pub const NAMES_ACCEPTED: &str = "NamesAccepted";
pub const TERMINATING: &str = "Terminating";

/// Versions of ConversionReview that Kubernetes understands.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Whether a condition of a definition is `True`.
pub fn holds(definition: &CustomResourceDefinition, condition: &str) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|found| found.type_ == condition).any(|found| found.status == "True")
}

/// The rows of a definition's served versions; none before it is established. The last one is of
/// the version in which objects are stored, whether that is served or not.
pub fn rows(definition: &CustomResourceDefinition) -> Rows {
    let spec = &definition.spec;
    let stored = spec.versions.iter().find(|version| version.storage);
    let Some(stored) = stored else {
        return Rows::default();
    };
    let (selectable, schemas) = (selectable(definition), Arc::new(schemas(definition)));
    let row = |version| Arc::new(row(definition, version, &stored.name, &selectable, &schemas));
    let stored_row = row(stored);
    let served = if holds(definition, ESTABLISHED) {
        let served = spec.versions.iter().filter(|version| version.served);
        served
            .map(|version| if version.storage { stored_row.clone() } else { row(version) })
            .collect()
    } else {
        Vec::new()
    };
    Rows { served, stored: Some(stored_row) }
}

/// The names of a definition's kind, for clients that treat all kinds alike and need no schema: in
/// the version in which objects are stored, if that is served, so that nothing has to be converted.
/// `None` while nothing is served.
pub fn names(definition: &CustomResourceDefinition) -> Option<KindRow> {
    let versions = definition.spec.versions.iter().filter(|version| version.served);
    let version = versions.min_by(|one, other| {
        let stored = other.storage.cmp(&one.storage);
        stored.then_with(|| version_order(&one.name, &other.name))
    })?;
    holds(definition, ESTABLISHED).then(|| named(definition, version, &[], None))
}

/// The row of a definition's version if its objects are not stored but computed.
pub(crate) fn computed(definition: &CustomResourceDefinition) -> Option<KindRow> {
    let version = definition.spec.versions.first()?;
    let schemas = Arc::new(schemas(definition));
    let row = row(definition, version, &version.name, &[], &schemas);
    Some(KindRow { stored: false, computed: true, singular: "".into(), ..row })
}

/// What a definition makes.
#[derive(Debug, Default)]
pub struct Rows {
    pub served: Vec<Arc<KindRow>>,
    /// That of the version in which objects are stored.
    pub stored: Option<Arc<KindRow>>,
}

/// The selectable fields of all versions.
fn selectable(definition: &CustomResourceDefinition) -> Vec<Text> {
    let mut all: Vec<Text> = Vec::new();
    for version in &definition.spec.versions {
        for path in own_selectable(version) {
            if !all.contains(&path) {
                all.push(path);
            }
        }
    }
    all
}

/// The schemas of all versions.
fn schemas(definition: &CustomResourceDefinition) -> BTreeMap<String, Arc<Structural>> {
    let versions = definition.spec.versions.iter();
    let schema = |version: &CustomResourceDefinitionVersion| {
        let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
        Structural::new(&serde_json::to_value(schema).ok()?).ok()
    };
    versions
        .map(|version| (version.name.clone(), Arc::new(schema(version).unwrap_or_default())))
        .collect()
}

fn own_selectable(version: &CustomResourceDefinitionVersion) -> impl Iterator<Item = Text> {
    let fields = version.selectable_fields.iter().flatten();
    fields.map(|field| Cow::Owned(field.json_path.trim_start_matches('.').to_owned()))
}

fn texts(texts: Option<&Vec<String>>) -> Cow<'static, [Text]> {
    texts.into_iter().flatten().map(|text| Cow::Owned(text.clone())).collect()
}

fn row(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    storage_version: &str,
    selectable: &[Text],
    schemas: &Arc<BTreeMap<String, Arc<Structural>>>,
) -> KindRow {
    let names = names_in_use(definition);
    let subresources = version.subresources.as_ref();
    let scale = subresources.and_then(|all| all.scale.as_ref()).map(|scale| ScalePaths {
        spec_replicas: scale.spec_replicas_path.clone(),
        status_replicas: scale.status_replicas_path.clone(),
        label_selector: scale.label_selector_path.clone(),
    });
    let spec = &definition.spec;
    let custom = Custom {
        definition: definition.metadata.name.clone().unwrap_or_default(),
        uid: definition.metadata.uid.clone().unwrap_or_default(),
        generation: definition.metadata.generation.unwrap_or_default(),
        list_kind: names
            .list_kind
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| format!("{}List", names.kind)),
        storage_version: storage_version.to_owned(),
        schema: schemas.get(&version.name).cloned().unwrap_or_default(),
        schemas: schemas.clone(),
        columns: columns(version),
        scale,
        selectable: own_selectable(version).collect(),
        converter: spec.conversion.as_ref().and_then(converter),
        deprecation: deprecation(definition, version),
        terminating: holds(definition, TERMINATING),
    };
    named(definition, version, selectable, Some(Box::new(custom)))
}

fn converter(conversion: &CustomResourceConversion) -> Option<Converter> {
    if conversion.strategy != "Webhook" {
        return None;
    }
    let webhook = conversion.webhook.clone().unwrap_or_default();
    let known = |version: &String| REVIEW_VERSIONS.contains(&version.as_str());
    Some(Converter {
        client: (&webhook.client_config.unwrap_or_default()).into(),
        review_version: webhook.conversion_review_versions.into_iter().find(known),
    })
}

/// The names that were accepted; those of the specification may be in conflict with others.
fn names_in_use(definition: &CustomResourceDefinition) -> &CustomResourceDefinitionNames {
    let accepted = definition.status.as_ref().and_then(|status| status.accepted_names.as_ref());
    accepted.filter(|names| !names.kind.is_empty()).unwrap_or(&definition.spec.names)
}

fn named(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    selectable: &[Text],
    custom: Option<Box<Custom>>,
) -> KindRow {
    let spec = &definition.spec;
    let names = names_in_use(definition);
    let owned = |text: &str| Cow::Owned(text.to_owned());
    let subresources = version.subresources.as_ref();
    let mut names_of_subresources = Vec::new();
    if subresources.is_some_and(|all| all.status.is_some()) {
        names_of_subresources.push(Cow::Borrowed("status"));
    }
    if subresources.is_some_and(|all| all.scale.is_some()) {
        names_of_subresources.push(Cow::Borrowed("scale"));
    }
    let singular = names.singular.clone().filter(|name| !name.is_empty());
    KindRow {
        group: owned(&spec.group),
        version: owned(&version.name),
        kind: owned(&names.kind),
        plural: owned(&spec.names.plural),
        singular: singular.unwrap_or_else(|| names.kind.to_lowercase()).into(),
        scope: if spec.scope == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        short_names: texts(names.short_names.as_ref()),
        categories: texts(names.categories.as_ref()),
        subresources: names_of_subresources.into(),
        selectable: selectable.to_vec().into(),
        stored: true,
        form: false,
        computed: false,
        custom,
    }
}

fn columns(version: &CustomResourceDefinitionVersion) -> Vec<PrinterColumn> {
    let own = version.additional_printer_columns.iter().flatten();
    own.map(|column| PrinterColumn {
        name: column.name.clone(),
        kind: column.type_.clone(),
        format: column.format.clone().unwrap_or_default(),
        description: column.description.clone().unwrap_or_default(),
        priority: column.priority.unwrap_or_default(),
        json_path: column.json_path.clone(),
        compiled: Column::new(&column.json_path, &column.type_).ok(),
    })
    .collect()
}

fn deprecation(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
) -> Option<String> {
    if version.deprecated != Some(true) {
        return None;
    }
    let own = version.deprecation_warning.clone().filter(|text| !text.is_empty());
    Some(own.unwrap_or_else(|| {
        let spec = &definition.spec;
        format!("{}/{} {} is deprecated", spec.group, version.name, spec.names.kind)
    }))
}

/// Kubernetes' order of versions: `v2`, `v1`, `v2beta1`, `v1alpha1`, then others by name.
pub fn version_order(one: &str, other: &str) -> Ordering {
    rank(one).cmp(&rank(other))
}

fn rank(version: &str) -> (bool, Reverse<(u8, u64, u64)>, &str) {
    let parsed = parse(version);
    (parsed.is_none(), Reverse(parsed.unwrap_or_default()), version)
}

/// Stability (3: stable), major and minor number.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (plain && !text.starts_with('0')).then(|| text.parse().ok()).flatten()
    };
    for (stability, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((3, number(rest)?, 0))
}
