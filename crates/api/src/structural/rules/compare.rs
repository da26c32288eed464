//! Equality, order and texts of whole values. Parts of a value may be shared many times over, so these
//! count all that they visit and write.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::eval::{ELEMENT_WORK, Evaluation, Failure};
use super::functions::printed;
use super::value::{List, Object, Struct, Val};
use crate::structural::go;
use crate::structural::node::ListType;

impl<'a> Evaluation<'a> {
    /// # Errors
    /// When it is too much to compare.
    pub fn equal(&mut self, one: &Val<'a>, other: &Val<'a>) -> Result<bool, Failure> {
        self.work(1)?;
        Ok(match (one, other) {
            (Val::Null, Val::Null) => true,
            (Val::Text(one), Val::Text(other)) | (Val::Url(one), Val::Url(other)) => {
                let (one, other) = (one.as_str(), other.as_str());
                self.read(one.len().min(other.len()))?;
                one == other
            }
            (Val::Bytes(one), Val::Bytes(other)) => {
                self.read(one.len().min(other.len()))?;
                one == other
            }
            (Val::Type(one), Val::Type(other)) | (Val::Format(one), Val::Format(other)) => {
                one == other
            }
            (Val::Ip(one), Val::Ip(other)) => one == other,
            (Val::Cidr(one, bits), Val::Cidr(other, more)) => one == other && bits == more,
            (Val::List(one), Val::List(other)) => self.lists_equal(one, other)?,
            (Val::Map(one), Val::Map(other)) => self.maps_equal(one, other)?,
            (Val::Optional(None), Val::Optional(None)) => true,
            (Val::Optional(Some(one)), Val::Optional(Some(other))) => self.equal(one, other)?,
            (Val::Struct(one), Val::Struct(other)) => self.structs_equal(one, other)?,
            _ => self.compared(one, other)? == Some(Ordering::Equal),
        })
    }

