//! How everything but the apiserver accesses the cluster: typed and untyped calls over gRPC,
//! watches that recover by themselves, and events.
//!
//! - [`config`]: the address and the credentials, from a [`kubeconfig`].
//! - [`Client`]: a connection; [`Api`]: the verbs for one kind; [`dynamic`]: for a kind known only
//!   at run time.
//! - [`mod@informer`]: the current state of a kind, then every change.
//! - [`mod@changes`]: the same as set and remove, for consumers with a state of their own.
//! - [`mirror`]: a local copy of a kind, reduced to what its owner needs, with indexes; one object,
//!   as it changes.
//! - [`events`]: Kubernetes Events about what a component did.
//! - [`leader`]: leader election by Lease.
//! - [`service_account`]: clients that act as ServiceAccounts.
//!
//! It must not know the store, any component, or REST.

mod changes;
pub mod config;
mod credentials;
pub mod dynamic;
mod error;
pub mod events;
pub mod informer;
pub mod kubeconfig;
pub mod leader;
pub mod mirror;
pub mod service_account;
mod typed;

use std::sync::Arc;

use rpc::api_v1::resources_client::ResourcesClient;
use rpc::live::Dials;
use tonic::codegen::http;
use tonic::transport::Channel;

pub use changes::{Change, changes};
pub use config::Config;
pub use credentials::{Authenticated, Credentials};
pub use error::Error;
pub use informer::{Event, InformerOptions, informer};
pub use typed::{Api, DeleteOptions, List, ListOptions, PatchKind};

/// The generated client, which adds the credentials to every call.
pub type Resources = ResourcesClient<Authenticated>;

/// A connection to the apiserver: cheap to clone, connects on first use, reconnects by itself.
#[derive(Clone, Debug)]
pub struct Client {
    resources: Resources,
    dials: Dials,
    namespace: Arc<str>,
    warn: Option<fn(&str)>,
}

impl Client {
    /// # Errors
    /// When the address, a certificate or the token is invalid.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::impersonating(config, &[])
    }

    /// Like [`new`](Self::new), but impersonating another user with headers (`impersonate-user`,
    /// `impersonate-group`, `impersonate-uid`); the server decides whether this is allowed.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and when a value is not a valid header value.
    pub fn impersonating(
        config: &Config,
        headers: &[(&'static str, String)],
    ) -> Result<Self, Error> {
        Self::with_headers(config, rpc::live::fixed(config.dial.clone()), headers)
    }

    /// Like [`new`](Self::new), but with the server and the certificate of `dials`, which may
    /// change.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn following(config: &Config, dials: Dials) -> Result<Self, Error> {
        Self::with_headers(config, dials, &[])
    }

    fn with_headers(
        config: &Config,
        dials: Dials,
        headers: &[(&'static str, String)],
    ) -> Result<Self, Error> {
        let channel = rpc::live::channel(dials.clone(), true)?;
        let headers = headers
            .iter()
            .map(|(name, value)| {
                let value = value
                    .parse()
                    .map_err(|_| Error::Config(format!("{value:?} is not a valid header value")))?;
                Ok((http::HeaderName::from_static(name), value))
            })
            .collect::<Result<_, Error>>()?;
        let token = match (&config.token, &config.token_file) {
            (_, Some(file)) => {
                let file = credentials::TokenFile::open(file.clone())?;
                credentials::Token::Read(Arc::new(file))
            }
            (None, None) => credentials::Token::None,
            (Some(token), None) => credentials::Token::Fixed(credentials::bearer(token)?),
        };
        Ok(Self {
            resources: resources(channel, Credentials { token, headers }),
            dials,
            namespace: config.namespace.as_str().into(),
            warn: None,
        })
    }

    /// The same server over another connection, with other credentials.
    fn with_channel(&self, channel: Channel, credentials: Credentials) -> Self {
        Self { resources: resources(channel, credentials), ..self.clone() }
    }

    fn channel_without_certificate(&self) -> Result<Channel, Error> {
        Ok(rpc::live::channel(self.dials.clone(), false)?)
    }

    /// Calls `warn` with every warning that the server returns with the response to an untyped
    /// write: unknown fields, and values that are unlikely to be intended.
    #[must_use]
    pub fn with_warnings(self, warn: fn(&str)) -> Self {
        Self { warn: Some(warn), ..self }
    }

    /// The message in a response, after its warnings have been reported.
    fn message<T>(&self, response: tonic::Response<T>) -> T {
        if let Some(warn) = self.warn {
            let warnings = response.metadata().get_all("warning").iter();
            warnings.filter_map(|text| text.to_str().ok()).for_each(warn);
        }
        response.into_inner()
    }

    /// The generated client, for calls that the typed ones do not cover. Cloning is cheap.
    pub fn resources(&self) -> Resources {
        self.resources.clone()
    }

    /// The namespace of the kubeconfig's context; `default` when it names none.
    pub fn default_namespace(&self) -> &str {
        &self.namespace
    }

    /// The body of a non-resource path such as `/version`.
    pub async fn get_path(&self, path: &str, accept: &str) -> Result<bytes::Bytes, Error> {
        let request = rpc::api_v1::GetPathRequest { path: path.into(), accept: accept.into() };
        Ok(self.resources().get_path(request).await?.into_inner().body)
    }
}

fn resources(channel: Channel, credentials: Credentials) -> Resources {
    ResourcesClient::new(Authenticated { channel, credentials })
        .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES)
}
