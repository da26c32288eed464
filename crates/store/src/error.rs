//! What can go wrong with the store, as far as a caller acts differently on it.

use tonic::{Code, Status};

use crate::Revision;

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for is no longer kept. A watch or a paged list has to start anew.
    #[error("revision {requested} is compacted")]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that is still kept, where the server told it.
        oldest: Option<Revision>,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future")]
    FutureRevision {
        /// The revision that was asked for.
        requested: Revision,
    },
    /// The lease does not exist, or no longer.
    #[error("the lease does not exist")]
    LeaseNotFound,
    /// A key with its value is larger than the server takes (1.5 MiB unless configured otherwise).
    #[error("the value is too large for the store")]
    TooLarge,
    /// The server has no space left and takes no writes until space is made and the alarm is cleared.
    #[error("the store has no space left")]
    NoSpace,
    /// No server could be reached, or none is able to serve (no leader, timeout). A write that fails so may have
    /// happened or not: read before repeating it.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<etcd_client::Error>),
    /// The endpoints, certificates or options given to [`crate::Store::connect`] are not usable.
    #[error("the store's client configuration is not usable: {reason}")]
    Configuration {
        /// What is wrong.
        reason: String,
    },
    /// The embedded store cannot be opened.
    #[error("the embedded store cannot be opened")]
    Open(#[from] crate::embedded::OpenError),
    /// The server answered with something else.
    #[error("the store refused the request")]
    Refused(#[source] Box<etcd_client::Error>),
    /// The server's answer lacks a part that the API promises.
    #[error("the store's answer to {operation} lacks its {part}")]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is missing.
        part: &'static str,
    },
}

impl Error {
    /// `requested` is the revision in the request that failed, for the errors that are about it.
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

    /// The texts are etcd's own: <https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go>.
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
            // "Unknown" is what tonic makes of a connection that broke under a request.
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
