//! A transaction: what to create, change and delete.

use super::{Expr, Family, Message};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;
/// The maximum size of the elements in one message, in bytes: an attribute is limited to 64 KB.
const ELEMENTS_PER_MESSAGE: usize = 60_000;

/// What a rule or an element of a verdict map does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug)]
pub enum ChainKind {
    Filter,
    Nat,
}

/// The hook that a base chain is attached to.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What makes a chain a base chain: all packets at `hook` traverse it, chains of lower priority
/// first.
#[derive(Clone, Copy, Debug)]
pub struct BaseChain {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

/// The definition of a set or map. The types are `nft`'s (6 bits each in a concatenation) and only
/// used for display.
#[derive(Clone, Debug)]
pub struct Set {
    pub name: &'static str,
    pub key_type: u32,
    pub key_len: u32,
    pub data: SetData,
    /// Populated by the packet path, each element with a timeout.
    pub dynamic: bool,
    /// The lengths of the key's fields if each field is a range, else empty.
    pub ranges: Vec<u32>,
    /// Whether the elements are intervals of whole keys, compared byte by byte.
    pub intervals: bool,
    /// Whether the keys are text, which `nft` has to be told to display them.
    pub text: bool,
}

/// The type of the elements' data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetData {
    None,
    Verdict,
    Value { kind: u32, len: u32 },
}

/// Collects the messages of one transaction.
pub struct Batch {
    message: Message,
    family: Family,
    table: String,
    sequence: u32,
    sets: u32,
}

impl Batch {
    /// Starts a transaction on one table.
    pub fn new(family: Family, table: &str) -> Self {
        let mut batch = Self {
            message: Message::default(),
            family,
            table: table.to_owned(),
            sequence: 0,
            sets: 0,
        };
        batch.message.begin(BATCH_BEGIN, REQUEST, 0, 0, SUBSYSTEM);
        batch.message.end();
        batch
    }

    /// Whether the transaction is empty.
    pub fn is_empty(&self) -> bool {
        self.sequence == 0
    }

