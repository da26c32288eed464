//! How everything but the apiserver reaches the cluster: typed and untyped calls over gRPC,
//! watches that heal themselves, and events.
//!
//! - [`config`]: where and as whom, from a [`kubeconfig`].
//! - [`Client`]: a connection; [`Api`]: the verbs for one kind; [`dynamic`]: for a kind known only
//!   at run time.
//! - [`mod@informer`]: the present state and then every change of a kind, for ever.
//! - [`mod@changes`]: the same as plain set and remove, for consumers with an index of their own.
//! - [`mirror`]: a local copy of a kind, reduced to what its owner needs.
//! - [`events`]: Kubernetes Events about what a component did.
//! - [`leader`]: one of several replicas acts, by Lease.
//!
//! It must not know the store, any component, or REST.

pub mod changes;
pub mod config;
pub mod dynamic;
pub mod error;
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

/// The generated client, with credentials added to every call.
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
    /// When the address, a certificate or the token cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::impersonating(config, &[])
    }

    /// As [`new`](Self::new), with headers that say in whose name to act (`impersonate-user`,
    /// `impersonate-group`, `impersonate-uid`); the server decides whether we may.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when a name is not a header value.
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
                    .map_err(|_| Error::Config(format!("{value:?} is not a header value")))?;
                Ok((*name, value))
            })
            .collect::<Result<_, Error>>()?;
        let token = match &config.token {
            None => None,
            Some(token) => Some(
                format!("Bearer {token}")
                    .parse()
                    .map_err(|_| Error::Config("the token is not a header value".into()))?,
            ),
        };
        let resources = ResourcesClient::with_interceptor(channel, Credentials { token, headers })
            .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES);
        Ok(Self { resources, namespace: config.namespace.as_str().into(), warn: None })
    }

    /// As it is, but with somebody to tell what the server warns of beside the answers to untyped
    /// writes: fields that the kind does not have, and what is hardly meant.
    #[must_use]
    pub fn with_warnings(self, warn: fn(&str)) -> Self {
        Self { warn: Some(warn), ..self }
    }

    /// What is in an answer, after its warnings have been told.
    fn opened<T>(&self, answer: tonic::Response<T>) -> T {
        if let Some(warn) = self.warn {
            let warnings = answer.metadata().get_all("warning").iter();
            warnings.filter_map(|text| text.to_str().ok()).for_each(warn);
        }
        answer.into_inner()
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

/// Adds the bearer token, and in whose name to act, where there are any.
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
