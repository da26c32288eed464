//! What controllers are built from.
//!
//! - [`informer`], [`shared_informers`], [`cache`], [`index`]: one watch and one cache per kind,
//!   shared by every controller, and what its objects are found by.
//! - [`queue`]: the loop that every controller runs in. Keys, never events, reach a controller.
//! - [`owner`]: owner references, adoption and release. [`expectations`]: what a controller has
//!   written but its cache does not show yet.
//! - [`pod_control`], [`pod_state`], [`pod_ranking`]: creating and deleting pods, reading their
//!   status, choosing which to delete first.
//! - [`revisions`], [`hash`]: the history of pod templates.
//! - [`node_match`], [`int_or_percent`], [`error`]: rules and types that several controllers share.
//!
//! Nothing here may import a controller or know the rules of a single one.

pub mod cache;
pub mod error;
pub mod expectations;
pub mod hash;
pub mod index;
pub mod informer;
pub mod int_or_percent;
pub mod kinds;
pub mod node_match;
pub mod owner;
pub mod pod_control;
pub mod pod_ranking;
pub mod pod_state;
pub mod queue;
mod remote_kinds;
pub mod revisions;
pub mod shared_informers;
pub mod status;
#[cfg(test)]
pub mod testing;
