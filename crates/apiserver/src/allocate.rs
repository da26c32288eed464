//! Service addresses and node ports.

use api::ApiError;
use api::object::Object;

use crate::core::Call;

/// What was taken for an object that is not stored yet.
#[derive(Debug, Default)]
pub struct Claim {}

/// Hands out cluster IPs and node ports.
#[derive(Debug, Default)]
pub struct Allocator {}

impl Allocator {
    /// Takes what a new object needs.
    ///
    /// # Errors
    /// 422 when an address asked for is taken or out of range.
    pub async fn claim(
        &self,
        _call: Call<'_>,
        _object: &mut dyn Object,
    ) -> Result<Option<Claim>, ApiError> {
        Ok(None)
    }

    /// Takes what a changed object needs in addition.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn claim_update(
        &self,
        _call: Call<'_>,
        _new: &mut dyn Object,
        _old: &dyn Object,
    ) -> Result<Option<Claim>, ApiError> {
        Ok(None)
    }

    /// Gives back what a write that failed had taken.
    pub async fn release(&self, _claim: Option<Claim>) {}

    /// Gives back what a changed object no longer uses.
    pub async fn release_replaced(&self, _new: &dyn Object, _old: &dyn Object) {}

    /// Gives back what a deleted object used.
    pub async fn release_object(&self, _object: &dyn Object) {}
}
