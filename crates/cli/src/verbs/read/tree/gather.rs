//! Reads what a tree is made of: metadata of every kind, then tables of the kinds that are in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use client::Client;
use futures::{StreamExt, TryStreamExt, stream};
use rpc::api_v1::{ListRequest, Object, Representation};
use serde_json::Value;

use super::graph::{Entry, Graph, Owner, Relation};
use super::state::{Container, State, containers, references, state};
use crate::describe::text::items;
use crate::discovery::{Resource, Resources};
use crate::request::failure;
use crate::request::selection::ObjectReference;

/// Lists that are made at once.
const CONCURRENT_LISTS: usize = 8;
/// The namespace of the nodes' Leases.
const NODE_LEASES: &str = "kube-node-lease";

/// The objects around the named one, and their states by uid.
#[derive(Default)]
pub struct Gathered {
    pub graph: Graph,
    pub states: BTreeMap<String, State>,
    pub containers: BTreeMap<String, Vec<Container>>,
    /// Kinds that could not be listed, with the server's message.
    pub unlisted: Vec<String>,
}

/// Objects of one kind in one namespace.
type Group = (String, String, String);

struct Gatherer<'a> {
    client: &'a Client,
    resources: &'a Resources,
    /// Where dependents of cluster-scoped objects are looked for; empty for everywhere.
    namespace: String,
    /// The Node that is the named object.
    node: Option<String>,
    found: Gathered,
    detailed: BTreeSet<Group>,
}

/// Reads the named object and what is around it; returns its uid.
pub async fn gather(
    client: &Client,
    resources: &Resources,
    named: &ObjectReference<'_>,
    all_namespaces: bool,
) -> anyhow::Result<(Gathered, String)> {
    let object = client.get_object(named.target("")).await?;
    let resource = named.resource;
    let namespace = match (resource.namespaced, all_namespaces) {
        (true, _) => named.namespace.clone(),
        (false, true) => String::new(),
        (false, false) => client.default_namespace().to_owned(),
    };
    let is_node = resource.kind == "Node" && resource.group.is_empty();
    let mut gatherer = Gatherer {
        client,
        resources,
        namespace,
        node: is_node.then(|| named.name.clone()),
        found: Gathered::default(),
        detailed: BTreeSet::new(),
    };
    let uid = object.uid.clone();
    gatherer.add(resource, &object)?;
    gatherer.list_all(resource.namespaced).await?;
    gatherer.of_node(&uid).await?;
    loop {
        let owners = gatherer.find_owners(&uid).await?;
        let details = gatherer.read_details(&uid).await?;
        if !owners && !details {
            return Ok((gatherer.found, uid));
        }
    }
}

