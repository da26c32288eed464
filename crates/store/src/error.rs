//! Errors of the store, as finely as callers need to distinguish them.

use tonic::{Code, Status};

use crate::Revision;

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The requested revision has been compacted. A watch or a paged list has to start over.
    #[error("revision {requested} is compacted")]
    Compacted {
        /// The requested revision.
        requested: Revision,
        /// The oldest revision that is still available, if the server reported it.
        oldest: Option<Revision>,
    },
    /// The requested revision does not exist yet.
    #[error("revision {requested} is in the future")]
    FutureRevision {
        /// The requested revision.
        requested: Revision,
    },
    /// The lease does not exist or has expired.
    #[error("the lease does not exist")]
    LeaseNotFound,
    /// The key and value exceed the server's limit (1.5 MiB by default).
    #[error("the value is too large for the store")]
    TooLarge,
    /// The server is out of space and rejects writes until space is freed and the alarm is cleared. The
    /// write by which etcd notices it has been applied nevertheless (`quotaApplierV3`).
    #[error("the store has no space left")]
    NoSpace,
    /// No server is reachable or able to serve (no leader, timeout). A write that fails with this
    /// error may or may not have been applied: read before retrying it.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<etcd_client::Error>),
    /// The endpoints, certificates or options passed to [`crate::Store::connect`] are unusable.
    #[error("unusable client configuration of the store: {reason}")]
    Configuration {
        /// What is wrong.
        reason: String,
    },
    /// A value cannot be converted to its stored form. Nothing has been written.
    #[error("{reason}")]
    Sealing {
        /// The key.
        key: String,
        /// Why.
        reason: crate::Unreadable,
    },
    /// The embedded store cannot be opened.
    #[error("cannot open the embedded store")]
    Open(#[from] crate::embedded::OpenError),
    /// The server responded with any other error.
    #[error("the store rejected the request")]
    Refused(#[source] Box<etcd_client::Error>),
    /// The server's response lacks a required part.
    #[error("the store's response to {operation} lacks its {part}")]
    Malformed {
        /// The request.
        operation: &'static str,
        /// The missing part.
        part: &'static str,
    },
}

impl Error {
    /// Whether a write that failed with this error may have been applied: the server did not say
    /// that it has not.
    pub fn is_ambiguous(&self) -> bool {
        matches!(
            self,
            Error::Unavailable(_) | Error::Refused(_) | Error::Malformed { .. } | Error::NoSpace
        )
    }

    /// `requested` is the revision in the failed request, for the errors that report it.
    pub(crate) fn from_wire(error: etcd_client::Error, requested: Revision) -> Error {
        use etcd_client::Error as Wire;
        match error {
            Wire::GRpcStatus(status) => Error::from_status(status, requested),
            Wire::TransportError(_)
            | Wire::IoError(_)
            | Wire::WatchError(_)
            | Wire::LeaseKeepAliveError(_) => Error::Unavailable(Box::new(error)),
            Wire::InvalidUri(_) | Wire::InvalidArgs(_) | Wire::EndpointError(_) => {
                Error::Configuration { reason: error.to_string() }
            }
            other => Error::Refused(Box::new(other)),
        }
    }

    /// The texts are etcd's own:
    /// <https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go>.
    pub(crate) fn from_status(status: Status, requested: Revision) -> Error {
        let message = status.message();
        match status.code() {
            Code::OutOfRange if message.contains("has been compacted") => {
                Error::Compacted { requested, oldest: None }
            }
            Code::OutOfRange if message.contains("future revision") => {
                Error::FutureRevision { requested }
            }
            Code::NotFound if message.contains("lease not found") => Error::LeaseNotFound,
            Code::InvalidArgument if message.contains("request is too large") => Error::TooLarge,
            Code::ResourceExhausted if message.contains("database space exceeded") => {
                Error::NoSpace
            }
            Code::ResourceExhausted if message.contains("larger than max") => Error::TooLarge,
            Code::OutOfRange if message.contains("message length too large") => Error::TooLarge,
            // tonic reports a connection that breaks during a request as "Unknown".
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted => Error::Unavailable(Box::new(status.into())),
            Code::ResourceExhausted if message.contains("too many requests") => {
                Error::Unavailable(Box::new(status.into()))
            }
            _ => Error::Refused(Box::new(status.into())),
        }
    }
}
