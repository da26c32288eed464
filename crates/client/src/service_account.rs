//! Clients that act as ServiceAccounts, with tokens that the process requests for them
//! (`k8s.io/controller-manager/pkg/clientbuilder`).
//!
//! A process with many tasks gives each of them an account of its own, so that a task can do no
//! more than its account's roles allow. The clients share one connection. It has no client
//! certificate, which would win over their tokens. A token is requested when the first call needs
//! it, so that starting costs nothing, and again when most of its lifetime is over or the server
//! has refused it; an account that is missing is created.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount as ServiceAccountObject;
use parking_lot::RwLock;
use tokio::time::Instant;
use tonic::codegen::http::HeaderValue;
use tonic::transport::Channel;

use crate::credentials::{Credentials, Token, bearer};
use crate::{Api, Client, Error};

/// The lifetime that is requested for a token.
const LIFETIME: Duration = Duration::from_secs(3600);
/// An account that was just created may be unknown to the server for a moment.
const RETRY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(5))
    .with_max_delay(Duration::from_millis(200))
    .with_max_times(8);

/// Makes clients of the ServiceAccounts of one namespace.
#[derive(Clone, Debug)]
pub struct ServiceAccountClients {
    own: Client,
    channel: Channel,
    namespace: String,
}

impl ServiceAccountClients {
    /// `own`: who requests the tokens.
    ///
    /// # Errors
    /// When the address or a certificate is invalid.
    pub fn new(own: &Client, namespace: &str) -> Result<Self, Error> {
        let channel = own.channel_without_certificate()?;
        Ok(Self { own: own.clone(), channel, namespace: namespace.to_owned() })
    }

    /// A client that acts as the account `name`.
    pub fn client(&self, name: &str) -> Client {
        let account = Arc::new(ServiceAccount {
            own: self.own.clone(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            token: RwLock::default(),
            request: tokio::sync::Mutex::default(),
        });
        let credentials = Credentials { token: Token::Requested(account), ..Default::default() };
        self.own.with_channel(self.channel.clone(), credentials)
    }
}

/// A ServiceAccount and its current token.
#[derive(Debug)]
pub(crate) struct ServiceAccount {
    own: Client,
    namespace: String,
    name: String,
    token: RwLock<Option<Current>>,
    /// Held by the one task that requests a token for all that wait.
    request: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Current {
    header: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
}

impl ServiceAccount {
    /// The header with a token that is valid for a while.
    ///
    /// # Errors
    /// When there is none and the server issues none.
    pub async fn header(&self) -> Result<HeaderValue, Error> {
        if let Some(current) = self.fresh() {
            return Ok(current.header);
        }
        let _turn = self.request.lock().await;
        if let Some(current) = self.fresh() {
            return Ok(current.header);
        }
        let requested = self.request_token().await;
        let mut token = self.token.write();
        match requested {
            Ok(current) => Ok(token.insert(current).header.clone()),
            Err(error) => match &*token {
                Some(current) if clock::instant() < current.expires_at => {
                    let account = self.name.as_str();
                    tracing::warn!(account, %error, "cannot renew the token; using the old one");
                    Ok(current.header.clone())
                }
                _ => Err(error),
            },
        }
    }

    /// Drops the token that the server has refused: its account was deleted, or the key replaced.
    pub fn refused(&self, header: &HeaderValue) {
        self.token.write().take_if(|current| current.header == *header);
    }

    fn fresh(&self) -> Option<Current> {
        let current = self.token.read().clone();
        current.filter(|current| clock::instant() < current.renew_at)
    }

    async fn request_token(&self) -> Result<Current, Error> {
        let accounts = Api::<ServiceAccountObject>::namespaced(&self.own, &self.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: i64::try_from(LIFETIME.as_secs()).ok(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let issue = || accounts.create_subresource(&self.name, "token", &request);
        let requested_at = clock::instant();
        let issued = match issue().await {
            Err(error) if error.is_not_found() => {
                self.create(&accounts).await?;
                issue.retry(RETRY).when(Error::is_not_found).await?
            }
            outcome => outcome?,
        };
        // The server may have shortened it.
        let granted = issued.spec.and_then(|spec| spec.expiration_seconds);
        let granted = granted.and_then(|seconds| u64::try_from(seconds).ok());
        let lifetime = granted.map_or(LIFETIME, Duration::from_secs);
        let token = issued.status.and_then(|status| status.token).unwrap_or_default();
        Ok(Current {
            header: bearer(&token)?,
            renew_at: requested_at + lifetime.mul_f64(0.8),
            expires_at: requested_at + lifetime,
        })
    }

    async fn create(&self, accounts: &Api<ServiceAccountObject>) -> Result<(), Error> {
        let mut account = ServiceAccountObject::default();
        account.metadata.name = Some(self.name.clone());
        account.metadata.namespace = Some(self.namespace.clone());
        match accounts.create(&account).await {
            Err(error) if error.is_already_exists() => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}
