//! Reads a table: its comment, the names of its chains and sets, the number of rules per chain,
//! elements.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::{INTERVAL_END, Timing};
use super::{Attributes, Family, Message, NftError, Socket};

const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;

/// An element in the kernel's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    /// The last key of a range, or the key after the last one of an interval.
    pub key_end: Option<Vec<u8>>,
    pub data: Data,
    pub timing: Timing,
}

/// The data of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    None,
    Value(Vec<u8>),
    /// The code of the verdict, and the chain it refers to.
    Verdict(i32, Option<String>),
}

/// The comment of the table; `None` if there is no such table.
pub fn table_comment(
    socket: &mut Socket,
    family: Family,
    table: &str,
) -> Result<Option<String>, NftError> {
    socket.dump(
        GET_TABLE,
        family.number(),
        |_| {},
        |found, attributes| {
            if attributes.get_str(1) == Some(table) {
                *found = Some(comment(&attributes));
            }
        },
    )
}

/// All tables of the family: name and comment.
pub fn tables(socket: &mut Socket, family: Family) -> Result<Vec<(String, String)>, NftError> {
    socket.dump(
        GET_TABLE,
        family.number(),
        |_| {},
        |found: &mut Vec<_>, attributes| {
            if let Some(name) = attributes.get_str(1) {
                found.push((name.to_owned(), comment(&attributes)));
            }
        },
    )
}

/// The comment in a table's user data: type, length, text.
fn comment(attributes: &Attributes<'_>) -> String {
    let comment = attributes.get(6).and_then(|bytes| bytes.get(2..)).unwrap_or_default();
    let comment = comment.strip_suffix(&[0]).unwrap_or(comment);
    String::from_utf8_lossy(comment).into_owned()
}

/// A set or map: its name, and the types of its keys and data as stated by whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTypes {
    pub name: String,
    pub key_type: u32,
    /// `None` for a set.
    pub data_type: Option<u32>,
}

/// The named sets and maps of the table.
pub fn sets(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<SetTypes>, NftError> {
    const ANONYMOUS: u32 = 1;
    let in_table = |message: &mut Message| message.attr_str(1, table);
    socket.dump(GET_SET, family.number(), in_table, |found: &mut Vec<_>, attributes| {
        let number = |kind| Some(u32::from_be_bytes(attributes.get(kind)?.try_into().ok()?));
        let named = number(3).unwrap_or_default() & ANONYMOUS == 0;
        if let (Some(name), true) = (attributes.get_str(2), named) {
            found.push(SetTypes {
                name: name.to_owned(),
                key_type: number(4).unwrap_or_default(),
                data_type: number(6),
            });
        }
    })
}

/// The names of the table's chains and of its sets.
pub fn names(
    socket: &mut Socket,
    family: Family,
    table: &str,
) -> Result<(BTreeSet<String>, BTreeSet<String>), NftError> {
    let collect = |kind: u16| {
        move |found: &mut BTreeSet<String>, attributes: Attributes<'_>| {
            if attributes.get_str(1) == Some(table) {
                found.extend(attributes.get_str(kind).map(str::to_owned));
            }
        }
    };
    let chains = socket.dump(GET_CHAIN, family.number(), |_| {}, collect(3))?;
    let in_table = |message: &mut Message| message.attr_str(1, table);
    let sets = socket.dump(GET_SET, family.number(), in_table, collect(2))?;
    Ok((chains, sets))
}

/// The number of rules in each chain of the table. Chains without rules are omitted.
pub fn rules_per_chain(
    socket: &mut Socket,
    family: Family,
    table: &str,
) -> Result<BTreeMap<String, usize>, NftError> {
    let in_table = |message: &mut Message| message.attr_str(1, table);
    socket.dump(GET_RULE, family.number(), in_table, |found: &mut BTreeMap<_, _>, attributes| {
        if let (Some(name), Some(chain)) = (attributes.get_str(1), attributes.get_str(2))
            && name == table
        {
            *found.entry(chain.to_owned()).or_default() += 1;
        }
    })
}

/// All elements of a set or map.
pub fn elements(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<Element>, NftError> {
    let of_set = |message: &mut Message| {
        message.attr_str(1, table);
        message.attr_str(2, set);
    };
    socket.dump(GET_ELEMENT, family.number(), of_set, |found: &mut Vec<Element>, attributes| {
        found.extend(attributes.nested(3).filter_map(|(_, bytes)| element(Attributes(bytes))));
    })
}

/// All intervals of a set or map with [`super::Set::intervals`], whose ends are elements of their
/// own. `None` if one has no end, or the other way round.
pub fn intervals(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Option<Vec<Element>>, NftError> {
    let in_set = |message: &mut Message| {
        message.attr_str(1, table);
        message.attr_str(2, set);
    };
    let collect = |found: &mut Vec<(bool, Element)>, attributes: Attributes<'_>| {
        found.extend(attributes.nested(3).filter_map(|(_, bytes)| {
            let attributes = Attributes(bytes);
            let flags = attributes.get(3).and_then(|flags| flags.try_into().ok());
            let starts = flags.map_or(0, u32::from_be_bytes) & INTERVAL_END == 0;
            Some((starts, element(attributes)?))
        }));
    };
    let elements = socket.dump(GET_ELEMENT, family.number(), in_set, collect)?;
    Ok(pair(elements))
}

/// Pairs starts with ends; of an end and a start with the same key, the end comes first.
fn pair(mut elements: Vec<(bool, Element)>) -> Option<Vec<Element>> {
    elements.sort_by(|(a_starts, a), (b_starts, b)| (&a.key, a_starts).cmp(&(&b.key, b_starts)));
    let mut intervals: Vec<Element> = Vec::with_capacity(elements.len() / 2);
    for (starts, element) in elements {
        let open = intervals.last_mut().filter(|last| last.key_end.is_none());
        match (starts, open) {
            (true, None) => intervals.push(element),
            (false, Some(open)) => open.key_end = Some(element.key),
            _ => return None,
        }
    }
    intervals.last().is_none_or(|last| last.key_end.is_some()).then_some(intervals)
}

fn element(attributes: Attributes<'_>) -> Option<Element> {
    let key = attributes.nested(1).get(1)?.to_vec();
    let key_end = attributes.nested(10).get(1).map(<[u8]>::to_vec);
    let data = attributes.nested(2);
    let verdict = data.nested(2);
    let data = match (data.get(1), verdict.get(1)) {
        (Some(value), _) => Data::Value(value.to_vec()),
        (None, Some(code)) => Data::Verdict(
            i32::from_be_bytes(code.try_into().ok()?),
            verdict.get_str(2).map(str::to_owned),
        ),
        (None, None) => Data::None,
    };
    let number = |kind| Some(u64::from_be_bytes(attributes.get(kind)?.try_into().ok()?));
    let timing = Timing { timeout_ms: number(4).unwrap_or(0), expires_ms: number(5).unwrap_or(0) };
    Some(Element { key, key_end, data, timing })
}
