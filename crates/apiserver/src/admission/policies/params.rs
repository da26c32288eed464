//! The parameters of a binding.

use std::sync::Arc;

use api::labels::Selector;
use api::{KindRef, KindRow};
use k8s_openapi::api::admissionregistration::v1::ParamKind;
use serde_json::Value;

use super::compiled::{Binding, Policy};
use crate::admission::webhooks::Asked;
use crate::cache::{Filter, Version};
use crate::core::Core;

/// The kind of parameters, if it is served.
pub fn row_of(core: &Core, kind: &ParamKind) -> Option<KindRef> {
    let (version, name) =
        (kind.api_version.as_deref().unwrap_or_default(), kind.kind.as_deref().unwrap_or_default());
    if let Some(row) = api::kind::by_kind(version, name) {
        return Some(row.into()).filter(|row: &KindRef| row.stored);
    }
    let (group, version) = version.split_once('/')?;
    let served = core.cache.registry.kinds().of(group, version);
    served.into_iter().find(|row| row.kind == name)
}

/// The objects that a policy is evaluated with, one after the other; `None`: without any.
///
/// # Errors
/// Why there are none.
pub async fn collect<R>(
    policy: &Policy<R>,
    binding: &Binding,
    asked: &Asked<'_>,
) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(reference)) = (&policy.param_kind, &binding.param_ref) else {
        return Ok(vec![None]);
    };
    let core = asked.call.core;
    let row = row_of(core, kind).ok_or_else(|| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (version, name) = (text(&kind.api_version), text(&kind.kind));
        format!("paramKind kind `{version}, Kind={name}` not known")
    })?;
    let given = reference.namespace.as_deref().unwrap_or_default();
    let namespace = match (row.namespaced(), given, asked.namespace.as_str()) {
        (false, "", _) => "",
        (false, _, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                .to_owned());
        }
        (true, "", "") => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned());
        }
        (true, "", own) => own,
        (true, given, _) => given,
    };
    let name = reference.name.as_deref().unwrap_or_default();
    let found = if name.is_empty() {
        let selector = Selector::from_label_selector(reference.selector.as_ref());
        let selector = selector.map_err(|error| error.0)?;
        let filter = Filter { labels: selector, ..Filter::everything(&row, namespace) };
        core.cache.resource(&row).list(&filter)
    } else {
        let key = crate::request::object_key(&row, namespace, name);
        core.find(&row, &key).await.map_err(|error| error.to_string())?.into_iter().collect()
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()
        );
    }
    let found = core.converted_list(&row, found).await.map_err(|error| error.to_string())?;
    found.iter().map(|version| read(&row, version)).collect()
}

fn read(row: &KindRow, version: &Arc<Version>) -> Result<Option<Value>, String> {
    let mut param: Value =
        serde_json::from_slice(&version.json).map_err(|error| error.to_string())?;
    if let Some(param) = param.as_object_mut() {
        param.insert("apiVersion".to_owned(), row.api_version().into());
        param.insert("kind".to_owned(), row.kind.to_string().into());
    }
    Ok(Some(param))
}
