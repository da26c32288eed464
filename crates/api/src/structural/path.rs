//! The path of a value within an object, rendered only when there is something to report.

use std::fmt::{self, Write};

/// A path as a list on the stack, innermost step first.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    /// A field of a schema: `spec`, `spec.name`.
    Field(&'a str),
    /// A key of a map, in brackets: `labels[app]`.
    Key(&'a str),
    Index(usize),
    /// An element of a list with keys, as it is: `[name="main"]`.
    Element(&'a str),
}

impl<'a> Path<'a> {
    pub const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    pub fn key(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(name) }
    }

    pub fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    pub fn element(&'a self, step: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Element(step) }
    }

    pub fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    /// The path below `prefix`, as errors name a field; Go prints `<nil>` for no path at all.
    pub fn below(&self, prefix: &str) -> String {
        match (prefix.is_empty(), self.is_root()) {
            (true, true) => "<nil>".to_owned(),
            (true, false) => self.to_string(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}.{self}"),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = match self.parent {
            None => return Ok(()),
            Some(parent) => {
                parent.fmt(f)?;
                parent.is_root()
            }
        };
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if first => f.write_str(name),
            Step::Field(name) => {
                f.write_char('.')?;
                f.write_str(name)
            }
            Step::Key(name) => write!(f, "[{name}]"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Element(step) => f.write_str(step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_upstream_does() {
        let root = Path::ROOT;
        let spec = root.field("spec");
        let list = spec.field("list");
        let element = list.index(3);
        let field = element.field("name");
        let key = field.key("a.b");
        assert_eq!(key.to_string(), "spec.list[3].name[a.b]");
        assert_eq!(root.below(""), "<nil>");
        assert_eq!(spec.below("status"), "status.spec");
        assert_eq!(root.below("status"), "status");
    }
}
