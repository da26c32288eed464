//! Lists in pieces, so that no answer is ever in memory as a whole.
//!
//! Flow: the items are shared with the cache; a piece joins the bytes of many small ones (one copy)
//! or is a large one's own bytes (none). Allocations: one buffer a piece.

use std::sync::Arc;

use api::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;

use super::table::{IncludeObject, TableOptions, partial, table_head, table_row};
use super::{Accept, Representation};
use crate::cache::Version;
use crate::response::ListAnswer;

/// How long pieces are, about. Objects of this length are not copied.
pub const PIECE_BYTES: usize = 64 << 10;

/// A list that is being rendered.
pub struct Pieces {
    list: ListAnswer,
    representation: Representation,
    options: TableOptions,
    now: Timestamp,
    begun: bool,
    /// Index of the next item, and of the first one of this piece.
    next: usize,
    first_of_piece: usize,
    /// A large object that is the next piece, and what follows it.
    large: Option<Bytes>,
    after: &'static [u8],
    ended: bool,
}

impl Pieces {
    /// The list as the client accepts it, with ages as of `now`.
    pub fn new(list: ListAnswer, accept: &Accept, now: Timestamp) -> Self {
        Self {
            list,
            representation: accept.representation,
            options: accept.table_options(),
            now,
            begun: false,
            next: 0,
            first_of_piece: 0,
            large: None,
            after: b"",
            ended: false,
        }
    }

    /// Whether objects have to be decoded for it.
    pub fn decodes(&self) -> bool {
        self.representation == Representation::Table
    }

    /// The next piece.
    ///
    /// # Errors
    /// 500 when an object of a Table cannot be decoded.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(large) = self.large.take() {
            return Ok(Some(large));
        }
        let mut out = BytesMut::with_capacity(PIECE_BYTES);
        out.put_slice(std::mem::take(&mut self.after));
        if !self.begun {
            self.begun = true;
            self.head(&mut out);
        }
        self.first_of_piece = self.next;
        while !self.ended && self.large.is_none() && out.len() < PIECE_BYTES {
            let Some(item) = self.list.items.get(self.next).cloned() else {
                out.put_slice(b"]}\n");
                self.ended = true;
                break;
            };
            // What the buffer would have to grow for begins the next piece.
            let length = if self.sends_objects() { item.json.len() } else { 0 };
            if out.len() + length > PIECE_BYTES && self.next > self.first_of_piece {
                break;
            }
            if self.next > 0 {
                out.put_u8(b',');
            }
            self.next += 1;
            self.item(&item, &mut out)?;
        }
        Ok(match out.len() {
            0 => None,
            // A short piece must not keep a long buffer.
            length if length < PIECE_BYTES / 4 => Some(Bytes::copy_from_slice(&out)),
            _ => Some(out.freeze()),
        })
    }

    /// Whether whole objects are sent.
    fn sends_objects(&self) -> bool {
        match self.representation {
            Representation::Object => true,
            Representation::PartialMetadata => false,
            Representation::Table => self.options.include == IncludeObject::Object,
        }
    }

    /// All of the rest.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn whole(mut self) -> Result<Bytes, ApiError> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next_piece()? {
            pieces.push(piece);
        }
        match pieces.as_slice() {
            [only] => Ok(only.clone()),
            _ => Ok(pieces.concat().into()),
        }
    }

    fn head(&self, out: &mut BytesMut) {
        let list = &self.list;
        match self.representation {
            Representation::Object => {
                list_head(out, &list.row.list_kind(), &list.row.api_version(), list);
            }
            Representation::PartialMetadata => {
                list_head(out, "PartialObjectMetadataList", "meta.k8s.io/v1", list);
            }
            Representation::Table => table_head(&list.row, Some(list), &[], &self.options, out),
        }
    }

    fn item(&mut self, item: &Arc<Version>, out: &mut BytesMut) -> Result<(), ApiError> {
        if self.sends_objects() && item.json.len() >= PIECE_BYTES {
            if self.representation == Representation::Table {
                let cells = TableOptions { include: IncludeObject::None, ..self.options };
                table_row(&self.list.row, item, &cells, self.now, out)?;
                // In place of the object that was left out.
                out.truncate(out.len() - b"null}".len());
                self.after = b"}";
            }
            self.large = Some(item.json.clone());
            return Ok(());
        }
        match self.representation {
            Representation::Object => out.put_slice(&item.json),
            Representation::PartialMetadata => out.put_slice(&partial(item)),
            Representation::Table => {
                table_row(&self.list.row, item, &self.options, self.now, out)?;
            }
        }
        Ok(())
    }
}

/// Everything of a list before the first item.
fn list_head(out: &mut BytesMut, kind: &str, api_version: &str, list: &ListAnswer) {
    out.put_slice(
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{")
            .as_bytes(),
    );
    if list.revision > 0 {
        out.put_slice(format!("\"resourceVersion\":\"{}\"", list.revision).as_bytes());
    }
    if !list.continue_token.is_empty() {
        out.put_slice(format!(",\"continue\":\"{}\"", list.continue_token).as_bytes());
    }
    if let Some(remaining) = list.remaining.filter(|remaining| *remaining > 0) {
        out.put_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
    out.put_slice(b"},\"items\":[");
}

#[cfg(test)]
pub mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    pub fn list(sizes: &[usize]) -> ListAnswer {
        let item = |(number, size): (usize, &usize)| {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("n{number}"), "namespace": "d"},
                "data": {"k": "x".repeat(*size)}});
            let json = object.to_string();
            Arc::new(Version::from_stored(ConfigMap::ROW, "d/n", json.as_bytes(), 7).unwrap())
        };
        ListAnswer {
            row: ConfigMap::ROW.into(),
            items: sizes.iter().enumerate().map(item).collect(),
            revision: 9,
            continue_token: String::new(),
            remaining: None,
        }
    }

    /// Whatever the sizes of the objects, the pieces make one document with all of them, and none
    /// is much longer than a piece or an object.
    #[test]
    fn pieces_are_bounded_and_make_up_the_list() {
        let largest = 3 * PIECE_BYTES;
        let some = [10, largest, largest, 10, 30_000, 30_000, 30_000, 30_000, largest];
        let many = [1_000; 500];
        for sizes in [&[][..], &[10], &[largest], &some, &many] {
            for representation in
                [Representation::Object, Representation::PartialMetadata, Representation::Table]
            {
                for include in [IncludeObject::None, IncludeObject::Metadata, IncludeObject::Object]
                {
                    let accept = Accept { representation, include, ..Accept::default() };
                    let now = Timestamp::UNIX_EPOCH;
                    let mut pieces = Pieces::new(list(sizes), &accept, now);
                    let mut joined = Vec::new();
                    while let Some(piece) = pieces.next_piece().unwrap() {
                        assert!(piece.len() < largest + 1_000, "{}", piece.len());
                        joined.extend_from_slice(&piece);
                    }
                    let whole = Pieces::new(list(sizes), &accept, now).whole().unwrap();
                    assert_eq!(joined, whole);
                    let value: Value = serde_json::from_slice(&joined).unwrap();
                    let table = representation == Representation::Table;
                    let items = value[if table { "rows" } else { "items" }].as_array().unwrap();
                    assert_eq!(items.len(), sizes.len());
                    for (number, item) in items.iter().enumerate() {
                        let object = if table { &item["object"] } else { item };
                        let name = &object["metadata"]["name"];
                        let named = !table || include != IncludeObject::None;
                        let expected =
                            if named { json!(format!("n{number}")) } else { Value::Null };
                        assert_eq!(*name, expected);
                    }
                }
            }
        }
    }
}
