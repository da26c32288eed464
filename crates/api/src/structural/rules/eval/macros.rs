//! Macros with variables of their own that the parser does not expand.

use std::sync::Arc;

use cel::common::ast::IdedExpr;

use super::{Evaluation, Failure, Outcome, fail, identifier};
use crate::structural::go;
use crate::structural::rules::value::{Entries, List, Object, Val};

impl<'a> Evaluation<'a> {
    /// Evaluates `body` with further variables.
    pub(super) fn with(
        &mut self,
        variables: Vec<(&'a str, Val<'a>)>,
        body: &'a IdedExpr,
    ) -> Outcome<'a> {
        let base = self.variables.len();
        self.variables.extend(variables);
        let outcome = self.eval(body);
        self.variables.truncate(base);
        outcome
    }

    /// `list.all(index, value, ...)`, `map.exists(key, value, ...)`
    pub(super) fn two_variables(
        &mut self,
        name: &str,
        target: Option<&'a IdedExpr>,
        key: &'a IdedExpr,
        value: &'a IdedExpr,
        body: &'a IdedExpr,
    ) -> Outcome<'a> {
        let (Some(target), Some(key), Some(value)) = (target, identifier(key), identifier(value))
        else {
            return Err(Failure::NoOverload);
        };
        let entries = self.entries(target)?;
        let (mut failure, mut count) = (None, 0);
        for (one, other) in entries {
            match self.with(vec![(key, one), (value, other)], body) {
                Ok(Val::Bool(false)) if name == "all" => return Ok(Val::Bool(false)),
                Ok(Val::Bool(true)) if name == "exists" => return Ok(Val::Bool(true)),
                Ok(Val::Bool(flag)) => count += u32::from(flag),
                Ok(_) => failure = Some(Failure::NoOverload),
                Err(Failure::Limit) => return Err(Failure::Limit),
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        match (failure, name) {
            (Some(failure), _) => Err(failure),
            (None, "all") => Ok(Val::Bool(true)),
            (None, "exists") => Ok(Val::Bool(false)),
            (None, _) => Ok(Val::Bool(count == 1)),
        }
    }

    /// The elements of a list with their indexes, or the entries of a map.
    fn entries(&mut self, target: &'a IdedExpr) -> Result<Vec<(Val<'a>, Val<'a>)>, Failure> {
        let target = self.eval(target)?;
        let length = match &target {
            Val::List(list) => list.len(),
            Val::Map(map) => map.len(),
            _ => return Err(Failure::NoOverload),
        };
        self.charge(length as u64 / 10)?;
        let mut entries = Vec::with_capacity(length);
        match &target {
            Val::List(list) => {
                self.read_list(list)?;
                entries.extend((0..).map(Val::Int).zip(list.iter()));
            }
            Val::Map(map) => {
                for (key, value) in map.entries() {
                    if let Val::Bytes(bytes) = &value {
                        self.write(bytes.len())?;
                    }
                    entries.push((key, value));
                }
            }
            _ => {}
        }
        Ok(entries)
    }

    /// `list.transformList(index, value, filter, ...)`, `map.transformMap(key, value, ...)`. `rest`: what
    /// is made of each entry, after the filter if there is one.
    pub(super) fn transform(
        &mut self,
        name: &str,
        target: Option<&'a IdedExpr>,
        (key, value): (&'a IdedExpr, &'a IdedExpr),
        rest: &'a [IdedExpr],
    ) -> Outcome<'a> {
        let (Some(target), Some(key), Some(value), [filter @ .., body]) =
            (target, identifier(key), identifier(value), rest)
        else {
            return Err(Failure::NoOverload);
        };
        let (mut list, mut map) = (Vec::new(), Entries::default());
        for (one, other) in self.entries(target)? {
            let variables = vec![(key, one.clone()), (value, other)];
            if let [filter] = filter {
                match self.with(variables.clone(), filter)? {
                    Val::Bool(true) => {}
                    Val::Bool(false) => continue,
                    _ => return Err(Failure::NoOverload),
                }
            }
            let made = self.with(variables, body)?;
            match (name, made) {
                ("transformList", made) => list.push(made),
                ("transformMap", made) => map.insert(one, made)?,
                (_, Val::Map(entries)) => {
                    for (key, value) in entries.entries() {
                        self.charge(1)?;
                        self.read_key(&key)?;
                        if map.get(&key).is_some() {
                            let shown = match &key {
                                Val::Text(text) => text.as_str().to_owned(),
                                Val::Int(number) => number.to_string(),
                                Val::Uint(number) => number.to_string(),
                                Val::Bool(flag) => flag.to_string(),
                                other => other.as_double().map(go::float).unwrap_or_default(),
                            };
                            return fail(format!("insert failed: key {shown} already exists"));
                        }
                        map.insert(key, value)?;
                    }
                }
                _ => return Err(Failure::NoOverload),
            }
        }
        Ok(match name {
            "transformList" => Val::list(list),
            _ => Val::Map(Object::Owned(Arc::new(map))),
        })
    }

    /// `list.sortBy(element, key)`
    pub(super) fn sort_by(
        &mut self,
        target: Option<&'a IdedExpr>,
        variable: &'a IdedExpr,
        key: &'a IdedExpr,
    ) -> Outcome<'a> {
        let (Some(target), Some(variable)) = (target, identifier(variable)) else {
            return Err(Failure::NoOverload);
        };
        let Val::List(list) = self.eval(target)? else {
            return Err(Failure::NoOverload);
        };
        self.read_list(&list)?;
        let mut keyed = Vec::with_capacity(list.len());
        for element in List::iter(&list) {
            keyed.push((self.with(vec![(variable, element.clone())], key)?, element));
        }
        self.charge(keyed.len() as u64)?;
        self.sorted(keyed).map(Val::list)
    }
}
