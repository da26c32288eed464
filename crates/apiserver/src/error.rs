//! The one map from store errors to Kubernetes' `Status`.

use api::ApiError;

/// Why a write failed.
#[derive(Debug)]
pub struct WriteError {
    pub error: ApiError,
    /// The store may have applied the write nevertheless, so it must be neither repeated nor undone.
    pub ambiguous: bool,
}

impl From<ApiError> for WriteError {
    fn from(error: ApiError) -> Self {
        Self { error, ambiguous: false }
    }
}

impl From<store::Error> for WriteError {
    fn from(error: store::Error) -> Self {
        Self { ambiguous: error.is_ambiguous(), error: store_error(&error) }
    }
}

/// The error for a client when the store fails. The cause is logged here, once.
pub fn store_error(error: &store::Error) -> ApiError {
    match error {
        store::Error::Compacted { .. } => ApiError::expired(
            "The provided continue parameter or resource version is too old to display a consistent list result. \
             You can start a new list without it.",
        ),
        store::Error::TooLarge => ApiError::too_large("etcdserver: request is too large"),
        store::Error::FutureRevision { requested } => {
            ApiError::timeout(format!("Timeout: Too large resource version: {requested}"))
        }
        // etcd's message without a reason, as Kubernetes passes it on.
        store::Error::NoSpace => {
            tracing::error!(error = error as &dyn std::error::Error, "the store failed");
            ApiError::new(500, "", "etcdserver: mvcc: database space exceeded")
        }
        store::Error::Unavailable(_) => {
            tracing::warn!(error = error as &dyn std::error::Error, "the store is unavailable");
            ApiError::service_unavailable("the store is unavailable")
        }
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "the store failed");
            ApiError::internal(other)
        }
    }
}
