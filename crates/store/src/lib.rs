//! The cluster's store: a typed client of the etcd v3 API, and an embedded etcd v3 service.
//!
//! The entry point is [`Store`]. [`Store::connect`] connects to an etcd cluster;
//! [`Store::embedded`] opens a directory in which the embedded service stores its data with redb.
//! Everything after that is the same code: the embedded service is reached through etcd-client's
//! custom channel, in process and without a socket, so that both backends behave the same.
//!
//! Every write states the revision it expects ([`Store::create`], [`Store::update`],
//! [`Store::delete`]) and is one etcd transaction. If the expectation fails, the response carries
//! the current value ([`Outcome::Conflict`]), so that callers retry without another read.
//! [`Store::watch`] delivers every change after its start revision, in order, or fails with
//! [`Error::Compacted`].
//!
//! Acknowledged writes are durable on both backends.
//!
//! Values may be stored in another form than callers see: encrypted. A [`Transformer`] converts them on every way in
//! and out.
//!
//! This crate knows keys, bytes and revisions. It must not know kinds, JSON, resource versions as
//! strings, paths under `/registry/`, or authorization: those belong to the apiserver. Only
//! `apiserver` and `testkit` depend on it.

mod connect;
pub mod embedded;
mod entry;
mod error;
mod facade;
mod lease;
mod progress;
mod revision;
mod transform;
mod watch;

pub use connect::{ClientIdentity, EtcdConfig};
pub use entry::{Entry, Event, EventKind};
pub use error::Error;
pub use facade::{Fetched, ListOptions, Listing, Outcome, Store};
pub use lease::LeaseId;
pub use progress::ProgressRequester;
pub use revision::Revision;
pub use transform::{Opened, Transformer, Unreadable};
pub use watch::{Batch, Watch, WatchOptions};

/// The result of the fallible operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
