//! The versions of a kind, for the managed fields of its objects.

use std::iter;

use api::apply::{Schema, Versions};
use api::{ApiError, KindRef, KindRow};
use serde_json::Value;

use crate::core::{Call, Core};
use crate::kinds::forms;

/// The versions of the kind of a request, in the order in which they are looked for: a built-in
/// kind's own form and its others, or all versions of a custom resource's definition.
pub struct KindVersions<'a> {
    core: &'a Core,
    row: &'a KindRef,
}

impl<'a> KindVersions<'a> {
    pub fn of(call: Call<'a>) -> Self {
        Self { core: call.core, row: call.row() }
    }

    fn form(&self, api_version: &str) -> Option<&KindRow> {
        let forms = iter::once(&**self.row).chain(forms::others(self.row));
        forms.into_iter().find(|form| form.api_version() == api_version)
    }
}

impl Versions for KindVersions<'_> {
    type Error = ApiError;

    fn schema(&self, api_version: &str) -> Option<Schema<'_>> {
        let Some(custom) = &self.row.custom else {
            return Some(self.form(api_version)?.schema().into());
        };
        let version = api_version.strip_prefix(&*self.row.group)?.strip_prefix('/')?;
        Some((&**custom.schemas.get(version)?).into())
    }

    async fn convert(&self, object: &Value, to: &str) -> Result<Value, ApiError> {
        let from = object["apiVersion"].as_str().unwrap_or_default();
        if from == to {
            return Ok(object.clone());
        }
        if self.row.custom.is_some() {
            return self.core.converted_to(self.row, to, object).await;
        }
        let form = self.form(from);
        Ok(form.map_or_else(|| object.clone(), |form| forms::convert(form, object.clone())))
    }
}
