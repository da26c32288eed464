//! Authentication: who a request is from.
//!
//! Client certificates are read once per connection; ServiceAccount tokens are checked once and
//! remembered for a short time. Impersonation is resolved here and authorized by the caller's
//! own rights.

mod authenticate;
mod token;

pub use authenticate::authenticate;
pub use token::{BoundObject, Claims, KubernetesClaims, ServiceAccountTokens, TokenConfig};
