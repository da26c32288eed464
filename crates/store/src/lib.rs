//! The cluster's store: one typed client of the etcd v3 API, and an etcd v3 service of our own to put behind it.
//!
//! The entry point is [`Store`]. [`Store::connect`] opens an etcd cluster; [`Store::embedded`] opens a folder that the
//! embedded service keeps with redb. Everything after that is the same code: the embedded service is reached through
//! etcd-client's custom channel, in process and without a socket, so that what holds for one backend holds for both.
//!
//! Every write names the state that it expects ([`Store::create`], [`Store::update`], [`Store::delete`]) and is one
//! etcd transaction. When the expectation fails, the same answer carries the present value ([`Outcome::Conflict`]), so
//! a caller retries without a further read. [`Store::watch`] delivers every change after its start revision, in order,
//! or fails with [`Error::Compacted`].
//!
//! An acknowledged write is durable, on either backend.
//!
//! This crate knows keys, bytes and revisions. It must not know kinds, JSON, resource versions as strings, paths under
//! `/registry/`, or who is allowed to do what: that is the apiserver's. Only `apiserver` and `testkit` depend on it.

mod connect;
pub mod embedded;
mod entry;
mod error;
mod facade;
mod lease;
mod progress;
mod revision;
mod watch;

pub use connect::{ClientIdentity, EtcdConfig};
pub use entry::{Entry, Event, EventKind};
pub use error::Error;
pub use facade::{Fetched, ListOptions, Listing, Outcome, Store};
pub use lease::LeaseId;
pub use progress::ProgressRequester;
pub use revision::Revision;
pub use watch::{Batch, Watch, WatchOptions};

/// What every fallible operation of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
