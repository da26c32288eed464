//! Objects in the version that a webhook's rules name.

use api::{ApiError, KindRef};
use serde_json::Value;

use super::asked::Asked;
use crate::kinds;

/// The objects of a request in other versions, made when they are first needed.
#[derive(Default)]
pub struct Forms(Vec<(KindRef, Value, Value)>);

impl Forms {
    /// The object and its former state as a webhook is shown them.
    ///
    /// # Errors
    /// When they cannot be converted.
    pub async fn of<'a>(
        &'a mut self,
        asked: &Asked<'_>,
        resource: &KindRef,
        new: &'a Value,
        old: &'a Value,
    ) -> Result<(&'a Value, &'a Value), ApiError> {
        if needs_conversion(asked, resource) && self.find(resource).is_none() {
            let shown = convert(asked, asked.held(), resource, new).await?;
            let before = convert(asked, asked.held(), resource, old).await?;
            self.0.push((resource.clone(), shown, before));
        }
        Ok(self.made(resource, new, old))
    }

    /// The same, once it has been made.
    pub fn made<'a>(
        &'a self,
        resource: &KindRef,
        new: &'a Value,
        old: &'a Value,
    ) -> (&'a Value, &'a Value) {
        self.find(resource).unwrap_or((new, old))
    }

    fn find(&self, resource: &KindRef) -> Option<(&Value, &Value)> {
        let found = self.0.iter().find(|(made, _, _)| made == resource);
        found.map(|(_, new, old)| (new, old))
    }

    /// A changed object in the version in which the request has it.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub async fn back(
        &self,
        asked: &Asked<'_>,
        resource: &KindRef,
        object: Value,
    ) -> Result<Value, ApiError> {
        if !needs_conversion(asked, resource) {
            return Ok(object);
        }
        convert(asked, resource, asked.held(), &object).await
    }

    /// Forgets what was made of an object that has changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

fn needs_conversion(asked: &Asked<'_>, resource: &KindRef) -> bool {
    asked.own_kind.is_none() && *resource != **asked.held()
}

async fn convert(
    asked: &Asked<'_>,
    from: &KindRef,
    to: &KindRef,
    object: &Value,
) -> Result<Value, ApiError> {
    if object.is_null() {
        return Ok(Value::Null);
    }
    if !object.is_object() {
        return Err(ApiError::internal("what a webhook has left is no object"));
    }
    if from.custom.is_none() {
        return Ok(kinds::forms::convert(from, object.clone()));
    }
    asked.call.core.converted_value(from, to, object).await
}
