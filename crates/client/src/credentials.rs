//! The credentials of a [`Client`](crate::Client), and the service that adds them to every call.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Channel;

use crate::service_account::ServiceAccount;
use crate::{Error, config};

/// How long the token of a file is used before the file is looked at again.
const TOKEN_FILE_LIFE: Duration = Duration::from_secs(60);

/// A header that names the impersonated user.
pub type Header = (http::HeaderName, http::HeaderValue);

/// What a client authenticates with, besides the certificate of its connection.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub(crate) token: Token,
    pub(crate) headers: Arc<[Header]>,
}

/// Where the bearer token comes from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Token {
    #[default]
    None,
    Fixed(http::HeaderValue),
    /// In a file that somebody else replaces.
    Read(Arc<TokenFile>),
    /// Requested when the first call needs it, and again before it expires.
    Requested(Arc<ServiceAccount>),
}

impl Token {
    async fn header(&self) -> Result<Option<http::HeaderValue>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::Read(file) => Ok(Some(file.header(clock::instant()))),
            Self::Requested(account) => account.header().await.map(Some),
        }
    }
}

/// A file with a token, which is read anew from time to time, as client-go does.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    /// What was in it, and when it is looked at again.
    last: Mutex<(http::HeaderValue, Instant)>,
}

impl TokenFile {
    /// # Errors
    /// When there is no token in it.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let value = bearer(&config::token_in(&path)?)?;
        let last = Mutex::new((value, clock::instant() + TOKEN_FILE_LIFE));
        Ok(Self { path, last })
    }

    /// What is in it now; what was, if it cannot be read.
    fn header(&self, now: Instant) -> http::HeaderValue {
        let mut last = self.last.lock();
        if now >= last.1 {
            last.1 = now + TOKEN_FILE_LIFE;
            match config::token_in(&self.path).and_then(|token| bearer(&token)) {
                Ok(value) => last.0 = value,
                Err(error) => tracing::warn!(%error, "the former token is used"),
            }
        }
        last.0.clone()
    }

    /// The server did not accept it: perhaps there is another one.
    fn refused(&self, now: Instant) {
        self.last.lock().1 = now;
    }
}

/// The header of a bearer token; it is left out of logs.
///
/// # Errors
/// When the token has characters that a header must not have.
pub(crate) fn bearer(token: &str) -> Result<http::HeaderValue, Error> {
    let mut value: http::HeaderValue = format!("Bearer {token}")
        .parse()
        .map_err(|_| Error::Config("the token is not a valid header value".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A channel that adds the credentials to every call.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub(crate) channel: Channel,
    pub(crate) credentials: Credentials,
}

impl Service<http::Request<Body>> for Authenticated {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The channel that is ready makes the call; its clone waits for the next one.
        let clone = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, clone);
        let credentials = self.credentials.clone();
        Box::pin(async move {
            for (name, value) in credentials.headers.iter() {
                request.headers_mut().append(name.clone(), value.clone());
            }
            let token = match credentials.token.header().await {
                Ok(token) => token,
                Err(error) => return Ok(error.into_status().into_http()),
            };
            if let Some(token) = &token {
                request.headers_mut().insert(http::header::AUTHORIZATION, token.clone());
            }
            let response = channel.call(request).await?;
            if is_unauthenticated(&response) {
                match (&credentials.token, &token) {
                    (Token::Requested(account), Some(token)) => account.refused(token),
                    (Token::Read(file), _) => file.refused(clock::instant()),
                    _ => {}
                }
            }
            Ok(response)
        })
    }
}

/// Whether the server does not accept the credentials. An error without a message has its status
/// in the headers.
fn is_unauthenticated(response: &http::Response<Body>) -> bool {
    let status = response.headers().get(tonic::Status::GRPC_STATUS);
    let code = status.map(|value| tonic::Code::from_bytes(value.as_bytes()));
    code == Some(tonic::Code::Unauthenticated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_of_a_file_is_the_one_that_is_there_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(TokenFile::open(path.clone()).is_err());
        std::fs::write(&path, " one\n").unwrap();
        let file = TokenFile::open(path.clone()).unwrap();
        let start = clock::instant();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.header(start), "Bearer one", "it is not read for every request");
        assert_eq!(file.header(start + TOKEN_FILE_LIFE * 2), "Bearer two");
        // An empty one is none.
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.header(start + TOKEN_FILE_LIFE * 4), "Bearer two");
        std::fs::write(&path, "three").unwrap();
        assert_eq!(file.header(start + TOKEN_FILE_LIFE * 4), "Bearer two");
        file.refused(start);
        assert_eq!(file.header(start + TOKEN_FILE_LIFE * 4), "Bearer three");
    }
}
