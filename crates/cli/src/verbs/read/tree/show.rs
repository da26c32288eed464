//! Trees as text and as values. Pure.

use std::collections::BTreeSet;

use console::style;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::gather::Gathered;
use super::graph::{Branch, Entry, Relation, Shown};
use super::state::{Container, State};
use crate::output::table::TextTable;

const HEADERS: [&str; 4] = ["OBJECT", "READY", "STATUS", "AGE"];
const NAMESPACE: &str = "NAMESPACE";

/// What a line draws attention to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    None,
    /// The object that was named.
    Named,
    /// Fewer are ready than wanted.
    Short,
    /// Something is missing, or a cycle.
    Wrong,
}

/// A line: its cells, and its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    namespace: String,
    cells: [String; 4],
    mark: Mark,
}

/// The lines of the trees around the object `named`.
pub fn lines(gathered: &Gathered, trees: &[Branch], named: &str, now: Timestamp) -> Vec<Line> {
    let mut text = Text { gathered, named, now, lines: Vec::new() };
    for tree in trees {
        text.branch(tree, "", "");
    }
    text.lines
}

/// Aligned lines; objects of several namespaces are shown with theirs.
pub fn render(lines: &[Line], headers: bool) -> String {
    let namespaces: BTreeSet<&str> =
        lines.iter().map(|line| &*line.namespace).filter(|name| !name.is_empty()).collect();
    let several = namespaces.len() > 1;
    let cells = |namespace: &str, cells: [&str; 4]| -> Vec<String> {
        let namespace = several.then(|| namespace.to_owned());
        namespace.into_iter().chain(cells.map(str::to_owned)).collect()
    };
    let row = |line: &Line| cells(&line.namespace, line.cells.each_ref().map(String::as_str));
    let table =
        TextTable { headers: cells(NAMESPACE, HEADERS), rows: lines.iter().map(row).collect() };
    let text = table.render(headers, &mut Vec::new());
    let marks = headers.then_some(Mark::None).into_iter();
    let marks = marks.chain(lines.iter().map(|line| line.mark));
    text.lines().zip(marks).map(|(line, mark)| format!("{}\n", marked(line, mark))).collect()
}

fn marked(line: &str, mark: Mark) -> String {
    let line = line.trim_end();
    match mark {
        Mark::None => line.to_owned(),
        Mark::Named => style(line).bold().to_string(),
        Mark::Short => style(line).yellow().to_string(),
        Mark::Wrong => style(line).red().to_string(),
    }
}

struct Text<'a> {
    gathered: &'a Gathered,
    named: &'a str,
    now: Timestamp,
    lines: Vec<Line>,
}

impl Text<'_> {
    fn branch(&mut self, branch: &Branch, first: &str, rest: &str) {
        let Some(entry) = self.gathered.graph.get(&branch.uid) else {
            return;
        };
        let nothing = State::default();
        let state = self.gathered.states.get(&branch.uid).unwrap_or(&nothing);
        let mut notes: Vec<String> = Vec::new();
        let wrong = entry.missing.is_some() || branch.shown == Shown::Cycle;
        if let Some(why) = &entry.missing {
            notes.push(format!("missing: {why}"));
        } else if branch.shown != Shown::Again {
            notes.extend(Some(state.status.clone()).filter(|status| !status.is_empty()));
        }
        notes.extend(remark(branch.shown).map(str::to_owned));
        let mut owner_missing = false;
        for owner in &branch.other_owners {
            let missing =
                self.gathered.graph.get(&owner.uid).is_none_or(|other| other.missing.is_some());
            owner_missing |= missing;
            let which = if missing { " (missing)" } else { "" };
            let also = if branch.relation == Some(Relation::Owner) { "also " } else { "" };
            notes.push(format!("{also}owned by {}{which}", owner.path()));
        }
        let mark = match (wrong || owner_missing, branch.uid == self.named) {
            (true, _) => Mark::Wrong,
            (false, true) => Mark::Named,
            (false, false) if state.is_short() => Mark::Short,
            (false, false) => Mark::None,
        };
        let age = entry.created.filter(|_| branch.shown == Shown::Whole);
        let cells = [
            format!("{first}{}", entry.path()),
            if branch.shown == Shown::Whole { state.ready.clone() } else { String::new() },
            notes.join("; "),
            age.map(|time| self.age(time)).unwrap_or_default(),
        ];
        self.lines.push(Line { namespace: entry.namespace.clone(), cells, mark });
        self.below(branch, entry, rest);
    }

    fn below(&mut self, branch: &Branch, entry: &Entry, rest: &str) {
        let containers = self.gathered.containers.get(&branch.uid);
        let containers: &[Container] = match branch.shown {
            Shown::Whole => containers.map(Vec::as_slice).unwrap_or_default(),
            _ => &[],
        };
        let count = containers.len() + branch.below.len();
        let shape =
            |index: usize| if index + 1 == count { ("└─", "  ") } else { ("├─", "│ ") };
        for (index, container) in containers.iter().enumerate() {
            let state = &container.state;
            let cells = [
                format!("{rest}{}{}/{}", shape(index).0, container.kind, container.name),
                state.ready.clone(),
                state.status.clone(),
                container.started.map(|time| self.age(time)).unwrap_or_default(),
            ];
            let mark = if state.is_short() { Mark::Short } else { Mark::None };
            self.lines.push(Line { namespace: entry.namespace.clone(), cells, mark });
        }
        for (index, below) in branch.below.iter().enumerate() {
            let (first, then) = shape(containers.len() + index);
            self.branch(below, &format!("{rest}{first}"), &format!("{rest}{then}"));
        }
    }

    fn age(&self, time: Timestamp) -> String {
        api::duration::human(self.now.as_second() - time.as_second())
    }
}

fn remark(shown: Shown) -> Option<&'static str> {
    match shown {
        Shown::Whole => None,
        Shown::Again => Some("(shown above)"),
        Shown::Cycle => Some("(cycle: it is above itself)"),
    }
}

/// A tree as a value, for `-o json` and the like.
pub fn value(gathered: &Gathered, branch: &Branch) -> Value {
    let nothing = Entry::default();
    let entry = gathered.graph.get(&branch.uid).unwrap_or(&nothing);
    let mut value = json!({
        "apiVersion": entry.api_version, "kind": entry.kind, "name": entry.name, "uid": entry.uid,
    });
    let mut set = |key: &str, of: Value| {
        let empty = of.is_null() || of == "" || of.as_array().is_some_and(Vec::is_empty);
        if !empty {
            value[key] = of;
        }
    };
    set("namespace", json!(entry.namespace));
    set("created", json!(entry.created));
    set("relation", json!(branch.relation.map(|relation| relation.name())));
    set("missing", json!(entry.missing));
    set("note", json!(remark(branch.shown)));
    let others: Vec<String> = branch.other_owners.iter().map(|owner| owner.path()).collect();
    set("otherOwners", json!(others));
    if let Some(state) = gathered.states.get(&branch.uid) {
        set("ready", json!(state.ready));
        set("status", json!(state.status));
    }
    if branch.shown == Shown::Whole {
        let container = |container: &Container| {
            json!({
                "kind": container.kind, "name": container.name,
                "ready": container.state.ready, "status": container.state.status,
            })
        };
        let containers = gathered.containers.get(&branch.uid).into_iter().flatten();
        set("containers", Value::Array(containers.map(container).collect()));
        let below = branch.below.iter().map(|below| self::value(gathered, below)).collect();
        set("dependents", Value::Array(below));
    }
    value
}
