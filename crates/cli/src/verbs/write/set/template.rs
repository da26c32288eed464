//! The pod template of a workload, and changes to its containers.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::request::selection::ObjectReference;

/// Lists of containers in a pod's spec.
pub const LISTS: [&str; 2] = ["containers", "initContainers"];

/// A pod spec, and its path in the object.
pub struct Template<'a> {
    pub spec: &'a Value,
    path: &'static [&'static str],
}

impl<'a> Template<'a> {
    /// # Errors
    /// When the object has no pod spec.
    pub fn of(named: &ObjectReference<'_>, object: &'a Value) -> anyhow::Result<Self> {
        let path: &[&str] = match named.resource.kind.as_str() {
            "Pod" => &["spec"],
            "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
            _ => &["spec", "template", "spec"],
        };
        let spec = path.iter().fold(object, |value, key| &value[*key]);
        if !spec["containers"].is_array() {
            bail!(
                "{}/{} the object is not a pod or does not have a pod template: *v1.{}",
                named.resource.plural,
                named.name,
                named.resource.kind
            );
        }
        Ok(Self { spec, path })
    }

    /// The patch of the object that applies this change to the spec.
    pub fn patch(&self, change: Value) -> Value {
        let wrap = |inner, key: &&str| json!({*key: inner});
        self.path.iter().rev().fold(change, wrap)
    }
}

pub fn names<'a>(pod_spec: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    pod_spec[list]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
}

/// Adds an entry for a container to a patch.
pub fn push(patch: &mut Value, list: &str, entry: Value) {
    if patch[list].is_null() {
        patch[list] = json!([]);
    }
    if let Some(entries) = patch[list].as_array_mut() {
        entries.push(entry);
    }
}

pub fn images(pod_spec: &Value, changes: &[String]) -> anyhow::Result<Value> {
    let mut patch = json!({});
    for change in changes {
        let (wanted, image) = change.split_once('=').context("an image is set, not removed")?;
        let mut found = false;
        for list in LISTS {
            for name in names(pod_spec, list).filter(|name| wanted == "*" || wanted == *name) {
                found = true;
                push(&mut patch, list, json!({"name": name, "image": image}));
            }
        }
        if !found {
            bail!("unable to find container named {wanted:?}");
        }
    }
    Ok(patch)
}

pub fn resources(
    pod_spec: &Value,
    wanted: &str,
    limits: &[String],
    requests: &[String],
) -> anyhow::Result<Value> {
    let amounts = |texts: &[String]| -> anyhow::Result<Map<String, Value>> {
        texts
            .iter()
            .map(|text| {
                let (name, amount) = text.split_once('=').with_context(|| {
                    format!("Invalid argument syntax {text}, expected <resource>=<quantity>")
                })?;
                Ok((name.to_owned(), amount.into()))
            })
            .collect()
    };
    let mut change = json!({});
    for (field, texts) in [("limits", limits), ("requests", requests)] {
        if !texts.is_empty() {
            change[field] = amounts(texts)?.into();
        }
    }
    let mut patch = json!({});
    for name in names(pod_spec, "containers").filter(|name| wanted == "*" || wanted == *name) {
        push(&mut patch, "containers", json!({"name": name, "resources": change}));
    }
    if patch["containers"].is_null() {
        bail!("unable to find container named {wanted}");
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_name_and_for_all() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        assert_eq!(
            images(&spec, &["a=x".into()]).unwrap(),
            json!({"containers": [{"name": "a", "image": "x"}]})
        );
        let all = images(&spec, &["*=x".into()]).unwrap();
        assert_eq!(all["containers"].as_array().unwrap().len(), 2);
        assert_eq!(all["initContainers"][0]["name"], "i");
        assert!(images(&spec, &["c=x".into()]).is_err());
    }

    #[test]
    fn resources_of_one_and_of_all() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(
            resources(&spec, "a", &["cpu=1".into()], &[]).unwrap(),
            json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]})
        );
        let all = resources(&spec, "*", &[], &["memory=1Gi".into()]).unwrap();
        assert_eq!(all["containers"].as_array().unwrap().len(), 2);
        assert!(resources(&spec, "c", &["cpu=1".into()], &[]).is_err());
    }
}
