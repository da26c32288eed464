//! Subresources other than status, and the kinds that are only answered to.

use api::ApiError;

use crate::core::Call;
use crate::request::Request;
use crate::response::Response;

/// Carries out a request to a subresource.
///
/// # Errors
/// Whatever the subresource gives.
pub async fn handle(call: Call<'_>, _request: &Request) -> Result<Response, ApiError> {
    Err(ApiError::not_implemented(format!(
        "{}/{} is not served",
        call.row().plural,
        call.target.subresource
    )))
}

/// Answers a review.
///
/// # Errors
/// 405 for any verb but create.
pub async fn answer_review(call: Call<'_>, _request: &Request) -> Result<Response, ApiError> {
    Err(ApiError::not_implemented(format!(
        "{} is not served",
        call.row().plural
    )))
}
