//! Whoever makes a policy or a binding must be able to read its parameters, which its messages may
//! show (`k8s.io/kubernetes/pkg/registry/admissionregistration`).

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamKind, ParamRef,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
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
    let refused = if let Some(kind) = param_kind_of(object) {
        let before = old.and_then(param_kind_of).flatten();
        let Some(wanted) = kind.filter(|wanted| before.as_ref() != Some(wanted)) else {
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
    } else if let Some((policy, reference)) = reference_of(object) {
        let Some(reference) = reference else {
            return Ok(());
        };
        if old.and_then(reference_of) == Some((policy.clone(), Some(reference.clone()))) {
            return Ok(());
        }
        let kind = kind_of_policy(call, object, &policy).await?;
        refused_binding(call, kind, &reference).await
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

/// The kind of a policy's parameters, if the object is a policy.
fn param_kind_of(object: &dyn Object) -> Option<Option<ParamKind>> {
    let validating = object.downcast_ref::<ValidatingAdmissionPolicy>();
    let validating =
        validating.map(|policy| policy.spec.as_ref().and_then(|spec| spec.param_kind.clone()));
    validating.or_else(|| {
        let policy = object.downcast_ref::<MutatingAdmissionPolicy>()?;
        Some(policy.spec.as_ref().and_then(|spec| spec.param_kind.clone()))
    })
}

/// The policy and the parameters of a binding, if the object is one.
fn reference_of(object: &dyn Object) -> Option<(String, Option<ParamRef>)> {
    if let Some(binding) = object.downcast_ref::<ValidatingAdmissionPolicyBinding>() {
        return Some((binding.spec.policy_name.clone(), binding.spec.param_ref.clone()));
    }
    let binding = object.downcast_ref::<MutatingAdmissionPolicyBinding>()?;
    let spec = binding.spec.clone().unwrap_or_default();
    Some((spec.policy_name.unwrap_or_default(), spec.param_ref))
}

/// What the parameters of a binding's policy are, as far as there is one.
async fn kind_of_policy(
    call: Call<'_>,
    binding: &dyn Object,
    policy: &str,
) -> Result<Option<ParamKind>, ApiError> {
    if binding.downcast_ref::<MutatingAdmissionPolicyBinding>().is_some() {
        let found = call.core.find(MutatingAdmissionPolicy::ROW, policy).await?;
        let policy = found.and_then(|found| MutatingAdmissionPolicy::decode(&found.json).ok());
        return Ok(policy.and_then(|policy| policy.spec?.param_kind));
    }
    let found = call.core.find(ValidatingAdmissionPolicy::ROW, policy).await?;
    let policy = found.and_then(|found| ValidatingAdmissionPolicy::decode(&found.json).ok());
    Ok(policy.and_then(|policy| policy.spec?.param_kind))
}

async fn refused_binding(
    call: Call<'_>,
    kind: Option<ParamKind>,
    reference: &ParamRef,
) -> Option<(&'static str, String)> {
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
    (!allowed).then(|| {
        let why = format!(
            "user {} does not have \"get\" permission on the object referenced by paramRef",
            call.user.name
        );
        ("spec.paramRef", why)
    })
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
