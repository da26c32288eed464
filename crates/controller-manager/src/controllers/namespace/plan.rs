//! The conditions of a namespace that is being deleted: a pure function.

use std::collections::BTreeMap;

use api::{KindRef, KindRow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::garbage_collector::graph::Node;

/// The finalizer in a namespace's spec that blocks its deletion until it is empty.
pub const FINALIZER: &str = "kubernetes";

/// What other servers have of a namespace.
#[derive(Debug, Default)]
pub struct Others {
    /// How many objects of each resource remain.
    pub remaining: Vec<(String, usize)>,
    /// The group versions whose servers cannot be asked.
    pub failing: Vec<String>,
}

impl Others {
    pub fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.failing.is_empty()
    }

    /// As upstream reports what discovery has not found.
    fn failure(&self) -> Option<String> {
        let stale = |name: &String| format!("{name}: stale GroupVersion discovery: {name}");
        let all: Vec<_> = self.failing.iter().map(stale).collect();
        (!all.is_empty()).then(|| {
            format!(
                "Discovery failed for some groups, {} failing: unable to retrieve the complete list \
                 of server APIs: {}",
                all.len(),
                all.join(", ")
            )
        })
    }
}

/// The objects that remain, by kind.
#[derive(Debug, Default)]
pub struct Remaining(pub Vec<(KindRef, Vec<Node>)>);

impl Remaining {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn content(&self, others: &Others) -> String {
        let own = self.0.iter().map(|(row, nodes)| (resource(row), nodes.len()));
        let all = own.chain(others.remaining.iter().cloned());
        let texts =
            all.map(|(resource, count)| format!("{resource}. has {count} resource instances"));
        texts.collect::<Vec<_>>().join(", ")
    }

    fn finalizers(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        let nodes = self.0.iter().flat_map(|(_, nodes)| nodes);
        for finalizer in nodes.flat_map(|node| &node.finalizers) {
            *counts.entry(finalizer.as_str()).or_insert(0) += 1;
        }
        counts
    }
}

fn resource(row: &KindRow) -> String {
    if row.group.is_empty() {
        row.plural.to_string()
    } else {
        format!("{}.{}", row.plural, row.group)
    }
}

/// The status of a namespace that is being deleted.
pub fn conditions(
    old: Option<&NamespaceStatus>,
    remaining: &Remaining,
    others: &Others,
    now: Timestamp,
) -> NamespaceStatus {
    let mut status = old.cloned().unwrap_or_default();
    status.phase = Some("Terminating".into());
    let mut set = |type_: &str, holds: bool, reason: &str, message: String| {
        let value = if holds { "True" } else { "False" };
        let conditions = status.conditions.get_or_insert_default();
        let before = conditions.iter().find(|condition| condition.type_ == type_);
        let since = before
            .filter(|before| before.status == value)
            .and_then(|before| before.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: type_.into(),
            status: value.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(present) => *present = condition,
            None => conditions.push(condition),
        }
    };
    let text = String::from;
    let discovery = "NamespaceDeletionDiscoveryFailure";
    match others.failure() {
        Some(failure) => set(discovery, true, "DiscoveryFailed", failure),
        None => {
            let message = text("All resources successfully discovered");
            set(discovery, false, "ResourcesDiscovered", message);
        }
    }
    set(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        "ParsedGroupVersions",
        text("All legacy kube types successfully parsed"),
    );
    set(
        "NamespaceDeletionContentFailure",
        false,
        "ContentDeleted",
        text("All content successfully deleted, may be waiting on finalization"),
    );
    if remaining.is_empty() && others.remaining.is_empty() {
        let message = text("All content successfully removed");
        set("NamespaceContentRemaining", false, "ContentRemoved", message);
    } else {
        let message = format!("Some resources are remaining: {}", remaining.content(others));
        set("NamespaceContentRemaining", true, "SomeResourcesRemain", message);
    }
    let finalizers = remaining.finalizers();
    if finalizers.is_empty() {
        let message = text("All content-preserving finalizers finished");
        set("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", message);
    } else {
        let count =
            |(name, count): (&&str, &usize)| format!("{name} in {count} resource instances");
        let list: Vec<_> = finalizers.iter().map(count).collect();
        let message =
            format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
        set("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::cache::Key;
    use crate::machinery::testing::at;
    use api::Kind;
    use k8s_openapi::api::apps::v1::Deployment;

    fn value(status: &NamespaceStatus, type_: &str) -> (String, String) {
        let conditions = status.conditions.as_ref().unwrap();
        let found = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        (found.status.clone(), found.message.clone().unwrap())
    }

    #[test]
    fn remaining_objects_are_reported() {
        let node = Node {
            row: Deployment::ROW.into(),
            key: Key::new("ns", "web").into(),
            uid: "u".into(),
            owners: vec![],
            finalizers: vec!["example.com/hold".into()],
            deleting: true,
        };
        let remaining = Remaining(vec![(Deployment::ROW.into(), vec![node.clone(), node])]);
        let none = Others::default();
        let status = conditions(None, &remaining, &none, at(5));
        assert_eq!(status.phase.as_deref(), Some("Terminating"));
        assert_eq!(
            value(&status, "NamespaceContentRemaining"),
            (
                "True".into(),
                "Some resources are remaining: deployments.apps. has 2 resource instances".into()
            )
        );
        assert_eq!(
            value(&status, "NamespaceFinalizersRemaining").1,
            "Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances"
        );
        // An unchanged state changes nothing, not even the times.
        assert_eq!(conditions(Some(&status), &remaining, &none, at(9)), status);
        let empty = conditions(Some(&status), &Remaining::default(), &none, at(9));
        assert_eq!(value(&empty, "NamespaceContentRemaining").0, "False");
        assert_eq!(value(&empty, "NamespaceDeletionDiscoveryFailure").0, "False");
    }

    #[test]
    fn what_other_servers_have_is_reported() {
        let others = Others {
            remaining: vec![("things.example.com".to_owned(), 3)],
            failing: vec!["a.io/v1".to_owned(), "b.io/v2".to_owned()],
        };
        let status = conditions(None, &Remaining::default(), &others, at(5));
        assert_eq!(
            value(&status, "NamespaceContentRemaining").1,
            "Some resources are remaining: things.example.com. has 3 resource instances"
        );
        let failure = "Discovery failed for some groups, 2 failing: unable to retrieve the complete \
                       list of server APIs: a.io/v1: stale GroupVersion discovery: a.io/v1, b.io/v2: \
                       stale GroupVersion discovery: b.io/v2";
        assert_eq!(
            value(&status, "NamespaceDeletionDiscoveryFailure"),
            ("True".to_owned(), failure.to_owned())
        );
    }
}
