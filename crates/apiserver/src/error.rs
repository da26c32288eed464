//! The one map from failures to Kubernetes' `Status`.

use api::ApiError;

/// What a client is told when the store fails. The cause goes to the log here, once.
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
        // etcd's words without a reason, as Kubernetes passes them on.
        store::Error::NoSpace => {
            tracing::error!(error = error as &dyn std::error::Error, "store");
            ApiError::new(500, "", "etcdserver: mvcc: database space exceeded")
        }
        store::Error::Unavailable(_) => {
            tracing::warn!(error = error as &dyn std::error::Error, "store");
            ApiError::service_unavailable("the store is unavailable")
        }
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "store");
            ApiError::internal(other)
        }
    }
}
