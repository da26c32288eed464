//! What all Skiff binaries share: startup ([`start`]), common flags ([`flags`]), health endpoints
//! ([`health`]), readiness notification ([`notify`]), shutdown ([`shutdown`]), error messages
//! ([`errors`]) and running other programs ([`program`]).
//!
//! Entry point: [`start::run`], which a `main` calls with its async body.
//! It must not know any component, the API's kinds or the store.

pub mod errors;
pub mod flags;
pub mod health;
pub mod notify;
pub mod program;
pub mod shutdown;
pub mod start;

pub use start::init;

/// Small heaps with little fragmentation, for processes that run for months.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
