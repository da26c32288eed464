//! Built-in admission, in Kubernetes' order: what may change an object before it is validated,
//! and what may refuse it.

mod lifecycle;

use api::ApiError;
use api::object::Object;

use crate::authz;
use crate::core::Call;

/// The chain of plugins.
#[derive(Debug, Default)]
pub struct Admission {}

impl Admission {
    /// Lets the plugins complete an object. `old`: the present state, on updates.
    ///
    /// # Errors
    /// 403 and 404 of the plugins.
    pub async fn mutate(
        &self,
        call: Call<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if old.is_none() {
            lifecycle::check(call, object).await?;
        }
        Ok(())
    }

    /// Lets the plugins refuse a complete object.
    ///
    /// # Errors
    /// 403 of the plugins.
    pub async fn validate(
        &self,
        call: Call<'_>,
        object: &dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        authz::check_escalation(call, object, old).await
    }

    /// Lets the plugins refuse a deletion.
    ///
    /// # Errors
    /// 403 of the plugins.
    pub async fn validate_delete(
        &self,
        call: Call<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        lifecycle::check_delete(call, object)
    }
}
