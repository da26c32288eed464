//! Unsuccessful answers of a registry.

use http::StatusCode;
use reqwest::Response;
use serde::Deserialize;

use super::{Body, Registry};
use crate::image::error::{ImageError, Result};

/// How much of an unsuccessful answer is read.
const MAX_ERROR_BYTES: u64 = 8 << 10;
/// How much of a registry's text becomes part of a message: it ends up in Events and statuses.
const MAX_TEXT_CHARS: usize = 256;

/// The errors of an unsuccessful answer.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// The answer, if it is a success.
    pub(super) async fn successful(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let mut url = response.url().clone();
        // It may hold a signature.
        url.set_query(None);
        let mut message = format!("{}: {status}", short(url.as_str()));
        if response.content_length() != Some(0) {
            let body = Body::beginning(response, MAX_ERROR_BYTES, self.patience);
            let text = text_of(&body.read_some().await);
            if !text.is_empty() {
                message = format!("{message}: {text}");
            }
        }
        let image = self.reference.to_string();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ImageError::Unauthorized { image, message }
            }
            StatusCode::NOT_FOUND => ImageError::NotFound { image, message },
            StatusCode::TOO_MANY_REQUESTS => ImageError::RegistryUnavailable { image, message },
            status if status.is_server_error() => {
                ImageError::RegistryUnavailable { image, message }
            }
            _ => ImageError::Pull { image, message },
        })
    }
}

/// What an unsuccessful answer says.
fn text_of(body: &[u8]) -> String {
    match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let texts: Vec<String> = errors
                .iter()
                .map(|one| {
                    let parts = [one.code.as_str(), one.message.as_str()];
                    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
                })
                .collect();
            short(&texts.join("; "))
        }
        Err(_) => short(String::from_utf8_lossy(body).trim()),
    }
}

/// The beginning of a foreign text, on one line.
pub(super) fn short(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut short: String = text.chars().take(MAX_TEXT_CHARS).map(plain).collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        short.push_str(" ...");
    }
    short
}
