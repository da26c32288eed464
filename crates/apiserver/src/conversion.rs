//! Conversion of custom resources between the versions of their definition.
//!
//! An object is stored in the version that was the storage version when it was written, and the
//! caches hold what is stored. Whoever reads converts to the version of the request, whoever writes
//! back to the storage version. Without a webhook the versions differ in nothing but the name, and
//! [`Version::served`] does it; with one, objects are sent to it, those of a list together.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/conversion`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::custom::{Converter, metadata_first};
use api::{ApiError, KindRef, KindRow, ObjectMeta};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::cache::Version;
use crate::core::Core;
use crate::scan;
use crate::webhook::Post;

/// How long a conversion may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects are sent together up to about this many bytes.
const REVIEW_BYTES: usize = 8 << 20;
/// How much longer the answer may be than what was sent: twice, and this.
const SLACK_BYTES: usize = 1 << 20;

/// What a write stores of an object, and what its client gets to see.
pub struct Written {
    /// In the storage version.
    pub stored: Bytes,
    /// In the version of the request, if it is another.
    shown: Option<Bytes>,
}

impl Written {
    /// # Errors
    /// 500 when the value is not an object with metadata.
    pub fn version(
        &self,
        row: &KindRow,
        key: &str,
        revision: u64,
    ) -> Result<Arc<Version>, ApiError> {
        let value = self.shown.as_ref().unwrap_or(&self.stored);
        let version = Version::from_stored(row, key, value, revision);
        Ok(Arc::new(version.map_err(ApiError::internal)?))
    }

    /// The same of a new object, which has been pruned and has its defaults.
    ///
    /// # Errors
    /// 500 when the value is not an object with metadata.
    pub fn created(
        &self,
        row: &KindRow,
        key: &str,
        revision: u64,
    ) -> Result<Arc<Version>, ApiError> {
        if self.shown.is_some() || !row.reads_what_it_creates() {
            return self.version(row, key, revision);
        }
        let version = Version::from_read(row, key, &self.stored, None, revision);
        Ok(Arc::new(version.map_err(ApiError::internal)?))
    }

    /// The answer to a dry run.
    ///
    /// # Errors
    /// 500 when the value is not an object with metadata.
    pub fn unstored(&self, row: &KindRow) -> Result<Arc<Version>, ApiError> {
        let value = self.shown.as_ref().unwrap_or(&self.stored);
        Ok(Arc::new(Version::unstored(row, value).map_err(ApiError::internal)?))
    }
}

impl Core {
    /// An object in the version of a row.
    ///
    /// # Errors
    /// 500 when the webhook fails or lies.
    pub async fn converted(
        &self,
        row: &KindRef,
        version: &Arc<Version>,
    ) -> Result<Arc<Version>, ApiError> {
        if row.converter().is_none() {
            return Ok(version.served(row));
        }
        let all = self.converted_all(row, vec![version.clone()], Shape::Object).await?;
        all.into_iter().next().ok_or_else(|| ApiError::internal("a conversion lost an object"))
    }

    /// Objects of a list or a watch in the version of a row, in the same order.
    ///
    /// # Errors
    /// 500 when the webhook fails or lies.
    pub async fn converted_list(
        &self,
        row: &KindRef,
        versions: Vec<Arc<Version>>,
    ) -> Result<Vec<Arc<Version>>, ApiError> {
        if row.converter().is_some() {
            return self.converted_all(row, versions, Shape::List).await;
        }
        // What is stored is read in the storage version.
        if row.storage_version() == row.version {
            return Ok(versions);
        }
        Ok(versions.iter().map(|version| version.served(row)).collect())
    }

    /// An object of a custom kind, as a request has it, in another version.
    ///
    /// # Errors
    /// 500 when the webhook fails or lies.
    pub async fn converted_value(
        &self,
        from: &KindRow,
        to: &KindRow,
        object: &Value,
    ) -> Result<Value, ApiError> {
        self.converted_to(from, &to.api_version(), object).await
    }

    /// An object of a custom kind in another version of its definition, served or not.
    ///
    /// # Errors
    /// 500 when the webhook fails or lies.
    pub async fn converted_to(
        &self,
        row: &KindRow,
        wanted: &str,
        object: &Value,
    ) -> Result<Value, ApiError> {
        if row.converter().is_none() {
            let mut object = object.clone();
            object["apiVersion"] = wanted.into();
            return Ok(object);
        }
        let encoded = serde_json::to_vec(object).map_err(ApiError::internal)?;
        let made = self.review(row, wanted, &[encoded], Shape::Object).await?;
        let made = made.first().ok_or_else(|| ApiError::internal("a conversion lost an object"))?;
        serde_json::from_slice(made).map_err(ApiError::internal)
    }

