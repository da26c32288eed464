//! How a webhook is reached: `WebhookClientConfig` of `apiextensions.k8s.io/v1`, which
//! `admissionregistration.k8s.io/v1` shares.

use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;

pub use crate::structural::definition::{webhook_service, webhook_url};

/// Port of a service whose reference has none.
const DEFAULT_PORT: u16 = 443;

/// A webhook's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebhookClient {
    pub address: WebhookAddress,
    /// The certificate authorities that its certificate is verified by, in PEM. Empty: those of the
    /// machine.
    pub ca_pem: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WebhookAddress {
    /// `https://host[:port][/path]`
    Url(String),
    Service {
        namespace: String,
        name: String,
        /// Empty, or starting with a slash.
        path: String,
        /// Of the Service, not of its endpoints.
        port: u16,
    },
}

/// The two groups have types of their own with the same fields.
macro_rules! client_of {
    ($config:ty) => {
        impl From<&$config> for WebhookClient {
            fn from(config: &$config) -> Self {
                let port = |port: i32| port.try_into().ok();
                let address = match &config.service {
                    Some(service) => WebhookAddress::Service {
                        namespace: service.namespace.clone(),
                        name: service.name.clone(),
                        path: service.path.clone().unwrap_or_default(),
                        port: service.port.and_then(port).unwrap_or(DEFAULT_PORT),
                    },
                    None => WebhookAddress::Url(config.url.clone().unwrap_or_default()),
                };
                let bundle = config.ca_bundle.as_ref().map(|bundle| bundle.0.clone());
                Self { address, ca_pem: bundle.unwrap_or_default() }
            }
        }
    };
}

client_of!(apiextensions::WebhookClientConfig);
client_of!(admission::WebhookClientConfig);

/// A validating webhook in the form of a mutating one, which has one field more.
pub fn as_mutating(hook: &admission::ValidatingWebhook) -> admission::MutatingWebhook {
    let hook = hook.clone();
    admission::MutatingWebhook {
        admission_review_versions: hook.admission_review_versions,
        client_config: hook.client_config,
        failure_policy: hook.failure_policy,
        match_conditions: hook.match_conditions,
        match_policy: hook.match_policy,
        name: hook.name,
        namespace_selector: hook.namespace_selector,
        object_selector: hook.object_selector,
        reinvocation_policy: None,
        rules: hook.rules,
        side_effects: hook.side_effects,
        timeout_seconds: hook.timeout_seconds,
    }
}

impl WebhookClient {
    /// Where requests are sent, as errors show it.
    pub fn url(&self) -> String {
        match &self.address {
            WebhookAddress::Url(url) => url.clone(),
            WebhookAddress::Service { namespace, name, path, port } => {
                format!("https://{name}.{namespace}.svc:{port}{path}")
            }
        }
    }
}
