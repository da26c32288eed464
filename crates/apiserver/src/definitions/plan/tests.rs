use api::Kind;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn definition(plural: &str, change: impl FnOnce(&mut Value)) -> CustomResourceDefinition {
    let mut json = json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural.trim_end_matches('s'), "kind": "Widget",
                "listKind": "WidgetList", "shortNames": ["w"]},
            "versions": [{"name": "v1", "served": true, "storage": true}]},
    });
    change(&mut json);
    CustomResourceDefinition::decode(json.to_string().as_bytes()).unwrap()
}

/// All actions are carried out, until there is none.
fn settled(mut all: Vec<CustomResourceDefinition>) -> Vec<CustomResourceDefinition> {
    for _ in 0..3 {
        let written: Vec<_> = plan(&all, now())
            .into_iter()
            .filter_map(|(definition, action)| match action {
                Action::Write(status) => Some((definition.metadata.name.clone(), *status)),
                Action::Finalize => None,
            })
            .collect();
        if written.is_empty() {
            return all;
        }
        for (name, status) in written {
            let found = all.iter_mut().find(|definition| definition.metadata.name == name);
            found.unwrap().status = Some(status);
        }
    }
    panic!("does not settle");
}

fn reason(definition: &CustomResourceDefinition, type_: &str) -> String {
    let conditions = definition.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let found = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    format!("{} {}", found.status, found.reason.as_deref().unwrap())
}

#[test]
fn names_are_accepted_and_the_definition_established_at_once() {
    let all = settled(vec![definition("widgets", |_| {})]);
    assert_eq!(reason(&all[0], NAMES_ACCEPTED), "True NoConflicts");
    assert_eq!(reason(&all[0], ESTABLISHED), "True InitialNamesAccepted");
    let accepted = all[0].status.as_ref().unwrap().accepted_names.as_ref().unwrap();
    assert_eq!(accepted, &all[0].spec.names);
}

#[test]
fn names_in_use_are_refused_until_they_are_free() {
    let first = definition("widgets", |_| {});
    let second = definition("gadgets", |json| json["spec"]["names"]["kind"] = "Gadget".into());
    let all = settled(vec![first.clone(), second]);
    assert_eq!(reason(&all[1], NAMES_ACCEPTED), "False ListKindConflict");
    assert_eq!(reason(&all[1], ESTABLISHED), "False NotAccepted");
    // The other group has names of its own.
    let elsewhere = definition("gadgets", |json| json["spec"]["group"] = "example.org".into());
    assert_eq!(
        reason(&settled(vec![first, elsewhere])[1], ESTABLISHED),
        "True InitialNamesAccepted"
    );
    // The first one is gone.
    let freed = settled(vec![all[1].clone()]);
    assert_eq!(reason(&freed[0], ESTABLISHED), "True InitialNamesAccepted");
}

#[test]
fn what_is_established_stays_so() {
    let mut all = settled(vec![definition("widgets", |_| {})]);
    all[0].spec.names.kind = "Other".to_owned();
    all.push(
        settled(vec![definition("others", |json| {
            json["spec"]["names"] =
                json!({"plural": "others", "kind": "Other", "listKind": "OtherList"});
        })])[0]
            .clone(),
    );
    let all = settled(all);
    assert_eq!(reason(&all[0], NAMES_ACCEPTED), "False KindConflict");
    assert_eq!(reason(&all[0], ESTABLISHED), "True InitialNamesAccepted");
    assert_eq!(all[0].status.as_ref().unwrap().accepted_names.as_ref().unwrap().kind, "Widget");
}

#[test]
fn protected_groups_say_whether_they_are_approved() {
    for (annotation, expected) in [
        (None, "False MissingAnnotation"),
        (Some("unapproved, experimental"), "False UnapprovedAnnotation"),
        (Some("nonsense"), "False InvalidAnnotation"),
        (Some("https://github.com/kubernetes/kubernetes/pull/1"), "True ApprovedAnnotation"),
    ] {
        let all = settled(vec![definition("widgets", |json| {
            json["spec"]["group"] = "x.k8s.io".into();
            if let Some(text) = annotation {
                json["metadata"]["annotations"] = json!({APPROVAL_ANNOTATION: text});
            }
        })]);
        assert_eq!(reason(&all[0], APPROVED), expected);
    }
}

#[test]
fn a_deleted_definition_is_finalized_once_it_is_marked() {
    let mut deleted = settled(vec![definition("widgets", |_| {})]).remove(0);
    mark_terminating(&mut deleted, now());
    assert_eq!(reason(&deleted, TERMINATING), "True InstanceDeletionPending");
    assert_eq!(plan(std::slice::from_ref(&deleted), now()), []);
    deleted.metadata.deletion_timestamp = Some(Time(now()));
    let all = [deleted];
    assert_eq!(plan(&all, now())[0].1, Action::Finalize);
}
