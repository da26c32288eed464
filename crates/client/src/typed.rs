//! The verbs for one kind.

use std::marker::PhantomData;

use api::{Kind, Revision};
use k8s_openapi::api::policy::v1::Eviction;
use rpc::api_v1 as pb;

use crate::{Client, Error};

/// The objects of kind `K`, in one namespace or in all of them.
#[derive(Debug)]
pub struct Api<K> {
    client: Client,
    namespace: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), namespace: self.namespace.clone(), kind: PhantomData }
    }
}

/// What a list or watch selects.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
}

/// Options of a delete; the default is Kubernetes' default for the kind.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<&'static str>,
    pub precondition_uid: Option<String>,
    pub precondition_resource_version: Option<String>,
}

impl DeleteOptions {
    /// The meta/v1 DeleteOptions as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut options = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = self.propagation_policy {
            options["propagationPolicy"] = policy.into();
        }
        if let Some(uid) = &self.precondition_uid {
            options["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.precondition_resource_version {
            options["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        options.to_string().into_bytes()
    }
}

/// The type of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl From<PatchKind> for pb::PatchType {
    fn from(kind: PatchKind) -> Self {
        match kind {
            PatchKind::Json => Self::JsonPatch,
            PatchKind::Merge => Self::MergePatch,
            PatchKind::Strategic => Self::StrategicMergePatch,
            PatchKind::Apply => Self::ApplyPatch,
        }
    }
}

/// A list and its revision.
#[derive(Clone, Debug)]
pub struct List<K> {
    pub items: Vec<K>,
    pub revision: Revision,
}

impl<K: Kind> Api<K> {
    /// Cluster-scoped objects, or those of every namespace.
    pub fn all(client: &Client) -> Self {
        Self::namespaced(client, "")
    }

    pub fn namespaced(client: &Client, namespace: &str) -> Self {
        Self { client: client.clone(), namespace: namespace.to_owned(), kind: PhantomData }
    }

    fn target(&self, name: &str, subresource: &str) -> Option<pb::Target> {
        Some(crate::dynamic::target(K::ROW, &self.namespace, name, subresource))
    }

    pub async fn get(&self, name: &str) -> Result<K, Error> {
        let request = pb::GetRequest { target: self.target(name, ""), ..Default::default() };
        Ok(K::decode(&self.client.resources().get(request).await?.into_inner().json)?)
    }

    /// `None` when there is no such object.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, Error> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn list(&self, options: &ListOptions) -> Result<List<K>, Error> {
        let request = pb::ListRequest {
            target: self.target("", ""),
            label_selector: options.label_selector.clone(),
            field_selector: options.field_selector.clone(),
            ..Default::default()
        };
        let mut pages = self.client.resources().list(request).await?.into_inner();
        let mut list = List { items: Vec::new(), revision: Revision(0) };
        while let Some(page) = pages.message().await? {
            list.revision = list.revision.max(Revision(page.revision));
            for object in page.items {
                list.items.push(K::decode(&object.json)?);
            }
        }
        Ok(list)
    }

    pub async fn create(&self, object: &K) -> Result<K, Error> {
        self.create_at("", "", object).await
    }

    /// Creates a subresource: `serviceaccounts/NAME/token`.
    pub async fn create_subresource<S: Kind>(
        &self,
        name: &str,
        subresource: &str,
        object: &S,
    ) -> Result<S, Error> {
        self.create_at(name, subresource, object).await
    }

    /// Requests the eviction of a pod, which disruption budgets may refuse (429).
    pub async fn evict(&self, name: &str, eviction: &Eviction) -> Result<(), Error> {
        // The answer is a `Status`.
        self.post(name, "eviction", eviction).await.map(|_| ())
    }

    async fn create_at<S: Kind>(
        &self,
        name: &str,
        subresource: &str,
        object: &S,
    ) -> Result<S, Error> {
        Ok(S::decode(&self.post(name, subresource, object).await?)?)
    }

    async fn post<S: Kind>(
        &self,
        name: &str,
        subresource: &str,
        object: &S,
    ) -> Result<bytes::Bytes, Error> {
        let request = pb::CreateRequest {
            target: self.target(name, subresource),
            json: object.encode().into(),
            options: None,
        };
        let created = self.client.resources().create(request).await?;
        Ok(created.into_inner().json)
    }

    /// Replaces the object; its `resourceVersion` is the precondition.
    pub async fn replace(&self, object: &K) -> Result<K, Error> {
        self.replace_at("", object).await
    }

    /// Replaces the status; its `resourceVersion` is the precondition.
    pub async fn replace_status(&self, object: &K) -> Result<K, Error> {
        self.replace_at("status", object).await
    }

    /// Replaces whether a request is approved; its `resourceVersion` is the precondition.
    pub async fn replace_approval(&self, object: &K) -> Result<K, Error> {
        self.replace_at("approval", object).await
    }

    async fn replace_at(&self, subresource: &str, object: &K) -> Result<K, Error> {
        let name = object.metadata().name.clone().unwrap_or_default();
        let request = pb::UpdateRequest {
            target: self.target(&name, subresource),
            json: object.encode().into(),
            options: None,
        };
        Ok(K::decode(&self.client.resources().update(request).await?.into_inner().json)?)
    }

    pub async fn patch(
        &self,
        name: &str,
        kind: PatchKind,
        patch: &serde_json::Value,
    ) -> Result<K, Error> {
        self.patch_at(name, "", kind, patch).await
    }

    pub async fn patch_status(
        &self,
        name: &str,
        kind: PatchKind,
        patch: &serde_json::Value,
    ) -> Result<K, Error> {
        self.patch_at(name, "status", kind, patch).await
    }

    async fn patch_at(
        &self,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        patch: &serde_json::Value,
    ) -> Result<K, Error> {
        let request = pb::PatchRequest {
            target: self.target(name, subresource),
            r#type: pb::PatchType::from(kind).into(),
            patch: patch.to_string().into_bytes().into(),
            options: None,
        };
        Ok(K::decode(&self.client.resources().patch(request).await?.into_inner().json)?)
    }

    /// Requests the deletion of this very object: its uid is a precondition, so that an object that
    /// was created under its name since is left alone. For everything that deletes what it has
    /// found in a cache.
    pub async fn delete_exactly(&self, object: &K, options: &DeleteOptions) -> Result<(), Error> {
        let metadata = object.metadata();
        let (Some(name), Some(uid)) = (&metadata.name, &metadata.uid) else {
            return Err(Error::Unidentified(K::KIND));
        };
        let options = DeleteOptions { precondition_uid: Some(uid.clone()), ..options.clone() };
        self.delete(name, &options).await
    }

    /// Requests deletion of whatever has this name; the object may exist until its finalizers are
    /// removed and its grace period is over.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<(), Error> {
        let request = pb::DeleteRequest {
            target: self.target(name, ""),
            options_json: options.to_json().into(),
            dry_run: false,
        };
        self.client.resources().delete(request).await?;
        Ok(())
    }
}
