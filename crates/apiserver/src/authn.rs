//! Authentication: who a request is from.
//!
//! Client certificates are verified once per connection; verified ServiceAccount tokens are cached
//! for a short time; bootstrap tokens ([`bootstrap`]) are looked up. Tokens of other issuers are
//! verified by the issuers' keys, and become users as the configuration says; what nobody knows is
//! sent to a webhook, if there is one. Impersonation is resolved here and authorized by the caller's
//! own rights.

mod authenticate;
pub mod bootstrap;
mod claims;
mod configuration;
mod credentials;
mod distributed;
pub mod fetch;
mod impersonation;
mod issuer;
mod jwt;
mod kubeconfig;
mod structured;
mod token;
mod webhook;

pub use authenticate::{authenticate, foreigner, impersonate};
pub use credentials::credentials;
pub use fetch::Client;
pub use kubeconfig::Source;
pub use structured::Authentication;
pub use token::{BoundObject, Claims, KubernetesClaims, ServiceAccountTokens, TokenConfig};
