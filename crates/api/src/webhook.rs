//! How a webhook is reached: `WebhookClientConfig` of `apiextensions.k8s.io/v1`, which
//! `admissionregistration.k8s.io/v1` shares.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::WebhookClientConfig;

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

impl From<&WebhookClientConfig> for WebhookClient {
    fn from(config: &WebhookClientConfig) -> Self {
        let address = match &config.service {
            Some(service) => WebhookAddress::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                path: service.path.clone().unwrap_or_default(),
                port: service.port.and_then(|port| port.try_into().ok()).unwrap_or(DEFAULT_PORT),
            },
            None => WebhookAddress::Url(config.url.clone().unwrap_or_default()),
        };
        let ca_pem = config.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default();
        Self { address, ca_pem }
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
