//! The controllers: each brings a part of the cluster closer to what its objects specify.
//!
//! - [`wire::run`] starts them all; `main` calls it while it holds the Lease.
//! - [`controllers`]: one module per controller.
//! - [`machinery`]: what they are built from: informers, caches, the queue, owner references.
//!
//! A plan must not know caches, clients or clocks. Nothing here may act without the Lease, keep
//! state that a restart could lose, or sleep where it could wait for a change.

pub mod config;
mod controllers;
mod machinery;
#[cfg(test)]
mod reasons;
pub mod wire;

pub use machinery::error::Error;
