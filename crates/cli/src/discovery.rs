//! Which resources the server serves, from aggregated discovery, so that custom resources are
//! included.

use std::collections::HashSet;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::Target;
use serde_json::Value;

const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One resource that the server serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub subresources: Vec<String>,
}

impl Resource {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: the resource's name in messages.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `pod/web`, `deployment.apps/web`
    pub fn path(&self, name: &str) -> String {
        let singular =
            if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.clone() };
        if self.group.is_empty() {
            format!("{singular}/{name}")
        } else {
            format!("{singular}.{}/{name}", self.group)
        }
    }

    /// The target of a request: an object, or the collection when the name is empty.
    pub fn target(&self, namespace: &str, name: &str, subresource: &str) -> Target {
        Target {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.plural.clone(),
            namespace: if self.namespaced { namespace.to_owned() } else { String::new() },
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    fn is_named(&self, word: &str) -> bool {
        let (name, rest) = word.split_once('.').unwrap_or((word, ""));
        let named = self.plural == name
            || self.singular == name
            || self.kind == name
            || self.kind.to_lowercase() == name
            || self.short_names.iter().any(|short| short == name);
        let grouped = rest.is_empty()
            || rest == self.group
            || rest
                .split_once('.')
                .is_some_and(|(version, group)| version == self.version && group == self.group);
        named && grouped
    }
}

/// Every resource of the server, preferred versions first.
#[derive(Clone, Debug, Default)]
pub struct Resources(pub Vec<Resource>);

impl Resources {
    /// Fetches the server's discovery documents.
    pub async fn discover(client: &Client) -> anyhow::Result<Self> {
        let (core, groups) = futures::try_join!(
            client.get_path("/api", DISCOVERY),
            client.get_path("/apis", DISCOVERY)
        )?;
        let mut all = Vec::new();
        for body in [core, groups] {
            let list: Value = serde_json::from_slice(&body)
                .context("the server's discovery document is not JSON")?;
            for group in array(&list["items"]) {
                for version in array(&group["versions"]) {
                    for resource in array(&version["resources"]) {
                        all.push(read(group, version, resource));
                    }
                }
            }
        }
        Ok(Self(all))
    }

    /// Every resource in its group's preferred version of those that have it.
    pub fn preferred(&self) -> impl Iterator<Item = &Resource> {
        let mut seen = HashSet::new();
        self.0.iter().filter(move |one| seen.insert((&one.group, &one.plural)))
    }

    /// The resource that `pods`, `po`, `pod`, `deploy.apps` or `deployments.v1.apps` names.
    pub fn find(&self, word: &str) -> anyhow::Result<&Resource> {
        match self.0.iter().find(|resource| resource.is_named(word)) {
            Some(resource) => Ok(resource),
            None => {
                let name = word.split('.').next().unwrap_or(word);
                bail!("the server doesn't have a resource type {name:?}")
            }
        }
    }

    /// The resources of a comma-separated list, whose words may also be categories (`all`).
    pub fn find_all(&self, words: &str) -> anyhow::Result<Vec<&Resource>> {
        let mut found: Vec<&Resource> = Vec::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let category: Vec<&Resource> = self
                .preferred()
                .filter(|resource| resource.categories.iter().any(|category| category == word))
                .collect();
            let named = if category.is_empty() { vec![self.find(word)?] } else { category };
            for resource in named {
                if !found.contains(&resource) {
                    found.push(resource);
                }
            }
        }
        Ok(found)
    }

    /// The resource that serves this `apiVersion` and kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> anyhow::Result<&Resource> {
        match self
            .0
            .iter()
            .find(|resource| resource.kind == kind && resource.api_version() == api_version)
        {
            Some(resource) => Ok(resource),
            None => bail!(
                "resource mapping not found: no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first"
            ),
        }
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    array(value).map(text).collect()
}

fn read(group: &Value, version: &Value, resource: &Value) -> Resource {
    Resource {
        group: text(&group["metadata"]["name"]),
        version: text(&version["version"]),
        kind: text(&resource["responseKind"]["kind"]),
        plural: text(&resource["resource"]),
        singular: text(&resource["singularResource"]),
        namespaced: resource["scope"] == "Namespaced",
        short_names: texts(&resource["shortNames"]),
        categories: texts(&resource["categories"]),
        verbs: texts(&resource["verbs"]),
        subresources: array(&resource["subresources"])
            .map(|subresource| text(&subresource["subresource"]))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        let resource =
            |group: &str, kind: &str, plural: &str, short: &str, categories: &[&str]| Resource {
                group: group.into(),
                version: "v1".into(),
                kind: kind.into(),
                plural: plural.into(),
                singular: kind.to_lowercase(),
                short_names: vec![short.into()],
                categories: categories.iter().map(|category| (*category).into()).collect(),
                ..Default::default()
            };
        Resources(vec![
            resource("", "Pod", "pods", "po", &["all"]),
            resource("apps", "Deployment", "deployments", "deploy", &["all"]),
            resource("", "ConfigMap", "configmaps", "cm", &[]),
        ])
    }

    /// A resource of several versions is listed once, and one by one when a version is named.
    #[test]
    fn a_category_has_preferred_versions_only() {
        let mut all = resources();
        let old = Resource { version: "v1beta1".into(), ..all.0[1].clone() };
        all.0.push(old.clone());
        let found = all.find_all("all").unwrap();
        assert_eq!(found, [&all.0[0], &all.0[1]]);
        assert_eq!(all.find("deployments.v1beta1.apps").unwrap(), &old);
        assert_eq!(all.preferred().count(), 3);
    }

    #[test]
    fn names_short_names_and_categories_resolve() {
        let all = resources();
        for word in ["po", "pod", "pods", "Pod"] {
            assert_eq!(all.find(word).unwrap().plural, "pods", "{word}");
        }
        for word in ["deploy", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(all.find(word).unwrap().kind, "Deployment", "{word}");
        }
        assert_eq!(
            all.find("foo").unwrap_err().to_string(),
            "the server doesn't have a resource type \"foo\""
        );
        let plurals: Vec<_> = all
            .find_all("all,cm,po")
            .unwrap()
            .iter()
            .map(|resource| resource.plural.as_str())
            .collect();
        assert_eq!(plurals, ["pods", "deployments", "configmaps"]);
        assert_eq!(all.find("deploy").unwrap().path("web"), "deployment.apps/web");
    }
}
