//! Errors of images, with Kubernetes' reasons.

/// Errors of [`super::ImageService`].
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be parsed.
    #[error("couldn't parse image name {image:?}: {message}")]
    InvalidName {
        /// As it was given.
        image: String,
        /// The reason.
        message: String,
    },
    /// The registry has no such image.
    #[error("failed to pull image {image:?}: not found: {message}")]
    NotFound {
        /// Normalised reference.
        image: String,
        /// The registry's message.
        message: String,
    },
    /// The registry denies access: no or wrong credentials.
    #[error("failed to pull image {image:?}: authorization failed: {message}")]
    Unauthorized {
        /// Normalised reference.
        image: String,
        /// The registry's message.
        message: String,
    },
    /// The registry cannot be reached.
    #[error("failed to pull image {image:?}: registry unavailable: {message}")]
    RegistryUnavailable {
        /// Normalised reference.
        image: String,
        /// The transport's message.
        message: String,
    },
    /// Any other failure of a pull: a wrong digest, a media type that is not an image's, no
    /// manifest for this platform.
    #[error("failed to pull image {image:?}: {message}")]
    Pull {
        /// Normalised reference.
        image: String,
        /// What happened.
        message: String,
    },
    /// An archive cannot be read.
    #[error("cannot read image archive: {message}")]
    Archive {
        /// The reason.
        message: String,
    },
    /// containerd does not answer; try again.
    #[error("containerd is not reachable: {message}")]
    Unavailable {
        /// The transport's message.
        message: String,
    },
    /// A containerd call failed.
    #[error("{operation}: {message}")]
    Containerd {
        /// The call and its subject.
        operation: String,
        /// containerd's message.
        message: String,
    },
    /// A file operation failed.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A result with this error.
pub type Result<T> = std::result::Result<T, ImageError>;

impl ImageError {
    /// The waiting reason in a container's status.
    pub fn waiting_reason(&self) -> &'static str {
        match self {
            ImageError::InvalidName { .. } => "InvalidImageName",
            _ => "ErrImagePull",
        }
    }

    /// A copy of the error, for each caller that waited for the same pull. Causes become part of
    /// the text.
    pub(crate) fn repeat(&self) -> Self {
        match self {
            ImageError::InvalidName { image, message } => {
                ImageError::InvalidName { image: image.clone(), message: message.clone() }
            }
            ImageError::NotFound { image, message } => {
                ImageError::NotFound { image: image.clone(), message: message.clone() }
            }
            ImageError::Unauthorized { image, message } => {
                ImageError::Unauthorized { image: image.clone(), message: message.clone() }
            }
            ImageError::RegistryUnavailable { image, message } => {
                ImageError::RegistryUnavailable { image: image.clone(), message: message.clone() }
            }
            ImageError::Pull { image, message } => {
                ImageError::Pull { image: image.clone(), message: message.clone() }
            }
            ImageError::Archive { message } => ImageError::Archive { message: message.clone() },
            ImageError::Unavailable { message } => {
                ImageError::Unavailable { message: message.clone() }
            }
            ImageError::Containerd { operation, message } => {
                ImageError::Containerd { operation: operation.clone(), message: message.clone() }
            }
            ImageError::Io { operation, source } => ImageError::Io {
                operation: operation.clone(),
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
        }
    }

    /// Maps a containerd status.
    pub(crate) fn from_status(operation: impl Into<String>, status: &tonic::Status) -> Self {
        if crate::containers::is_unreachable(status) {
            return ImageError::Unavailable { message: status.message().to_string() };
        }
        ImageError::Containerd {
            operation: operation.into(),
            message: status.message().to_string(),
        }
    }
}