    async fn converted_all(
        &self,
        row: &KindRef,
        mut versions: Vec<Arc<Version>>,
        shape: Shape,
    ) -> Result<Vec<Arc<Version>>, ApiError> {
        let wanted = row.api_version();
        let differs = |version: &Version| scan::string(&version.json, "apiVersion") != wanted;
        let mut others = (0..versions.len()).filter(|index| differs(&versions[*index])).peekable();
        let mut converted = Vec::new();
        while others.peek().is_some() {
            let (mut indexes, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some(index) = others.next_if(|_| bytes < REVIEW_BYTES) {
                let object = versions[index].without_revision();
                bytes += object.len();
                indexes.push(index);
                objects.push(object);
            }
            let made = self.review(row, &wanted, &objects, shape).await?;
            for (index, value) in indexes.into_iter().zip(made) {
                let of = &versions[index];
                let version = Version::from_stored(row, &of.key(), &value, of.revision);
                converted.push((index, Arc::new(version.map_err(ApiError::internal)?)));
            }
        }
        for (index, version) in converted {
            versions[index] = version;
        }
        Ok(versions)
    }

    /// What is stored of an encoded object of a row, and what is shown of that.
    ///
    /// # Errors
    /// 500 when the webhook fails or lies.
    pub async fn written(&self, row: &KindRef, value: Bytes) -> Result<Written, ApiError> {
        let storage = row.storage_api_version();
        if row.converter().is_none() || row.api_version() == storage {
            return Ok(Written { stored: value, shown: None });
        }
        let convert = async |wanted: &str, value: Vec<u8>| -> Result<Vec<u8>, ApiError> {
            let made = self.review(row, wanted, &[value], Shape::Object).await?;
            made.into_iter().next().ok_or_else(|| ApiError::internal("a conversion lost an object"))
        };
        let stored = convert(&storage, value.to_vec()).await?;
        // Before anything is stored, so that what cannot be read again is not written.
        let shown = convert(&row.api_version(), stored.clone()).await?;
        Ok(Written { stored: stored.into(), shown: Some(shown.into()) })
    }

    /// Sends objects to the webhook of their kind, and returns what it makes of them.
    async fn review(
        &self,
        row: &KindRow,
        wanted: &str,
        objects: &[Vec<u8>],
        shape: Shape,
    ) -> Result<Vec<Vec<u8>>, ApiError> {
        let found = objects.first().map(|object| scan::string(object, "apiVersion"));
        let kind = format!("{}, Kind={}", found.unwrap_or_default(), row.kind);
        let failed = |problem: String| {
            tracing::debug!(%kind, problem, "a conversion failed");
            ApiError::new(500, "", format!("conversion webhook for {kind} {problem}"))
        };
        let Some(converter) = row.converter() else {
            return Err(ApiError::internal("the kind has no conversion webhook"));
        };
        let made = self.ask(converter, wanted, objects).await;
        let made = made.map_err(|problem| failed(format!("failed: {problem}")))?;
        if made.len() != objects.len() {
            let (is, should) = (made.len(), objects.len());
            return Err(failed(format!("returned {is} objects, expected {should}")));
        }
        let pairs = objects.iter().zip(&made).enumerate();
        let checked = pairs.map(|(index, (original, made))| {
            accept(original, made, wanted, &row.kind).map_err(|problem| match shape {
                Shape::Object => failed(format!("returned {problem}", problem = problem.alone())),
                Shape::List => failed(format!("returned {}", problem.at(index))),
            })
        });
        checked.collect()
    }

    async fn ask(
        &self,
        converter: &Converter,
        wanted: &str,
        objects: &[Vec<u8>],
    ) -> Result<Vec<Box<RawValue>>, String> {
        let Some(version) = &converter.review_version else {
            return Err("it supports no version of ConversionReview that is known here".to_owned());
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let bytes = objects.iter().map(Vec::len).sum::<usize>();
        let mut body = Vec::with_capacity(bytes + objects.len() + 256);
        let head = format!(
            r#"{{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/{version}","request":{{"uid":"{uid}","desiredAPIVersion":"{wanted}","objects":["#
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&objects.join(&b','));
        body.extend_from_slice(b"]}}");
        let post =
            Post { body: body.into(), timeout: TIMEOUT, answer_bytes: 2 * bytes + SLACK_BYTES };
        let answer = self.webhooks.post(self, &converter.client, post).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let review: Review = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        review.objects(version, &uid)
    }
}

/// How errors count what was converted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Object,
    List,
}

/// A webhook's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Answer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    converted_objects: Option<Vec<Box<RawValue>>>,
    #[serde(default)]
    result: Outcome,
}

