//! Reviews: who somebody is and what they may do.

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use k8s_openapi::Resource;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes,
    ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::api::core::v1::Binding;

use super::{admitted, binding, json};
use crate::authn::bootstrap;
use crate::authz::Attributes;
use crate::core::Call;
use crate::request::{Request, Target, Verb};
use crate::response::Response;
use crate::user::User;

/// Answers a review.
///
/// # Errors
/// 405 for any verb but create, 400 for an empty review.
pub async fn answer_review(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    if call.verb != Verb::Create || !call.target.name.is_empty() {
        return Err(ApiError::method_not_allowed(call.row(), call.verb.as_str()));
    }
    match &*call.row().kind {
        TokenReview::KIND => token_review(call, admitted(call, request).await?).await,
        SelfSubjectReview::KIND => {
            let mut review: SelfSubjectReview = admitted(call, request).await?;
            review.status = Some(SelfSubjectReviewStatus { user_info: Some(info(call.user)) });
            Ok(json(201, &review))
        }
        SubjectAccessReview::KIND => {
            let mut review: SubjectAccessReview = admitted(call, request).await?;
            review.status = Some(subject_access(call, &review.spec)?);
            Ok(json(201, &review))
        }
        LocalSubjectAccessReview::KIND => {
            let mut review: LocalSubjectAccessReview = admitted(call, request).await?;
            let asked =
                review.spec.resource_attributes.as_ref().and_then(|a| a.namespace.as_deref());
            let mut errors = Vec::new();
            if review.spec.resource_attributes.is_some() && asked != Some(&call.target.namespace) {
                errors.push(FieldError::invalid(
                    "spec.resourceAttributes.namespace",
                    asked.unwrap_or_default(),
                    "must match metadata.namespace",
                ));
            }
            if review.spec.non_resource_attributes.is_some() {
                errors.push(FieldError::invalid(
                    "spec.nonResourceAttributes",
                    &review.spec.non_resource_attributes,
                    "disallowed on this kind of request",
                ));
            }
            refuse(call, errors)?;
            review.status = Some(subject_access(call, &review.spec)?);
            Ok(json(201, &review))
        }
        SelfSubjectAccessReview::KIND => {
            let mut review: SelfSubjectAccessReview = admitted(call, request).await?;
            let spec = &review.spec;
            let path = spec.non_resource_attributes.as_ref();
            refuse(call, one_question(spec.resource_attributes.is_some(), path))?;
            let asked = attributes(
                spec.resource_attributes.as_ref(),
                path.map(|path| (path.verb.clone(), path.path.clone())),
            )?;
            review.status = Some(decide(call, call.user, &asked));
            Ok(json(201, &review))
        }
        SelfSubjectRulesReview::KIND => rules_review(call, admitted(call, request).await?),
        Binding::KIND => bind(call, request).await,
        kind => Err(ApiError::not_implemented(format!("{kind} is not served"))),
    }
}

/// The legacy form of a binding: created as an object, with the pod named in its metadata.
async fn bind(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let binding: Binding = admitted(call, request).await?;
    let target = Target {
        row: k8s_openapi::api::core::v1::Pod::ROW.into(),
        namespace: call.target.namespace.clone(),
        name: Object::metadata(&binding).name.clone().unwrap_or_default(),
        subresource: "binding".to_owned(),
        subpath: String::new(),
    };
    binding::create_binding(Call { target: &target, ..call }, binding).await
}

fn info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

async fn token_review(call: Call<'_>, mut review: TokenReview) -> Result<Response, ApiError> {
    if review.spec.token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review.spec.audiences.clone().unwrap_or_default();
    let checked = match &call.core.tokens {
        Some(tokens) => tokens.check(call.core, &review.spec.token, &audiences).await.ok(),
        None => None,
    };
    // A bootstrap token is for the apiserver alone.
    let own = call.core.tokens.as_ref().map(|tokens| tokens.issuer().to_owned());
    let own = own.filter(|own| audiences.is_empty() || audiences.contains(own));
    let bootstrap = bootstrap::authenticate(call.core, &review.spec.token)
        .filter(|_| audiences.is_empty() || own.is_some());
    let status = match checked {
        None if bootstrap.is_some() => TokenReviewStatus {
            authenticated: Some(true),
            user: bootstrap.as_deref().map(info),
            audiences: Some(own.into_iter().collect()),
            error: None,
        },
        Some(checked) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(info(&checked.1)),
            audiences: Some(
                checked
                    .0
                    .aud
                    .iter()
                    .filter(|own| audiences.is_empty() || audiences.contains(own))
                    .cloned()
                    .collect(),
            ),
            error: None,
        },
        None => TokenReviewStatus {
            user: Some(UserInfo::default()),
            error: Some("invalid bearer token".to_owned()),
            ..TokenReviewStatus::default()
        },
    };
    review.status = Some(status);
    Ok(json(201, &review))
}

