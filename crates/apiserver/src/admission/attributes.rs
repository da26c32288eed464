//! A request as plugins see it (`k8s.io/apiserver/pkg/admission/attributes.go`).

use std::fmt::Display;
use std::sync::OnceLock;

use api::object::Object;
use api::{ApiError, Kind, KindRow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::subject::{Before, View, shown};
use super::webhooks::{Asked, Operation};
use crate::core::Call;

/// Where a request has no name, errors name this, as upstream.
const UNNAMED: &str = "Unknown";

/// What is admitted, in one phase of the chain.
pub struct Attributes<'a> {
    pub call: Call<'a>,
    pub operation: Operation,
    /// Empty for the object itself; `scale` also for an object that is written through its scale.
    pub subresource: &'a str,
    /// The object before an update or a deletion.
    pub old: Option<Before<'a>>,
    about: About<'a>,
    asked: OnceLock<Asked<'a>>,
    new: OnceLock<Value>,
    before: OnceLock<Value>,
}

enum About<'a> {
    /// An object that is stored, or its scale.
    Write,
    /// An object that is created at a subresource, or never stored: its kind and name.
    Creation(&'a KindRow, String),
    Deletion(&'a DeleteOptions),
    /// A stream or a proxied request: the kind of its options.
    Connection(&'static str),
}

impl<'a> Attributes<'a> {
    fn new(
        call: Call<'a>,
        operation: Operation,
        old: Option<Before<'a>>,
        about: About<'a>,
    ) -> Self {
        let through = call.options.written_through;
        let subresource =
            if through.is_empty() { call.target.subresource.as_str() } else { through };
        Self {
            call,
            operation,
            subresource,
            old,
            about,
            asked: OnceLock::new(),
            new: OnceLock::new(),
            before: OnceLock::new(),
        }
    }

    /// Of an object that is created, or replaces `old`.
    pub fn of_write(call: Call<'a>, old: Option<Before<'a>>) -> Self {
        Self::new(call, Operation::of_write(old.is_some()), old, About::Write)
    }

    /// Of an object of another kind that is created at the target.
    pub fn of_creation(call: Call<'a>, kind: &'a KindRow, name: String) -> Self {
        Self::new(call, Operation::Create, None, About::Creation(kind, name))
    }

    /// Of a deletion.
    pub fn of_deletion(call: Call<'a>, old: Before<'a>, options: &'a DeleteOptions) -> Self {
        Self::new(call, Operation::Delete, Some(old), About::Deletion(options))
    }

    /// Of a connection, whose options are an object of `kind`.
    pub fn of_connection(call: Call<'a>, kind: &'static str) -> Self {
        Self::new(call, Operation::Connect, None, About::Connection(kind))
    }

    /// The object before an update or a deletion.
    pub fn old_object(&self) -> Option<&'a dyn Object> {
        self.old.map(|old| old.object)
    }

    /// The same, if it is of a kind.
    pub fn old<K: Kind>(&self) -> Option<&'a K> {
        typed(self.old_object())
    }

    /// The namespace of the request, if it is in one.
    pub fn namespace(&self) -> Option<&'a str> {
        let target = self.call.target;
        let is_in_one = target.row.namespaced() && !target.namespace.is_empty();
        is_in_one.then_some(target.namespace.as_str())
    }

    /// 403 about the object that is admitted.
    pub fn forbidden(&self, object: &dyn Object, why: impl Display) -> ApiError {
        let metadata = object.metadata();
        let given = [Some(&self.call.target.name), metadata.name.as_ref()];
        let mut given = given.into_iter().chain([metadata.generate_name.as_ref()]).flatten();
        let name = given.find(|name| !name.is_empty()).map_or(UNNAMED, String::as_str);
        ApiError::forbidden(self.call.row(), name, why)
    }

    /// 403 about the request, whether or not it has an object.
    pub fn refused(&self, object: Option<&dyn Object>, why: impl Display) -> ApiError {
        match object.or(self.old_object()) {
            Some(object) => self.forbidden(object, why),
            None => ApiError::forbidden(self.call.row(), &self.call.target.name, why),
        }
    }

    /// What webhooks and policies are asked about.
    ///
    /// # Errors
    /// 500 when the request cannot be described.
    pub fn asked(&self, view: &dyn View) -> Result<&Asked<'a>, ApiError> {
        if let Some(asked) = self.asked.get() {
            return Ok(asked);
        }
        let asked = match &self.about {
            About::Write => {
                let object = view.object().ok_or_else(|| ApiError::internal("no object"))?;
                Asked::of_write(self.call, object, self.old.is_some())
            }
            About::Creation(kind, name) => Asked::of_creation(self.call, kind, name.clone()),
            About::Deletion(options) => {
                Asked::of_deletion(self.call, delete_options(self.call, options)?)
            }
            About::Connection(kind) => Asked::of_connection(self.call, kind),
        };
        Ok(self.asked.get_or_init(|| asked))
    }

    /// The object as webhooks and policies see it, in the validating phase, which does not change it.
    ///
    /// # Errors
    /// 500 when it has no such form.
    pub fn shown(&self, view: &dyn View) -> Result<&Value, ApiError> {
        if let Some(value) = self.new.get() {
            return Ok(value);
        }
        let value = view.value()?;
        Ok(self.new.get_or_init(|| value))
    }

    /// The object before the request as webhooks and policies see it; null if there is none.
    ///
    /// # Errors
    /// 500 when it has no such form.
    pub fn before(&self) -> Result<&Value, ApiError> {
        if let Some(value) = self.before.get() {
            return Ok(value);
        }
        let value = match self.old {
            Some(old) => shown(self.call, old.object, Some(old.revision))?,
            None => Value::Null,
        };
        Ok(self.before.get_or_init(|| value))
    }
}

/// An object of a kind, if it is one.
pub fn typed<K: Kind>(object: Option<&dyn Object>) -> Option<&K> {
    object.and_then(|object| object.downcast_ref())
}

fn delete_options(call: Call<'_>, options: &DeleteOptions) -> Result<Value, ApiError> {
    let json = api::options::encode_delete_options(options);
    let mut options: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    options["kind"] = "DeleteOptions".into();
    options["apiVersion"] = "meta.k8s.io/v1".into();
    if call.options.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    Ok(options)
}
