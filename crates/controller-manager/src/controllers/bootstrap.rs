//! Bootstrap tokens: removed once they have expired, and used to sign what nodes learn about the
//! cluster before they trust it (`k8s.io/kubernetes/pkg/controller/bootstrap`).

mod clean;
mod sign;

pub use clean::start as start_cleaner;
pub use sign::start as start_signer;
