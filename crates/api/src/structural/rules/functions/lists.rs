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
        if let Err(why) = self.charge(list.len() as u64) {
            return Some(Err(why));
        }
        Some(Ok(match (name, args) {
            ("isSorted", []) => {
                let ordered = list
                    .iter()
                    .zip(list.iter().skip(1))
                    .all(|(one, other)| one.compare(&other).is_some_and(Ordering::is_le));
                Val::Bool(ordered)
            }
            ("includes", [value]) => Val::Bool(list.iter().any(|element| element.equals(value))),
            ("first", []) => Val::Optional(list.get(0).map(Arc::new)),
            ("last", []) => {
                let last = list.len().checked_sub(1).and_then(|at| list.get(at));
                Val::Optional(last.map(Arc::new))
            }
            ("unwrapOpt", []) => return Some(unwrapped(list)),
            ("sum", []) => return Some(self.sum(list)),
            ("min" | "max", []) => return Some(self.extreme(list, name == "min")),
            ("indexOf", [value]) => Val::Int(
                list.iter().position(|element| element.equals(value)).map_or(-1, |at| at as i64),
            ),
            ("lastIndexOf", [value]) => {
                let elements: Vec<_> = list.iter().collect();
                Val::Int(
                    elements
                        .iter()
                        .rposition(|element| element.equals(value))
                        .map_or(-1, |at| at as i64),
                )
            }
            ("join", rest) => {
                let separator = match rest {
                    [] => "",
                    [Val::Text(separator)] => separator.as_str(),
                    _ => return None,
                };
                let texts: Option<Vec<String>> = list
                    .iter()
                    .map(|element| match element {
                        Val::Text(text) => Some(text.as_str().to_owned()),
                        _ => None,
                    })
                    .collect();
                let joined = texts?.join(separator);
                if let Err(why) = self.charge(joined.len() as u64 / 10) {
                    return Some(Err(why));
                }
                Val::text(joined)
            }
            ("reverse", []) => {
                let mut elements: Vec<_> = list.iter().collect();
                elements.reverse();
                Val::list(elements)
            }
            ("slice", [Val::Int(from), Val::Int(until)]) => {
                let range = usize::try_from(*from).ok().zip(usize::try_from(*until).ok());
                match range.filter(|(from, until)| from <= until && *until <= list.len()) {
                    Some((from, until)) => {
                        Val::list(list.iter().skip(from).take(until - from).collect())
                    }
                    None => {
                        return Some(fail(format!(
                            "cannot slice({from}, {until}), list has length {}",
                            list.len()
                        )));
                    }
                }
            }
            ("flatten", []) => return Some(self.flattened(list, 1)),
            ("flatten", [Val::Int(depth)]) => match u64::try_from(*depth) {
                Ok(depth) => return Some(self.flattened(list, depth)),
                Err(_) => return Some(fail("level must be non-negative")),
            },
            ("distinct", []) => return Some(self.distinct(list)),
            ("sort", []) => {
                let mut elements: Vec<_> = list.iter().collect();
                if elements.windows(2).any(|pair| pair[0].compare(&pair[1]).is_none()) {
                    return Some(Err(Failure::NoOverload));
                }
                elements.sort_by(|one, other| one.compare(other).unwrap_or(Ordering::Equal));
                Val::list(elements)
            }
            _ => return None,
        }))
    }

    fn distinct(&mut self, list: &List<'a>) -> Outcome<'a> {
        self.charge((list.len() * list.len() / 2) as u64)?;
        let mut kept: Vec<Val<'a>> = Vec::new();
        for element in list.iter() {
            if !kept.iter().any(|known| known.equals(&element)) {
                kept.push(element);
            }
        }
        Ok(Val::list(kept))
    }

    /// The elements with those of the lists among them, `depth` levels down.
    fn flattened(&mut self, list: &List<'a>, depth: u64) -> Outcome<'a> {
        let (mut elements, mut depth): (Vec<Val<'a>>, u64) = (list.iter().collect(), depth);
        while depth > 0 && elements.iter().any(|element| matches!(element, Val::List(_))) {
            let flat = elements.into_iter().flat_map(|element| match element {
                Val::List(inner) => inner.iter().collect(),
                other => vec![other],
            });
            elements = flat.collect();
            self.charge(elements.len() as u64)?;
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

    pub(super) fn extreme(&mut self, list: &List<'a>, least: bool) -> Outcome<'a> {
        let wanted = if least { Ordering::Less } else { Ordering::Greater };
        let mut elements = list.iter();
        let Some(mut best) = elements.next() else {
            let name = if least { "min" } else { "max" };
            return fail(format!("{name} called on empty list"));
        };
        for element in elements {
            if element.compare(&best).ok_or(Failure::NoOverload)? == wanted {
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
