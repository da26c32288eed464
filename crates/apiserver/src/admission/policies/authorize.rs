//! Whoever makes a policy or a binding must be able to read its parameters, which its messages may
//! show (`k8s.io/kubernetes/pkg/registry/admissionregistration`).

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use k8s_openapi::api::admissionregistration::v1::{
    ParamKind, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};

use super::params::row_of;
use crate::authz::Attributes;
use crate::core::Call;
use crate::request::Origin;

const ALL: &str = "*";

/// Checks the right to read the parameters of a policy or a binding that is written.
///
/// # Errors
/// 422 without it.
pub async fn check(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    if call.options.origin != Origin::Client || !call.target.subresource.is_empty() {
        return Ok(());
    }
    let refused = if let Some(policy) = object.downcast_ref::<ValidatingAdmissionPolicy>() {
        let kind = |policy: &ValidatingAdmissionPolicy| policy.spec.as_ref()?.param_kind.clone();
        let before = old.and_then(|old| old.downcast_ref()).and_then(kind);
        let Some(wanted) = kind(policy).filter(|wanted| before.as_ref() != Some(wanted)) else {
            return Ok(());
        };
        (!may_read(call, &wanted, ALL, ALL).await).then(|| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let why = format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
                call.user.name,
                text(&wanted.kind),
                text(&wanted.api_version)
            );
            ("spec.paramKind", why)
        })
    } else if let Some(binding) = object.downcast_ref::<ValidatingAdmissionPolicyBinding>() {
        refused_binding(call, binding, old.and_then(|old| old.downcast_ref())).await?
    } else {
        None
    };
    match refused {
        None => Ok(()),
        Some((field, why)) => {
            let name = object.metadata().name.as_deref().unwrap_or_default();
            Err(ApiError::invalid(call.row(), name, &[FieldError::forbidden(field, why)]))
        }
    }
}

async fn refused_binding(
    call: Call<'_>,
    binding: &ValidatingAdmissionPolicyBinding,
    old: Option<&ValidatingAdmissionPolicyBinding>,
) -> Result<Option<(&'static str, String)>, ApiError> {
    let facts = |binding: &ValidatingAdmissionPolicyBinding| {
        let spec = binding.spec.clone();
        (spec.policy_name, spec.param_ref)
    };
    let (policy, Some(reference)) = facts(binding) else {
        return Ok(None);
    };
    if old.map(facts) == Some((policy.clone(), Some(reference.clone()))) {
        return Ok(None);
    }
    let found = call.core.find(ValidatingAdmissionPolicy::ROW, &policy).await?;
    let policy = found.and_then(|found| ValidatingAdmissionPolicy::decode(&found.json).ok());
    let kind = policy.and_then(|policy| policy.spec?.param_kind);
    // As upstream: what a policy that is not there yet will ask for is not known.
    let (name, namespace) = (
        reference.name.clone().unwrap_or_else(|| ALL.to_owned()),
        reference.namespace.clone().unwrap_or_else(|| ALL.to_owned()),
    );
    let allowed = match &kind {
        Some(kind) => may_read(call, kind, &namespace, &name).await,
        None => {
            let everything = attributes(ALL, ALL, &namespace, &name);
            call.core.authorizers.allows(call.core, call.user, &everything).await
        }
    };
    Ok((!allowed).then(|| {
        let why = format!(
            "user {} does not have \"get\" permission on the object referenced by paramRef",
            call.user.name
        );
        ("spec.paramRef", why)
    }))
}

fn attributes(group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes::Resource {
        verb: "get".to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

async fn may_read(call: Call<'_>, kind: &ParamKind, namespace: &str, name: &str) -> bool {
    let attributes = match row_of(call.core, kind) {
        Some(row) => attributes(&row.group, &row.plural, namespace, name),
        None => {
            let version = kind.api_version.as_deref().unwrap_or_default();
            let group = version.split_once('/').map_or("", |(group, _)| group);
            attributes(group, ALL, namespace, name)
        }
    };
    call.core.authorizers.allows(call.core, call.user, &attributes).await
}