#[derive(Default, Deserialize)]
struct Outcome {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

impl Review {
    /// The converted objects (`getConvertedObjectsFromResponse`).
    fn objects(self, version: &str, uid: &str) -> Result<Vec<Box<RawValue>>, String> {
        let is_checked = version == "v1";
        let (group, kind) = ("apiextensions.k8s.io/v1", "ConversionReview");
        if is_checked && (self.api_version != group || self.kind != kind) {
            return Err(format!(
                "expected webhook response of {group}, Kind={kind}, got {}, Kind={}",
                self.api_version, self.kind
            ));
        }
        let response = self.response.ok_or("no response provided")?;
        if is_checked && response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        match (response.result.status.as_str(), response.result.message) {
            ("Success", _) => Ok(response.converted_objects.unwrap_or_default()),
            (status, message) if message.is_empty() => {
                Err(format!("response.result.status was '{status}', not 'Success'"))
            }
            (_, message) => Err(message),
        }
    }
}

/// What is wrong with an object that a webhook made.
enum Lie {
    /// It is another object.
    Object(String),
    Metadata(String),
}

impl Lie {
    /// About the only object of a conversion.
    fn alone(&self) -> String {
        match self {
            Self::Object(problem) => format!("invalid object: {problem}"),
            Self::Metadata(problem) => format!("invalid metadata: {problem}"),
        }
    }

    /// About one object of a list.
    fn at(&self, index: usize) -> String {
        match self {
            Self::Object(problem) => {
                format!("invalid converted object at index {index}: {problem}")
            }
            Self::Metadata(problem) => {
                format!("invalid metadata in object at index {index}: {problem}")
            }
        }
    }
}

/// Checks a converted object, and gives it the metadata of the original, of which a webhook may
/// change labels and annotations only (`validateConvertedObject`, `restoreObjectMeta`).
fn accept(original: &[u8], made: &RawValue, wanted: &str, kind: &str) -> Result<Vec<u8>, Lie> {
    let parse = |text: &[u8]| serde_json::from_slice(text).ok();
    let Some(original) = parse(original).as_ref().and_then(Value::as_object).cloned() else {
        return Err(Lie::Object("the original is no object".to_owned()));
    };
    let Some(Value::Object(mut made)) = parse(made.get().as_bytes()) else {
        return Err(Lie::Object("it is no object".to_owned()));
    };
    let text = |object: &Map<String, Value>, name: &str| {
        object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    for (what, name, expected) in [("groupVersion", "apiVersion", wanted), ("kind", "kind", kind)] {
        let received = text(&made, name);
        if received != expected {
            return Err(Lie::Object(format!(
                "invalid {what} (expected {expected}, received {received})"
            )));
        }
    }
    let own = match made.remove("metadata") {
        None => return Err(Lie::Metadata("missing metadata in converted object".to_owned())),
        Some(Value::Object(own)) => own,
        Some(_) => return Err(Lie::Metadata("invalid metadata in converted object".to_owned())),
    };
    let mut metadata =
        original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for (what, name) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let (before, after) = (text(&metadata, name), text(&own, name));
        if before != after {
            return Err(Lie::Object(format!("must have the same {what}: {before} != {after}")));
        }
    }
    let mut changed = ObjectMeta::default();
    for (name, changed) in
        [("labels", &mut changed.labels), ("annotations", &mut changed.annotations)]
    {
        let texts = match own.get(name) {
            None | Some(Value::Null) => {
                metadata.remove(name);
                continue;
            }
            Some(Value::Object(texts)) => texts,
            Some(_) => {
                let problem = format!("invalid metadata.{name} in converted object");
                return Err(Lie::Metadata(problem));
            }
        };
        if metadata.get(name).and_then(Value::as_object) != Some(texts) {
            *changed = Some(strings(name, texts)?);
        }
        metadata.insert(name.to_owned(), Value::Object(texts.clone()));
    }
    let mut errors = Vec::new();
    crate::meta::validate_maps(&changed, &mut errors);
    if !errors.is_empty() {
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        return Err(Lie::Metadata(texts.join(", ")));
    }
    made.insert("metadata".to_owned(), Value::Object(metadata));
    Ok(metadata_first(&made))
}

fn strings(name: &str, texts: &Map<String, Value>) -> Result<BTreeMap<String, String>, Lie> {
    let all = texts.iter().map(|(key, value)| match value {
        Value::String(value) => Ok((key.clone(), value.clone())),
        _ => {
            let problem = format!("metadata.{name}[{key}] must be a string in converted object");
            Err(Lie::Metadata(problem))
        }
    });
    all.collect()
}