impl Gatherer<'_> {
    fn add(&mut self, resource: &Resource, object: &Object) -> anyhow::Result<()> {
        let value: Value =
            serde_json::from_slice(&object.json).context("the server's object is not JSON")?;
        self.found.graph.add(Entry::read(&resource.api_version(), &resource.kind, &value));
        Ok(())
    }

    async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        field_selector: String,
        representation: Representation,
    ) -> Result<Vec<Object>, client::Error> {
        let request = ListRequest {
            target: Some(resource.target(namespace, "", "")),
            field_selector,
            representation: representation.into(),
            ..Default::default()
        };
        Ok(self.client.list_objects(request).await?.0)
    }

    /// The metadata of everything that may depend on the named object. Owners are in the namespace
    /// of their dependents, or cluster-scoped.
    async fn list_all(&mut self, namespaced: bool) -> anyhow::Result<()> {
        let mut kinds: Vec<&Resource> = Vec::new();
        for resource in &self.resources.0 {
            let known = kinds
                .iter()
                .any(|other| other.group == resource.group && other.plural == resource.plural);
            let listed = resource.verbs.iter().any(|verb| verb == "list");
            // Events have no owners, and there are many.
            let is_event = resource.kind == "Event";
            if listed && !known && !is_event && (resource.namespaced || !namespaced) {
                kinds.push(resource);
            }
        }
        let this = &*self;
        let lists = stream::iter(kinds).map(|resource| async move {
            let listed = this
                .list(resource, &this.namespace, String::new(), Representation::PartialMetadata)
                .await;
            (resource, listed)
        });
        let lists: Vec<_> = lists.buffer_unordered(CONCURRENT_LISTS).collect().await;
        for (resource, listed) in lists {
            match listed {
                Ok(objects) => {
                    objects.iter().try_for_each(|object| self.add(resource, object))?;
                }
                Err(error) if error.api().is_some() => {
                    self.found.unlisted.push(failure::message(&error.into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.found.unlisted.sort();
        Ok(())
    }

    /// The pods and the Lease of the named Node, whatever their namespace.
    async fn of_node(&mut self, uid: &str) -> anyhow::Result<()> {
        let Some(node) = self.node.clone() else {
            return Ok(());
        };
        let pods = self.resources.find("pods")?;
        let on_node = format!("spec.nodeName={node}");
        let mut related = self.list(pods, "", on_node, Representation::PartialMetadata).await?;
        for object in &related {
            self.add(pods, object)?;
        }
        let leases = self.resources.find("leases.coordination.k8s.io")?;
        match self.client.get_object(leases.target(NODE_LEASES, &node, "")).await {
            Ok(lease) => {
                self.add(leases, &lease)?;
                related.push(lease);
            }
            Err(error) if error.api().is_some() => {
                self.found.unlisted.push(failure::message(&error.into()));
            }
            Err(error) => return Err(error.into()),
        }
        for object in related {
            self.found.graph.relate(uid, Relation::Node, &object.uid);
        }
        Ok(())
    }

    /// Looks for owners that no list had; returns whether there were any.
    async fn find_owners(&mut self, uid: &str) -> anyhow::Result<bool> {
        let unknown = self.found.graph.unknown_owners(uid);
        for (owner, namespace) in &unknown {
            let entry = self.owner(owner, namespace).await?;
            self.found.graph.add(entry);
        }
        Ok(!unknown.is_empty())
    }

    async fn owner(&self, owner: &Owner, namespace: &str) -> anyhow::Result<Entry> {
        let missing = |why: &str| Entry::missing(owner, namespace, why.to_owned());
        let Ok(resource) = self.resources.of_kind(&owner.api_version, &owner.kind) else {
            return Ok(missing("the server does not serve its kind"));
        };
        match self.client.get_object(resource.target(namespace, &owner.name, "")).await {
            Ok(object) if object.uid == owner.uid => {
                let value: Value = serde_json::from_slice(&object.json)?;
                Ok(Entry::read(&owner.api_version, &owner.kind, &value))
            }
            Ok(_) => Ok(missing("another object has its name now")),
            Err(error) if error.is_not_found() => Ok(missing("it does not exist")),
            Err(error) if error.api().is_some() => Ok(missing(&error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads states, and what objects refer to; returns whether anything was read.
    async fn read_details(&mut self, uid: &str) -> anyhow::Result<bool> {
        let graph = &self.found.graph;
        let around = graph.descendants(uid).into_iter().chain(graph.ancestors(uid));
        let entries = around.filter_map(|uid| graph.get(uid)).filter(|one| one.missing.is_none());
        let groups: BTreeSet<Group> = entries
            .map(|entry| (entry.api_version.clone(), entry.kind.clone(), entry.namespace.clone()))
            .filter(|group| !self.detailed.contains(group))
            .collect();
        let this = &*self;
        let tables: Vec<(&Group, Vec<Object>)> = stream::iter(&groups)
            .map(|group| async move { anyhow::Ok((group, this.table(group).await?)) })
            .buffer_unordered(CONCURRENT_LISTS)
            .try_collect()
            .await?;
        for ((_, kind, _), pages) in &tables {
            for page in pages {
                let table: Value = serde_json::from_slice(&page.json)?;
                for row in items(&table["rows"]) {
                    self.detail(kind, &table["columnDefinitions"], row);
                }
            }
        }
        let any = !groups.is_empty();
        self.detailed.extend(groups);
        Ok(any)
    }

    async fn table(&self, (api_version, kind, namespace): &Group) -> anyhow::Result<Vec<Object>> {
        let resource = self.resources.of_kind(api_version, kind)?;
        let on_node = self.node.as_ref().filter(|_| kind == "Pod" && api_version == "v1");
        let fields = on_node.map(|node| format!("spec.nodeName={node}")).unwrap_or_default();
        Ok(self.list(resource, namespace, fields, Representation::TableWithObjects).await?)
    }

    fn detail(&mut self, kind: &str, definitions: &Value, row: &Value) {
        let object = &row["object"];
        let metadata = &object["metadata"];
        let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        let graph = &mut self.found.graph;
        for reference in references(kind, object) {
            let referred: Vec<String> = graph
                .in_namespace(namespace)
                .filter(|entry| reference.is_to(&entry.kind, &entry.name))
                .map(|entry| entry.uid.clone())
                .collect();
            for below in referred {
                graph.relate(&uid, reference.relation(), &below);
            }
        }
        if kind == "Pod" {
            self.found.containers.insert(uid.clone(), containers(object));
        }
        self.found.states.insert(uid, state(kind, definitions, row));
    }
}
