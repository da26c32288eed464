//! What the pipeline answers, before a door gives it its form.

use std::sync::Arc;

use api::KindRow;
use bytes::Bytes;

use crate::cache::{Version, Watcher};
use crate::connect::Connection;

/// One object.
#[derive(Debug)]
pub struct ObjectAnswer {
    /// 200, 201 for a create, 202 for a deletion that takes its time.
    pub code: u16,
    pub row: &'static KindRow,
    pub version: Arc<Version>,
    pub warnings: Vec<String>,
}

/// A page of a list, or all of it.
#[derive(Debug)]
pub struct ListAnswer {
    pub row: &'static KindRow,
    pub items: Vec<Arc<Version>>,
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

/// The answers of all verbs.
pub enum Response {
    Object(ObjectAnswer),
    List(ListAnswer),
    Watch(Box<Watcher>),
    /// An object without a place in the store: a review, a scale, a Status. JSON.
    Json {
        code: u16,
        json: Bytes,
        warnings: Vec<String>,
    },
    /// A non-resource path.
    Raw {
        code: u16,
        content_type: String,
        body: Bytes,
    },
    /// An authorized streaming or proxied subresource.
    Connect(Box<Connection>),
}