fn subject_access(
    call: Call<'_>,
    spec: &SubjectAccessReviewSpec,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let groups = spec.groups.clone().unwrap_or_default();
    let name = spec.user.clone().unwrap_or_default();
    let mut errors =
        one_question(spec.resource_attributes.is_some(), spec.non_resource_attributes.as_ref());
    if name.is_empty() && groups.is_empty() {
        let problem = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", "", problem));
    }
    refuse(call, errors)?;
    let user = User {
        name,
        groups,
        uid: spec.uid.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    let path = spec.non_resource_attributes.as_ref();
    let asked = attributes(
        spec.resource_attributes.as_ref(),
        path.map(|path| (path.verb.clone(), path.path.clone())),
    )?;
    Ok(decide(call, &user, &asked))
}

fn refuse(call: Call<'_>, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(call.row(), "", &errors))
}

/// A review asks about either a resource or a path (`ValidateSubjectAccessReviewSpec`).
fn one_question(resource: bool, path: Option<&NonResourceAttributes>) -> Vec<FieldError> {
    match (resource, path) {
        (true, Some(path)) => vec![FieldError::invalid(
            "spec.nonResourceAttributes",
            path,
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, None) => vec![FieldError::invalid(
            "spec.resourceAttributes",
            (),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

fn decide(call: Call<'_>, user: &User, attributes: &Attributes) -> SubjectAccessReviewStatus {
    let (rbac, cache) = (&call.core.rbac, &call.core.cache);
    let allowed = rbac.allows(cache, user, attributes);
    // `system:masters` needs no role.
    let reason = || rbac.reason(cache, user, attributes);
    SubjectAccessReviewStatus {
        allowed,
        reason: (allowed && !user.in_group(crate::user::MASTERS)).then(reason).flatten(),
        ..SubjectAccessReviewStatus::default()
    }
}

fn attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<(Option<String>, Option<String>)>,
) -> Result<Attributes, ApiError> {
    match (resource, path) {
        (Some(resource), None) => {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            Ok(Attributes::Resource {
                verb: text(&resource.verb),
                group: text(&resource.group),
                resource: text(&resource.resource),
                subresource: text(&resource.subresource),
                namespace: text(&resource.namespace),
                name: text(&resource.name),
            })
        }
        (None, Some((verb, path))) => {
            Ok(Attributes::Path { verb: verb.unwrap_or_default(), path: path.unwrap_or_default() })
        }
        _ => Err(ApiError::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
    }
}

fn rules_review(call: Call<'_>, mut review: SelfSubjectRulesReview) -> Result<Response, ApiError> {
    let namespace = review.spec.namespace.clone().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let mut status = SubjectRulesReviewStatus::default();
    let mut rules = call.core.rbac.rules_of(&call.core.cache, call.user, &namespace);
    if call.user.in_group(crate::user::MASTERS) {
        let all = || Some(vec!["*".to_owned()]);
        rules.push(k8s_openapi::api::rbac::v1::PolicyRule {
            api_groups: all(),
            resources: all(),
            verbs: vec!["*".to_owned()],
            ..Default::default()
        });
    }
    for rule in rules {
        if rule.non_resource_urls.is_some() {
            status.non_resource_rules.push(NonResourceRule {
                non_resource_urls: rule.non_resource_urls,
                verbs: rule.verbs,
            });
        } else {
            status.resource_rules.push(ResourceRule {
                api_groups: rule.api_groups,
                resource_names: rule.resource_names,
                resources: rule.resources,
                verbs: rule.verbs,
            });
        }
    }
    if call.user.node_name().is_some() {
        status.incomplete = true;
        let problem = "node authorizer does not support user rule resolution";
        status.evaluation_error = Some(problem.to_owned());
    }
    review.status = Some(status);
    Ok(json(201, &review))
}
