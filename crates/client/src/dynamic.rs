//! Calls for kinds that are known only at run time: objects are JSON bytes.

use api::KindRow;
use rpc::api_v1 as pb;

use crate::typed::{DeleteOptions, PatchKind};
use crate::{Client, Error};

/// The address of a collection (`name` empty), an object, or a subresource.
pub fn target(row: &KindRow, namespace: &str, name: &str, subresource: &str) -> pb::Target {
    pb::Target {
        group: row.group.to_string(),
        version: row.version.to_string(),
        resource: row.plural.to_string(),
        namespace: if row.namespaced() { namespace.into() } else { String::new() },
        name: name.into(),
        subresource: subresource.into(),
    }
}

impl Client {
    pub async fn get_object(&self, target: pb::Target) -> Result<pb::Object, Error> {
        let request = pb::GetRequest { target: Some(target), ..Default::default() };
        Ok(self.resources().get(request).await?.into_inner())
    }

    /// Every object of a collection, with the revision of the list.
    pub async fn list_objects(
        &self,
        request: pb::ListRequest,
    ) -> Result<(Vec<pb::Object>, u64), Error> {
        let mut pages = self.resources().list(request).await?.into_inner();
        let (mut items, mut revision) = (Vec::new(), 0);
        while let Some(page) = pages.message().await? {
            revision = revision.max(page.revision);
            items.extend(page.items);
        }
        Ok((items, revision))
    }

    pub async fn create_object(
        &self,
        target: pb::Target,
        json: Vec<u8>,
        options: pb::WriteOptions,
    ) -> Result<pb::Object, Error> {
        let request =
            pb::CreateRequest { target: Some(target), json: json.into(), options: Some(options) };
        Ok(self.message(self.resources().create(request).await?))
    }

    pub async fn update_object(
        &self,
        target: pb::Target,
        json: Vec<u8>,
        options: pb::WriteOptions,
    ) -> Result<pb::Object, Error> {
        let request =
            pb::UpdateRequest { target: Some(target), json: json.into(), options: Some(options) };
        Ok(self.message(self.resources().update(request).await?))
    }

    pub async fn patch_object(
        &self,
        target: pb::Target,
        kind: PatchKind,
        patch: Vec<u8>,
        options: pb::WriteOptions,
    ) -> Result<pb::Object, Error> {
        let request = pb::PatchRequest {
            target: Some(target),
            r#type: pb::PatchType::from(kind).into(),
            patch: patch.into(),
            options: Some(options),
        };
        Ok(self.message(self.resources().patch(request).await?))
    }

    /// The object after the request (terminating), or a Status.
    pub async fn delete_object(
        &self,
        target: pb::Target,
        options: &DeleteOptions,
    ) -> Result<pb::Object, Error> {
        let request = pb::DeleteRequest {
            target: Some(target),
            options_json: options.to_json().into(),
            dry_run: false,
        };
        Ok(self.resources().delete(request).await?.into_inner())
    }
}
