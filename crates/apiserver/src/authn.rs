//! Authentication: who a request is from.
//!
//! Client certificates are verified once per connection; verified ServiceAccount tokens are cached
//! for a short time. Impersonation is resolved here and authorized by the caller's own rights.

mod authenticate;
mod credentials;
mod token;

pub use authenticate::{authenticate, impersonate};
pub use credentials::credentials;
pub use token::{BoundObject, Claims, KubernetesClaims, ServiceAccountTokens, TokenConfig};
