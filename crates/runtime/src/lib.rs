//! What all Skiff binaries share: startup ([`start`]), common flags ([`flags`]), health endpoints
//! ([`health`]), readiness notification ([`notify`]), shutdown ([`shutdown`]), error messages
//! ([`errors`]), configuration files ([`configuration`]), files and directories that change
//! ([`files`], [`directory_watch`]), the connection to the apiserver ([`connection`]), running other
//! programs ([`program`]), fairness between clients ([`shares`]), the allocator ([`memory`]) and profiles of the processor time ([`profile`]).
//!
//! Entry point: [`start::run`], which a `main` calls with its async body.
//! It must not know any component, the API's kinds or the store.

pub mod configuration;
pub mod connection;
pub mod directory_watch;
pub mod errors;
pub mod files;
pub mod flags;
pub mod health;
pub mod memory;
pub mod notify;
pub mod profile;
pub mod program;
pub mod shares;
pub mod shutdown;
pub mod start;

pub use start::init;
