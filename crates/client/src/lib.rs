//! How everything but the apiserver accesses the cluster: typed and untyped calls over gRPC,
//! watches that recover by themselves, and events.
//!
//! - [`config`]: the address and the credentials, from a [`kubeconfig`].
//! - [`Client`]: a connection; [`Api`]: the verbs for one kind; [`dynamic`]: for a kind known only
//!   at run time.
//! - [`mod@informer`]: the current state of a kind, then every change.
//! - [`mod@changes`]: the same as set and remove, for consumers with an index of their own.
//! - [`mirror`]: a local copy of a kind, reduced to what its owner needs.
//! - [`events`]: Kubernetes Events about what a component did.
//! - [`leader`]: leader election by Lease.
//!
//! It must not know the store, any component, or REST.

mod changes;
pub mod config;
pub mod dynamic;
mod error;
pub mod events;
pub mod informer;
pub mod kubeconfig;
pub mod leader;
pub mod mirror;
mod typed;

use rpc::api_v1::resources_client::ResourcesClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

pub use changes::{Change, changes};
pub use config::Config;
pub use error::Error;
pub use informer::{Event, InformerOptions, informer};
pub use typed::{Api, DeleteOptions, List, ListOptions, PatchKind};

/// The generated client, which adds the credentials to every call.
pub type Resources = ResourcesClient<InterceptedService<Channel, Credentials>>;

/// A connection to the apiserver: cheap to clone, connects on first use, reconnects by itself.
#[derive(Clone, Debug)]
pub struct Client {
    resources: Resources,
    namespace: std::sync::Arc<str>,
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
        let channel = rpc::tls::channel(&config.dial)?;
        let headers = headers
            .iter()
            .map(|(name, value)| {
                let value = value
                    .parse()
                    .map_err(|_| Error::Config(format!("{value:?} is not a valid header value")))?;
                Ok((*name, value))
            })
            .collect::<Result<_, Error>>()?;
        let token = match &config.token {
            None => None,
            Some(token) => Some(
                format!("Bearer {token}")
                    .parse()
                    .map_err(|_| Error::Config("the token is not a valid header value".into()))?,
            ),
        };
        let resources = ResourcesClient::with_interceptor(channel, Credentials { token, headers })
            .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES);
        Ok(Self { resources, namespace: config.namespace.as_str().into(), warn: None })
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

/// Adds the bearer token and the impersonation headers, if any.
#[derive(Clone, Debug)]
pub struct Credentials {
    token: Option<AsciiMetadataValue>,
    headers: std::sync::Arc<[(&'static str, AsciiMetadataValue)]>,
}

impl Interceptor for Credentials {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        for (name, value) in self.headers.iter() {
            request.metadata_mut().append(*name, value.clone());
        }
        Ok(request)
    }
}
