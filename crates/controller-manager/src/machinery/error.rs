//! Why a reconciliation failed.

/// Why a reconciliation failed; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed. `operation` names the verb and the object: `create pod web-1`.
    #[error("{operation}")]
    Call {
        operation: String,
        #[source]
        source: client::Error,
    },
    /// Something that needs no server failed.
    #[error("{operation}")]
    Local {
        operation: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object is invalid or not in the expected state.
    #[error("{0}")]
    Invalid(String),
    /// A task that must run forever has ended: a bug; the process must be restarted.
    #[error("{0} has ended")]
    Died(&'static str),
}

impl Error {
    /// Whether another client wrote first: expected, and resolved by a retry.
    pub fn is_race(&self) -> bool {
        match self {
            Self::Call { source, .. } => {
                source.is_conflict() || source.is_not_found() || source.is_already_exists()
            }
            Self::Local { .. } | Self::Invalid(_) | Self::Died(_) => false,
        }
    }
}

/// The outcome of a call that achieved its end if somebody else was first.
pub trait Unless<T> {
    /// `None`: the object is gone.
    ///
    /// # Errors
    /// The call's, but for 404.
    fn unless_gone(self) -> Result<Option<T>, client::Error>;

    /// `None`: the object is there already.
    ///
    /// # Errors
    /// The call's, but for 409 of a creation.
    fn unless_there(self) -> Result<Option<T>, client::Error>;
}

impl<T> Unless<T> for Result<T, client::Error> {
    fn unless_gone(self) -> Result<Option<T>, client::Error> {
        match self {
            Err(error) if error.is_not_found() => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    fn unless_there(self) -> Result<Option<T>, client::Error> {
        match self {
            Err(error) if error.is_already_exists() => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}

/// Adds the operation to the error of a failed call.
pub trait During<T> {
    /// # Errors
    /// The call's error as the cause of a failed `operation`.
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, client::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Call { operation: operation(), source })
    }
}
