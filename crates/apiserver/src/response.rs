//! What the pipeline answers, before a front end renders it.

use std::collections::HashSet;
use std::sync::Arc;

use api::KindRef;
use bytes::Bytes;

use crate::cache::{Version, Watcher};
use crate::connect::Connection;

/// One object.
#[derive(Debug)]
pub struct ObjectAnswer {
    /// 200, 201 for a create, 202 for a deletion that is not finished.
    pub code: u16,
    pub row: KindRef,
    pub version: Arc<Version>,
    pub warnings: Vec<String>,
}

/// Maximum total of the warnings in one answer, and of each when they exceed it, in bytes
/// (upstream's limits): they travel as headers.
const WARNINGS_BYTES: usize = 4 << 10;
const WARNING_BYTES: usize = 256;
/// Maximum number of warnings: some clients accept no more than a hundred headers.
const WARNINGS: usize = 50;

/// Warnings without duplicates, cut to what headers can carry.
pub fn bounded(warnings: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let once = || warnings.iter().filter(|text| !text.is_empty());
    let whole: usize = once().map(String::len).sum();
    let mut left = WARNINGS_BYTES;
    let mut kept = Vec::new();
    for text in once() {
        let mut end = text.len();
        if whole > WARNINGS_BYTES && end > WARNING_BYTES {
            end = WARNING_BYTES;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
        }
        let text = &text[..end];
        if text.len() > left || kept.len() == WARNINGS {
            break;
        }
        if seen.insert(text) {
            left -= text.len();
            kept.push(text.to_owned());
        }
    }
    kept
}

/// A page of a list, or all of it.
#[derive(Clone, Debug)]
pub struct ListAnswer {
    pub row: KindRef,
    pub items: Vec<Arc<Version>>,
    /// 0: of objects that are computed.
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

/// The answers of all verbs.
pub enum Response {
    Object(ObjectAnswer),
    List(ListAnswer),
    Watch(Box<Watcher>),
    /// An object that is not stored: a review, a scale, a Status. JSON.
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
    /// A non-resource path, with headers of its own.
    Http(Box<http::Response<Bytes>>),
    /// An authorized streaming or proxied subresource.
    Connect(Box<Connection>),
}
