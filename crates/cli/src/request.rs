//! What verbs share: which server, which objects, how they are read and written, and how errors are
//! shown.
//!
//! - Where: [`connection`], [`kubelet`], [`rest`].
//! - Which objects: [`selection`] (`TYPE/NAME` and selectors), [`manifest`] (`-f`), [`pods`] (those
//!   of a workload).
//! - Writing: [`mod@write`] (`--dry-run` and the line that reports what was done), [`generate`],
//!   [`last_applied`], [`subjects`], [`editor`].
//! - Over time: [`watch`], [`stream`], [`session`], [`log`].
//! - [`failure`] shows errors in kubectl's format; [`duration`] reads Go's durations.
//!
//! It must not know any verb.

pub mod connection;
pub mod duration;
pub mod editor;
pub mod failure;
pub mod generate;
pub mod kubelet;
pub mod last_applied;
pub mod log;
pub mod manifest;
pub mod pods;
pub mod rest;
pub mod selection;
pub mod session;
pub mod stream;
pub mod subjects;
pub mod watch;
pub mod write;

pub use connection::Connection;
