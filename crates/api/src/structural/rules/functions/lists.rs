//! Functions of lists.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::structural::rules::eval::{Evaluation, Failure, Outcome, fail};
use crate::structural::rules::value::{List, Val};

impl<'a> Evaluation<'a> {
    pub(super) fn lists(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let (Val::List(list), args) = values.split_first()? else {
            return None;
        };
        self.list(name, list, args).transpose()
    }

    /// A function of a list; `None` if there is none of that name for such values.
    fn list(
        &mut self,
        name: &str,
        list: &List<'a>,
        args: &[Val<'a>],
    ) -> Result<Option<Val<'a>>, Failure> {
        self.charge(list.len() as u64)?;
        self.read_list(list)?;
        let index = |at: Option<usize>| Val::Int(at.map_or(-1, |at| at as i64));
        let reversed = || (0..list.len()).rev().filter_map(|at| Some((at, list.get(at)?)));
        Ok(Some(match (name, args) {
            ("isSorted", []) => Val::Bool(self.is_sorted(list)?),
            ("includes", [value]) => Val::Bool(self.has(list, value)?),
            ("first", []) => Val::Optional(list.get(0).map(Arc::new)),
            ("last", []) => Val::Optional(reversed().next().map(|(_, last)| Arc::new(last))),
            ("unwrapOpt", []) => unwrapped(list)?,
            ("sum", []) => self.sum(list)?,
            ("min" | "max", []) => self.extreme(list, name == "min")?,
            ("indexOf", [value]) => index(self.position(list.iter().enumerate(), value)?),
            ("lastIndexOf", [value]) => index(self.position(reversed(), value)?),
            ("join", []) => self.joined(list, "")?,
            ("join", [Val::Text(separator)]) => self.joined(list, separator.as_str())?,
            ("reverse", []) => Val::list(reversed().map(|(_, element)| element).collect()),
            ("slice", [Val::Int(from), Val::Int(until)]) => {
                let range = usize::try_from(*from).ok().zip(usize::try_from(*until).ok());
                match range.filter(|(from, until)| from <= until && *until <= list.len()) {
                    Some((from, until)) => {
                        Val::list(list.iter().skip(from).take(until - from).collect())
                    }
                    None => {
                        return fail(format!(
                            "cannot slice({from}, {until}), list has length {}",
                            list.len()
                        ));
                    }
                }
            }
            ("flatten", []) => self.flattened(list, 1)?,
            ("flatten", [Val::Int(depth)]) => match u64::try_from(*depth) {
                Ok(depth) => self.flattened(list, depth)?,
                Err(_) => return fail("level must be non-negative"),
            },
            ("distinct", []) => self.distinct(list)?,
            ("sort", []) => {
                let keyed = list.iter().map(|element| (element.clone(), element)).collect();
                Val::list(self.sorted(keyed)?)
            }
            _ => return Ok(None),
        }))
    }

    fn is_sorted(&mut self, list: &List<'a>) -> Result<bool, Failure> {
        for (one, other) in list.iter().zip(list.iter().skip(1)) {
            if !self.compared(&one, &other)?.is_some_and(Ordering::is_le) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn joined(&mut self, list: &List<'a>, separator: &str) -> Outcome<'a> {
        let mut length = 0_usize;
        for element in list.iter() {
            let Val::Text(text) = element else {
                return Err(Failure::NoOverload);
            };
            length = length.saturating_add(text.as_str().len() + separator.len());
        }
        length = length.saturating_sub(separator.len());
        self.charge(length as u64 / 10)?;
        let mut joined = String::with_capacity(length);
        for (index, element) in list.iter().enumerate() {
            joined.push_str(if index == 0 { "" } else { separator });
            if let Val::Text(text) = &element {
                joined.push_str(text.as_str());
            }
        }
        Ok(Val::text(joined))
    }

    fn distinct(&mut self, list: &List<'a>) -> Outcome<'a> {
        self.charge((list.len() as u64).saturating_mul(list.len() as u64) / 2)?;
        let mut kept: Vec<Val<'a>> = Vec::new();
        for element in list.iter() {
            if self.position(kept.iter().cloned().enumerate(), &element)?.is_none() {
                kept.push(element);
            }
        }
        Ok(Val::list(kept))
    }

    /// The elements with those of the lists among them, `depth` levels down.
    fn flattened(&mut self, list: &List<'a>, depth: u64) -> Outcome<'a> {
        let (mut elements, mut depth): (Vec<Val<'a>>, u64) = (list.iter().collect(), depth);
        while depth > 0 && elements.iter().any(|element| matches!(element, Val::List(_))) {
            let mut flat = Vec::new();
            for element in elements {
                match element {
                    Val::List(inner) => {
                        self.charge(inner.len() as u64)?;
                        self.read_list(&inner)?;
                        flat.extend(inner.iter());
                    }
                    other => {
                        self.charge(1)?;
                        flat.push(other);
                    }
                }
            }
            elements = flat;
            depth -= 1;
        }
        Ok(Val::list(elements))
    }

    fn sum(&mut self, list: &List<'a>) -> Outcome<'a> {
        let mut elements = list.iter();
        let Some(mut sum) = elements.next() else {
            return Ok(Val::Int(0));
        };
        for element in elements {
            sum = match (&sum, &element) {
                (Val::Int(one), Val::Int(other)) => Val::Int(
                    one.checked_add(*other)
                        .ok_or_else(|| Failure::Other("integer overflow".to_owned()))?,
                ),
                (Val::Uint(one), Val::Uint(other)) => Val::Uint(
                    one.checked_add(*other)
                        .ok_or_else(|| Failure::Other("integer overflow".to_owned()))?,
                ),
                (Val::Double(one), Val::Double(other)) => Val::Double(one + other),
                (Val::Duration(one), Val::Duration(other)) => Val::Duration(
                    one.checked_add(*other)
                        .ok_or_else(|| Failure::Other("integer overflow".to_owned()))?,
                ),
                _ => return Err(Failure::NoOverload),
            };
        }
        Ok(sum)
    }

    fn extreme(&mut self, list: &List<'a>, least: bool) -> Outcome<'a> {
        let wanted = if least { Ordering::Less } else { Ordering::Greater };
        let mut elements = list.iter();
        let Some(mut best) = elements.next() else {
            let name = if least { "min" } else { "max" };
            return fail(format!("{name} called on empty list"));
        };
        for element in elements {
            if self.ordered(&element, &best)? == wanted {
                best = element;
            }
        }
        Ok(best)
    }
}

/// What is in the optionals of a list that are not empty.
pub(super) fn unwrapped<'a>(list: &List<'a>) -> Outcome<'a> {
    let mut values = Vec::with_capacity(list.len());
    for element in list.iter() {
        match element {
            Val::Optional(value) => values.extend(value.map(|value| (*value).clone())),
            _ => return Err(Failure::NoOverload),
        }
    }
    Ok(Val::list(values))
}
