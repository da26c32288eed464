//! The body of an answer, read no further than it may be long.

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::time::Instant;

use super::Patience;
use crate::image::error::{ImageError, Result};

/// See the module documentation.
#[derive(Debug)]
pub(in crate::image) struct Body {
    response: Response,
    image: String,
    /// What it is, for messages.
    subject: String,
    limit: u64,
    received: u64,
    patience: Patience,
    /// The end of the current period, and what had been received at its beginning.
    period: (Instant, u64),
}

impl Body {
    /// Fails if the answer says that it is longer than `limit`.
    pub(super) fn new(
        response: Response,
        image: String,
        subject: String,
        limit: u64,
        patience: Patience,
    ) -> Result<Self> {
        let announced = response.content_length();
        let body = Body { image, subject, ..Self::beginning(response, limit, patience) };
        match announced {
            Some(announced) if announced > limit => Err(body.too_large()),
            _ => Ok(body),
        }
    }

    /// A body of which only the beginning is wanted.
    pub(super) fn beginning(response: Response, limit: u64, patience: Patience) -> Self {
        let period = (clock::instant() + patience.period, 0);
        let (image, subject) = (String::new(), String::new());
        Body { response, image, subject, limit, received: 0, patience, period }
    }

    /// The next piece; `None` at the end.
    pub(in crate::image) async fn next(&mut self) -> Result<Option<Bytes>> {
        let (end, before) = self.period;
        let Ok(read) = tokio::time::timeout_at(end, self.response.chunk()).await else {
            return Err(self.stalled());
        };
        let piece = read.map_err(|error| ImageError::RegistryUnavailable {
            image: self.image.clone(),
            message: format!("{}: {}", self.subject, runtime::errors::cause_chain(&error)),
        })?;
        let Some(piece) = piece else {
            return Ok(None);
        };
        self.received = self.received.saturating_add(piece.len() as u64);
        if self.received > self.limit {
            return Err(self.too_large());
        }
        if self.received - before >= self.patience.period_bytes {
            self.period = (clock::instant() + self.patience.period, self.received);
        }
        Ok(Some(piece))
    }

    /// The whole body, for one whose limit is small.
    pub(super) async fn read_all(mut self) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// As much as there is up to the limit, whatever follows and however it ends.
    pub(super) async fn read_some(mut self) -> Bytes {
        let mut some = BytesMut::new();
        while let Ok(Ok(Some(piece))) =
            tokio::time::timeout_at(self.period.0, self.response.chunk()).await
        {
            let room = usize::try_from(self.limit).unwrap_or(usize::MAX) - some.len();
            some.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() >= room {
                break;
            }
        }
        some.freeze()
    }

    fn too_large(&self) -> ImageError {
        ImageError::Pull {
            image: self.image.clone(),
            message: format!("{} is larger than {} bytes", self.subject, self.limit),
        }
    }

    fn stalled(&self) -> ImageError {
        let Patience { period, period_bytes, .. } = self.patience;
        ImageError::RegistryUnavailable {
            image: self.image.clone(),
            message: format!(
                "{}: less than {period_bytes} bytes have arrived in {} seconds",
                self.subject,
                period.as_secs()
            ),
        }
    }
}
