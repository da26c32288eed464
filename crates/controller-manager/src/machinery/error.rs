//! Why a reconciliation did not get through.

/// Why a reconciliation did not get through; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed. `operation` names the verb and the object: `create pod web-1`.
    #[error("{operation}")]
    Call {
        operation: String,
        #[source]
        source: client::Error,
    },
    /// An object says something that cannot be acted on.
    #[error("{0}")]
    Invalid(String),
    /// A task that must run for ever has ended: a bug, cured by starting the process again.
    #[error("{0} has ended")]
    Died(&'static str),
}

impl Error {
    /// Somebody else wrote first: expected, and cured by looking again.
    pub fn is_race(&self) -> bool {
        match self {
            Self::Call { source, .. } => {
                source.is_conflict() || source.is_not_found() || source.is_already_exists()
            }
            Self::Invalid(_) | Self::Died(_) => false,
        }
    }
}

/// Says what a failed call was about.
pub trait During<T> {
    /// # Errors
    /// The call's error with `operation` in front.
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, client::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Call { operation: operation(), source })
    }
}