    /// The bytes of the whole transaction, and the sequence number of the message that will be
    /// acknowledged.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.message.flag_last(ACK);
        self.message.begin(BATCH_END, REQUEST, self.sequence + 1, 0, SUBSYSTEM);
        self.message.end();
        (self.message.bytes().to_vec(), self.sequence)
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.sequence += 1;
        let kind = SUBSYSTEM << 8 | kind;
        let family = self.family.number();
        self.message.begin(kind, REQUEST | flags, self.sequence, family, 0);
        self.message.attr_str(1, &self.table);
    }

    /// Creates the table if it is missing; the comment is only set on creation.
    pub fn table(&mut self, comment: &str) {
        self.begin(NEW_TABLE, CREATE);
        // struct nftnl_udata of type NFTNL_UDATA_TABLE_COMMENT, as used by nft.
        let length = u8::try_from(comment.len() + 1).expect("a comment is short");
        let mut comment_bytes = vec![0, length];
        comment_bytes.extend(comment.as_bytes());
        comment_bytes.push(0);
        self.message.attr(6, &comment_bytes);
        self.message.end();
    }

    /// Deletes the table with all its contents. It must exist.
    pub fn delete_table(&mut self) {
        self.begin(DELETE_TABLE, 0);
        self.message.end();
    }

    pub fn chain(&mut self, name: &str, base: Option<BaseChain>) {
        self.begin(NEW_CHAIN, CREATE);
        self.message.attr_str(3, name);
        if let Some(base) = base {
            self.message.nest(4, |message| {
                message.attr_u32(1, base.hook as u32);
                message.attr(2, &base.priority.to_be_bytes());
            });
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            self.message.attr_str(7, kind);
        }
        self.message.end();
    }

    /// Deletes a chain with its rules. It must no longer be referenced.
    pub fn delete_chain(&mut self, name: &str) {
        self.begin(DELETE_CHAIN, 0);
        self.message.attr_str(3, name);
        self.message.end();
    }

    /// Appends a rule to the chain.
    pub fn rule(&mut self, chain: &str, expressions: &[Expr]) {
        self.begin(NEW_RULE, CREATE | APPEND);
        self.message.attr_str(2, chain);
        self.message.nest(4, |message| {
            for expression in expressions {
                expression.write(message);
            }
        });
        self.message.end();
    }

    pub fn set(&mut self, set: &Set) {
        const MAP: u32 = 0x8;
        const INTERVAL: u32 = 0x4;
        self.begin(NEW_SET, CREATE);
        self.sets += 1;
        let mut flags = 0;
        if set.data != SetData::None {
            flags |= MAP;
        }
        if set.dynamic {
            flags |= 0x10 | 0x20; // NFT_SET_TIMEOUT, NFT_SET_EVAL
        }
        if !set.ranges.is_empty() {
            flags |= INTERVAL | 0x80; // NFT_SET_CONCAT
        }
        if set.intervals {
            flags |= INTERVAL;
        }
        self.message.attr_str(2, set.name);
        self.message.attr_u32(3, flags);
        self.message.attr_u32(4, set.key_type);
        self.message.attr_u32(5, set.key_len);
        match set.data {
            SetData::None => {}
            SetData::Verdict => {
                self.message.attr_u32(6, VERDICT_TYPE);
                self.message.attr_u32(7, 0);
            }
            SetData::Value { kind, len } => {
                self.message.attr_u32(6, kind);
                self.message.attr_u32(7, len);
            }
        }
        self.message.attr_u32(10, self.sets);
        if set.text {
            // struct nftnl_udata of type NFTNL_UDATA_SET_KEYBYTEORDER: host byte order.
            let mut order = vec![0, 4];
            order.extend(1_u32.to_ne_bytes());
            self.message.attr(13, &order);
        }
        if !set.ranges.is_empty() {
            self.message.nest(9, |message| {
                message.nest(2, |message| {
                    for length in &set.ranges {
                        message.nest(1, |message| message.attr_u32(1, *length));
                    }
                });
            });
        }
        self.message.end();
    }

    /// Adds elements.
    pub fn add(&mut self, set: &str, elements: impl IntoIterator<Item = NewElement>) {
        self.elements(NEW_ELEMENT, CREATE, set, elements, |message, element| {
            write_element(message, &element.key, &element.end, |message| match &element.data {
                ElementData::None => {}
                ElementData::Value(value) => {
                    message.nest(2, |message| message.attr(1, value));
                }
                ElementData::Expires(timing) => {
                    message.attr_u64(4, timing.timeout_ms);
                    message.attr_u64(5, timing.expires_ms);
                }
                ElementData::Verdict(verdict) => {
                    message.nest(2, |message| write_verdict(message, verdict));
                }
            });
        });
    }

    /// Deletes elements by key and, for ranges, their end. They must exist.
    pub fn delete(&mut self, set: &str, keys: impl IntoIterator<Item = (Vec<u8>, KeyEnd)>) {
        self.elements(DELETE_ELEMENT, 0, set, keys, |message, (key, end)| {
            write_element(message, &key, &end, |_| {});
        });
    }

    fn elements<T>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Message, T),
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.begin(kind, flags);
            self.message.attr_str(2, set);
            let list = self.message.open(3);
            for element in elements.by_ref() {
                write(&mut self.message, element);
                if self.message.current_len() > ELEMENTS_PER_MESSAGE {
                    break;
                }
            }
            self.message.close(list);
            self.message.end();
        }
    }
}

/// An element for [`Batch::add`].
pub struct NewElement {
    pub key: Vec<u8>,
    pub end: KeyEnd,
    pub data: ElementData,
}

/// The end of a range, if the element is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEnd {
    None,
    /// The last key, field by field; for sets with [`Set::ranges`].
    Last(Vec<u8>),
    /// The key after the last one, an element of its own; for sets with [`Set::intervals`].
    After(Vec<u8>),
}

/// The data of an element for [`Batch::add`].
pub enum ElementData {
    None,
    Value(Vec<u8>),
    Verdict(Verdict),
    /// No data; the element keeps its timeout and remaining lifetime.
    Expires(Timing),
}

/// The timeout of an element of a dynamic set since its last use, and its remaining lifetime, in
/// milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    pub timeout_ms: u64,
    pub expires_ms: u64,
}

pub(super) fn write_verdict(message: &mut Message, verdict: &Verdict) {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    message.nest(2, |message| {
        message.attr(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            message.attr_str(2, chain);
        }
    });
}

fn write_element(message: &mut Message, key: &[u8], end: &KeyEnd, data: impl Fn(&mut Message)) {
    message.nest(1, |message| {
        message.nest(1, |message| message.attr(1, key));
        if let KeyEnd::Last(end) = end {
            message.nest(10, |message| message.attr(1, end));
        }
        data(message);
    });
    if let KeyEnd::After(end) = end {
        message.nest(1, |message| {
            message.nest(1, |message| message.attr(1, end));
            message.attr_u32(3, INTERVAL_END);
        });
    }
}
