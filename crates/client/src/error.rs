//! Errors of calls.

use api::ApiError;
use api::kind::DecodeError;
use rpc::incoming::TlsError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a `Status`.
    #[error(transparent)]
    Api(ApiError),
    /// The server did not answer.
    #[error("the server cannot be reached: {}", .0.message())]
    Transport(#[source] tonic::Status),
    #[error("cannot connect")]
    Connect(#[from] TlsError),
    #[error("the server sent an unexpected object")]
    Decode(#[from] DecodeError),
    /// An object that did not come from the server cannot be deleted.
    #[error("the {0} has no name or no uid")]
    Unidentified(&'static str),
    #[error("kubeconfig: {0}")]
    Config(String),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match rpc::status::from_grpc(&status) {
            Some(error) => Self::Api(error),
            None => Self::Transport(status),
        }
    }
}

impl Error {
    /// As the answer to a call that could not be made because of this error.
    pub(crate) fn into_status(self) -> tonic::Status {
        match self {
            Self::Api(error) => rpc::status::to_grpc(&error),
            Self::Transport(status) => status,
            other => tonic::Status::unauthenticated(other.to_string()),
        }
    }

    /// The error that the server answered with, if it did.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.api().is_some_and(ApiError::is_not_found)
    }

    pub fn is_already_exists(&self) -> bool {
        self.api().is_some_and(ApiError::is_already_exists)
    }

    pub fn is_conflict(&self) -> bool {
        self.api().is_some_and(ApiError::is_conflict)
    }

    pub fn is_expired(&self) -> bool {
        self.api().is_some_and(ApiError::is_expired)
    }
}