    fn lists_equal(&mut self, one: &List<'a>, other: &List<'a>) -> Result<bool, Failure> {
        if one.len() != other.len() {
            return Ok(false);
        }
        if !one.is_unordered() || !other.is_unordered() {
            for (one, other) in one.iter().zip(other.iter()) {
                if !self.equal(&one, &other)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let mut texts = HashSet::with_capacity(one.len());
        for element in one.iter() {
            texts.insert(self.canonical(&element)?);
        }
        for element in other.iter() {
            if !texts.contains(&self.canonical(&element)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn maps_equal(&mut self, one: &Object<'a>, other: &Object<'a>) -> Result<bool, Failure> {
        if one.len() != other.len() {
            return Ok(false);
        }
        for (key, value) in one.entries() {
            self.read_key(&key)?;
            let Some(same) = other.entry(&key) else {
                return Ok(false);
            };
            if !self.equal(&value, &same)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn structs_equal(&mut self, one: &Struct<'a>, other: &Struct<'a>) -> Result<bool, Failure> {
        if one.name != other.name || one.fields.len() != other.fields.len() {
            return Ok(false);
        }
        for (name, value) in &one.fields {
            match other.field(name) {
                Some(same) if self.equal(value, same)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The order of two values, `None` if they have none.
    ///
    /// # Errors
    /// When it is too much to compare.
    pub fn compared(
        &mut self,
        one: &Val<'a>,
        other: &Val<'a>,
    ) -> Result<Option<Ordering>, Failure> {
        self.work(1)?;
        self.read(one.length().min(other.length()))?;
        Ok(one.compare(other))
    }

    /// The same for values that have to have an order.
    ///
    /// # Errors
    /// When they have none.
    pub fn ordered(&mut self, one: &Val<'a>, other: &Val<'a>) -> Result<Ordering, Failure> {
        self.compared(one, other)?.ok_or(Failure::NoOverload)
    }

    /// Sorts elements by their keys, the first of each pair.
    ///
    /// # Errors
    /// When the keys have no order.
    pub fn sorted(&mut self, mut keyed: Vec<(Val<'a>, Val<'a>)>) -> Result<Vec<Val<'a>>, Failure> {
        for pair in keyed.windows(2) {
            self.ordered(&pair[0].0, &pair[1].0)?;
        }
        let mut failure = None;
        keyed.sort_by(|(one, _), (other, _)| {
            // Nothing is read any more after a failure.
            let order = if failure.is_some() { Ok(None) } else { self.compared(one, other) };
            let order = order.unwrap_or_else(|why| {
                failure = Some(why);
                None
            });
            order.unwrap_or(Ordering::Equal)
        });
        match failure {
            Some(why) => Err(why),
            None => Ok(keyed.into_iter().map(|(_, element)| element).collect()),
        }
    }

    /// Where a value is among others.
    ///
    /// # Errors
    /// When it is too much to compare.
    pub fn position(
        &mut self,
        mut values: impl Iterator<Item = (usize, Val<'a>)>,
        wanted: &Val<'a>,
    ) -> Result<Option<usize>, Failure> {
        values
            .find_map(|(at, value)| match self.equal(&value, wanted) {
                Ok(false) => None,
                Ok(true) => Some(Ok(at)),
                Err(why) => Some(Err(why)),
            })
            .transpose()
    }

    /// # Errors
    /// When it is too much to compare.
    pub fn has(&mut self, list: &List<'a>, wanted: &Val<'a>) -> Result<bool, Failure> {
        self.position(list.iter().enumerate(), wanted).map(|at| at.is_some())
    }

    /// A list with another one added, as its type merges: what a set has already is not added, and of
    /// elements with the same keys the other list's stays.
    ///
    /// # Errors
    /// When it is too much to compare.
    pub fn merged(
        &mut self,
        one: &List<'a>,
        other: &List<'a>,
        list_type: &ListType,
    ) -> Result<Vec<Val<'a>>, Failure> {
        let mut merged: Vec<Val<'a>> = one.iter().collect();
        let mut positions = HashMap::with_capacity(merged.len());
        for (at, element) in merged.iter().enumerate() {
            positions.insert(self.merge_key(element, list_type)?, at);
        }
        for element in other.iter() {
            match positions.entry(self.merge_key(&element, list_type)?) {
                Entry::Occupied(known) => merged[*known.get()] = element,
                Entry::Vacant(free) => {
                    free.insert(merged.len());
                    merged.push(element);
                }
            }
        }
        Ok(merged)
    }

    fn merge_key(&mut self, element: &Val<'a>, list_type: &ListType) -> Result<String, Failure> {
        let (ListType::Map(keys), Val::Map(map)) = (list_type, element) else {
            return self.canonical(element);
        };
        let mut text = String::new();
        for key in keys {
            if let Some(part) = map.field(key) {
                self.write_canonical(&part, &mut text)?;
            }
            text.push(',');
        }
        Ok(text)
    }

    /// A text that equal values share.
    fn canonical(&mut self, value: &Val<'a>) -> Result<String, Failure> {
        let mut text = String::new();
        self.write_canonical(value, &mut text)?;
        Ok(text)
    }

    fn write_canonical(&mut self, value: &Val<'a>, out: &mut String) -> Result<(), Failure> {
        self.work(1)?;
        match value {
            Val::Text(text) => {
                self.write(text.as_str().len())?;
                out.push_str(&go::quoted(text.as_str()));
            }
            Val::List(list) => {
                out.push('[');
                for element in list.iter() {
                    self.write_canonical(&element, out)?;
                    out.push(',');
                }
                out.push(']');
            }
            Val::Map(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (key, value) in map.entries() {
                    self.work(ELEMENT_WORK)?;
                    entries.push((self.canonical(&key)?, value));
                }
                entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                out.push('{');
                for (key, value) in entries {
                    out.push_str(&key);
                    out.push(':');
                    self.write_canonical(&value, out)?;
                    out.push(',');
                }
                out.push('}');
            }
            Val::Optional(None) => out.push_str("none"),
            Val::Optional(Some(value)) => {
                out.push('?');
                self.write_canonical(value, out)?;
            }
            Val::Struct(made) => {
                out.push_str(made.name);
                out.push('{');
                for (name, value) in &made.fields {
                    self.write(name.len())?;
                    out.push_str(name);
                    out.push(':');
                    self.write_canonical(value, out)?;
                    out.push(',');
                }
                out.push('}');
            }
            other => {
                self.write(other.length())?;
                match other.as_double() {
                    Some(number) => out.push_str(&go::float(number)),
                    None => write!(out, "{other:?}").map_err(|_| Failure::Limit)?,
                }
            }
        }
        Ok(())
    }

    /// Writes a value as `%s` of `format` prints it.
    ///
    /// # Errors
    /// [`Failure::NoOverload`] if it cannot be printed.
    pub fn write_shown(&mut self, value: &Val<'a>, out: &mut String) -> Result<(), Failure> {
        self.work(1)?;
        match value {
            Val::Text(text) => {
                self.write(text.as_str().len())?;
                out.push_str(text.as_str());
            }
            Val::List(list) => {
                out.push('[');
                for (index, element) in list.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    self.write_shown(&element, out)?;
                }
                out.push(']');
            }
            Val::Map(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (key, value) in map.entries() {
                    self.work(ELEMENT_WORK)?;
                    let mut shown = String::new();
                    self.write_shown(&key, &mut shown)?;
                    entries.push((shown, value));
                }
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    out.push_str(key);
                    out.push_str(": ");
                    self.write_shown(value, out)?;
                }
                out.push('}');
            }
            other => out.push_str(&printed(other).ok_or(Failure::NoOverload)?),
        }
        Ok(())
    }
}
