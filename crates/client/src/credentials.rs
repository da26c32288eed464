//! The credentials of a [`Client`](crate::Client), and the service that adds them to every call.

use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Channel;

use crate::Error;
use crate::service_account::ServiceAccount;

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
    /// Requested when the first call needs it, and again before it expires.
    Requested(Arc<ServiceAccount>),
}

impl Token {
    async fn header(&self) -> Result<Option<http::HeaderValue>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::Requested(account) => account.header().await.map(Some),
        }
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
            if let (Token::Requested(account), Some(token)) = (&credentials.token, &token)
                && is_unauthenticated(&response)
            {
                account.refused(token);
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
