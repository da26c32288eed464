//! What is admitted: an object for the server's own plugins, JSON for webhooks and policies.

use api::object::Object;
use api::{ApiError, Kind};
use serde_json::Value;

use crate::body;
use crate::core::Call;
use crate::kinds::strategy;
use crate::meta;
use crate::request::FieldValidation;
use crate::subresources::scale;
use crate::verbs::apply;

/// What plugins judge.
pub trait View: Send + Sync {
    /// As webhooks see it; null: there is no object.
    ///
    /// # Errors
    /// 500 when it has no such form.
    fn value(&self) -> Result<Value, ApiError>;

    /// As the server's own plugins see it.
    fn object(&self) -> Option<&dyn Object>;
}

/// What plugins may change.
pub trait Subject: View {
    /// For the server's own plugins.
    fn object_mut(&mut self) -> Option<&mut dyn Object>;

    /// Takes what a webhook has made of it.
    ///
    /// # Errors
    /// When it is not of the right form any more.
    fn replace(&mut self, value: Value) -> Result<(), ApiError>;
}

/// The object before an update, and its revision.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    pub object: &'a dyn Object,
    pub revision: u64,
}

/// An object that is written, or its scale.
pub struct Written<'a> {
    call: Call<'a>,
    object: &'a mut Box<dyn Object>,
    /// That it replaces.
    revision: Option<u64>,
}

impl<'a> Written<'a> {
    pub fn new(call: Call<'a>, object: &'a mut Box<dyn Object>, revision: Option<u64>) -> Self {
        Self { call, object, revision }
    }
}

/// A complete object that is written, or its scale.
pub struct Complete<'a> {
    pub call: Call<'a>,
    pub object: &'a dyn Object,
    /// That it replaces.
    pub revision: Option<u64>,
}

impl View for Complete<'_> {
    fn value(&self) -> Result<Value, ApiError> {
        shown(self.call, self.object, self.revision)
    }

    fn object(&self) -> Option<&dyn Object> {
        Some(self.object)
    }
}

fn is_scale(call: Call<'_>) -> bool {
    call.options.written_through == "scale"
}

/// An object that is written as webhooks see it.
///
/// # Errors
/// 500 when it has no such form.
pub fn shown(
    call: Call<'_>,
    object: &dyn Object,
    revision: Option<u64>,
) -> Result<Value, ApiError> {
    let json = match is_scale(call) {
        true => Kind::encode(&scale::scale_of(object)?),
        false => object.encode(),
    };
    let mut value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    if call.row().custom.is_some() && !is_scale(call) {
        value["apiVersion"] = call.row().api_version().into();
    }
    if let (Some(revision), Some(metadata)) = (revision, value["metadata"].as_object_mut()) {
        metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    }
    Ok(value)
}

impl View for Written<'_> {
    fn value(&self) -> Result<Value, ApiError> {
        shown(self.call, &**self.object, self.revision)
    }

    fn object(&self) -> Option<&dyn Object> {
        Some(&**self.object)
    }
}

impl Subject for Written<'_> {
    fn object_mut(&mut self) -> Option<&mut dyn Object> {
        Some(&mut **self.object)
    }

    fn replace(&mut self, value: Value) -> Result<(), ApiError> {
        let (call, row) = (self.call, self.call.row());
        let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
        if is_scale(call) {
            let changed = decode(&json)?;
            return scale::set_from(call, &mut **self.object, &changed);
        }
        let decoded = body::decode(row, &json, FieldValidation::Ignore);
        let mut object = decoded.map_err(ApiError::internal)?.object;
        let metadata = object.metadata_mut();
        meta::place(metadata, call.target)?;
        metadata.resource_version = None;
        if let Err(why) = apply::check_admitted(call, metadata.managed_fields.as_deref()) {
            metadata.managed_fields.clone_from(&self.object.metadata().managed_fields);
            call.options.notes.add(format!(
                ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {why}"
            ));
        }
        strategy(row).default(&mut *object);
        *self.object = object;
        Ok(())
    }
}

fn decode<K: Kind>(json: &[u8]) -> Result<K, ApiError> {
    body::decode_as(json).map_err(ApiError::internal)
}

/// The object of a subresource, or a review, which is never stored.
pub struct Typed<'a, K>(pub &'a mut K);

impl<K: Kind> View for Typed<'_, K> {
    fn value(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&Kind::encode(self.0)).map_err(ApiError::internal)
    }

    fn object(&self) -> Option<&dyn Object> {
        Some(self.0)
    }
}

impl<K: Kind> Subject for Typed<'_, K> {
    fn object_mut(&mut self) -> Option<&mut dyn Object> {
        Some(self.0)
    }

    fn replace(&mut self, value: Value) -> Result<(), ApiError> {
        *self.0 = decode(&serde_json::to_vec(&value).map_err(ApiError::internal)?)?;
        Ok(())
    }
}

/// The options of a connection, or nothing: of what is deleted.
pub struct Fixed(pub Value);

impl View for Fixed {
    fn value(&self) -> Result<Value, ApiError> {
        Ok(self.0.clone())
    }

    fn object(&self) -> Option<&dyn Object> {
        None
    }
}

impl Subject for Fixed {
    fn object_mut(&mut self) -> Option<&mut dyn Object> {
        None
    }

    fn replace(&mut self, value: Value) -> Result<(), ApiError> {
        self.0 = value;
        Ok(())
    }
}
