//! Fields under validation: where they are, and where what is wrong with them is noted.
//!
//! A path is put into words when something is wrong there, and not before: valid objects cost no
//! text.

use std::cell::RefCell;
use std::fmt;

use api::status::FieldError;
use serde::Serialize;

/// A field, by its way from the object, and the errors found so far in all of the object.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    errors: &'a RefCell<Vec<FieldError>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// The whole object.
    Root,
    /// `.name`; it may have dots.
    Name(&'a str),
    /// `[index]`
    Index(usize),
    /// `[key]`
    Key(&'a str),
    /// `.name[index]`
    Item(&'a str, usize),
    /// `[index].name`
    Part(usize, &'a str),
    /// `.name[key]`
    Entry(&'a str, &'a str),
}

impl<'a> At<'a> {
    /// What `judge` finds wrong with an object.
    pub fn object(judge: impl FnOnce(&At<'_>)) -> Vec<FieldError> {
        let errors = RefCell::default();
        judge(&At { parent: None, step: Step::Root, errors: &errors });
        errors.into_inner()
    }

    /// What `judge` warns about.
    pub fn warnings(judge: impl FnOnce(&At<'_>)) -> Vec<String> {
        let found = Self::object(judge).into_iter();
        found.map(|found| format!("{}: {}", found.field, found.detail)).collect()
    }

    /// Notes a warning.
    pub fn warn(&self, problem: impl fmt::Display) {
        self.error(FieldError::forbidden(self.to_string(), problem.to_string()));
    }

    /// Adds what a function finds that is given a path and a list.
    pub fn found(&self, judge: impl FnOnce(&str, &mut Vec<FieldError>)) {
        let mut errors = Vec::new();
        judge(&self.to_string(), &mut errors);
        self.errors(errors);
    }

    fn step<'b>(&'b self, step: Step<'b>) -> At<'b> {
        At { parent: Some(self), step, errors: self.errors }
    }

    /// `self.name`; the object itself for an empty name.
    pub fn child<'b>(&'b self, name: &'b str) -> At<'b> {
        if name.is_empty() { *self } else { self.step(Step::Name(name)) }
    }

    /// `self[index]`
    pub fn index(&self, index: usize) -> At<'_> {
        self.step(Step::Index(index))
    }

    /// `self[key]`
    pub fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        self.step(Step::Key(key))
    }

    /// `self.name[index]`
    pub fn item<'b>(&'b self, name: &'b str, index: usize) -> At<'b> {
        self.step(Step::Item(name, index))
    }

    /// `self[index].name`
    pub fn part<'b>(&'b self, index: usize, name: &'b str) -> At<'b> {
        self.step(Step::Part(index, name))
    }

    /// `self.name[key]`
    pub fn entry<'b>(&'b self, name: &'b str, key: &'b str) -> At<'b> {
        self.step(Step::Entry(name, key))
    }

    /// How many errors there are so far.
    pub fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    /// Notes an error.
    pub fn error(&self, error: FieldError) {
        self.errors.borrow_mut().push(error);
    }

    /// Notes errors that name their fields.
    pub fn errors(&self, errors: Vec<FieldError>) {
        self.errors.borrow_mut().extend(errors);
    }

    pub fn required(&self, detail: impl Into<String>) {
        self.error(FieldError::required(self.to_string(), detail));
    }

    pub fn invalid(&self, value: impl Serialize, detail: impl Into<String>) {
        self.error(FieldError::invalid(self.to_string(), value, detail));
    }

    /// About a whole object, whose value is not shown.
    pub fn invalid_whole(&self, detail: impl Into<String>) {
        let error = FieldError::invalid(self.to_string(), "", detail);
        self.error(FieldError { value: String::new(), ..error });
    }

    pub fn forbidden(&self, detail: impl Into<String>) {
        self.error(FieldError::forbidden(self.to_string(), detail));
    }

    /// `supported` is printed in the order given.
    pub fn not_supported(&self, value: impl Serialize, supported: &[&str]) {
        self.error(FieldError::not_supported(self.to_string(), value, supported));
    }

    pub fn duplicate(&self, value: impl Serialize) {
        self.error(FieldError::duplicate(self.to_string(), value));
    }

    pub fn not_found(&self, value: impl Serialize) {
        self.error(FieldError::not_found(self.to_string(), value));
    }

    pub fn too_long(&self, max_bytes: usize) {
        self.error(FieldError::too_long(self.to_string(), max_bytes));
    }

    pub fn too_many(&self, items: usize, max: usize) {
        self.error(FieldError::too_many(self.to_string(), items, max));
    }

    /// Refuses more bytes than `max`.
    pub fn max_bytes(&self, bytes: usize, max: usize) {
        if bytes > max {
            self.too_long(max);
        }
    }

    /// Refuses more items than `max`; whether there are not.
    pub fn max_items(&self, items: usize, max: usize) -> bool {
        if items > max {
            self.too_many(items, max);
        }
        items <= max
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = match self.parent {
            Some(parent) => {
                parent.fmt(f)?;
                if matches!(parent.step, Step::Root) { "" } else { "." }
            }
            None => "",
        };
        match self.step {
            Step::Root => Ok(()),
            Step::Name(name) => write!(f, "{dot}{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
            Step::Item(name, index) => write!(f, "{dot}{name}[{index}]"),
            Step::Part(index, name) => write!(f, "[{index}].{name}"),
            Step::Entry(name, key) => write!(f, "{dot}{name}[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::At;

    #[test]
    fn a_path_is_put_into_words_where_something_is_wrong() {
        let errors = At::object(|at| {
            at.child("").required("");
            let spec = at.child("spec");
            let container = spec.item("containers", 1);
            container.child("a.b").forbidden("no");
            container.entry("limits", "cpu").required("");
            let ports = spec.child("ports");
            ports.index(0).child("name").required("");
            ports.key("x").required("");
        });
        let paths: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let expected = ["", "spec.containers[1].a.b", "spec.containers[1].limits[cpu]"];
        assert_eq!(paths[..3], expected);
        assert_eq!(paths[3..], ["spec.ports[0].name", "spec.ports[x]"]);
    }
}
