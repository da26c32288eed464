//! Authentication: who a request is from.
//!
//! Client certificates are verified once per connection; verified ServiceAccount tokens are cached
//! for a short time; bootstrap tokens ([`bootstrap`]) are looked up. Impersonation is resolved here and authorized by the caller's own rights.

mod authenticate;
pub mod bootstrap;
mod credentials;
mod token;

pub use authenticate::authenticate;
pub use credentials::credentials;
pub use token::{BoundObject, Claims, KubernetesClaims, ServiceAccountTokens, TokenConfig};
