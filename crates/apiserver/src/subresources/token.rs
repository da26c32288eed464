//! `serviceaccounts/token`: a token for a ServiceAccount
//! (`k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage/token.go`).

use api::status::FieldError;
use api::{ApiError, Kind, KindRow};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{admitted, json};
use crate::authn::{BoundObject, Claims};
use crate::cache::Version;
use crate::core::Call;
use crate::request::Request;
use crate::response::Response;
use crate::scan;

/// Validity in seconds: default, shortest, longest.
const DEFAULT_SECONDS: i64 = 3_600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// Signs a token for the target.
///
/// # Errors
/// 404 for an account or bound object that does not exist, 400 and 422 for a request of another one or
/// for a validity out of range, 409 for one of an earlier account or bound object of that name.
pub async fn create(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let tokens = call.core.tokens.as_ref().ok_or_else(|| {
        ApiError::not_implemented("the apiserver has no key to sign ServiceAccount tokens with")
    })?;
    let mut asked: TokenRequest = admitted(call, request).await?;
    check_metadata(call, &asked.metadata)?;
    let account = call.current().await?;
    let uid = asked.metadata.uid.as_deref().unwrap_or_default();
    if !uid.is_empty() && *uid != *account.uid {
        let problem = format!(
            "the UID in the token request ({uid}) does not match the UID of the service account ({})",
            account.uid
        );
        return Err(conflict(
            &TokenRequest::ROW.group,
            &TokenRequest::ROW.kind,
            &account.name,
            &problem,
        ));
    }
    asked.status = None;
    let spec = asked.spec.get_or_insert_default();
    let audiences = spec.audiences.get_or_insert_default();
    if audiences.is_empty() {
        audiences.push(tokens.issuer().to_owned());
    }
    let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    check_seconds(call, seconds)?;
    let now = call.now().as_second();
    let mut claims = Claims {
        aud: spec.audiences.clone().unwrap_or_default(),
        exp: now.saturating_add(seconds),
        iat: now,
        nbf: now,
        iss: tokens.issuer().to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{}:{}", account.namespace, account.name),
        ..Claims::default()
    };
    claims.kubernetes.namespace = account.namespace.to_string();
    claims.kubernetes.serviceaccount = bound(&account);
    if let Some(reference) = &spec.bound_object_ref {
        bind(call, reference, &account, &mut claims).await?;
    }
    if !call.options.dry_run {
        let expires = Timestamp::from_second(claims.exp).map_err(ApiError::internal)?;
        asked.status = Some(TokenRequestStatus {
            expiration_timestamp: Some(Time(expires)),
            token: Some(tokens.sign(&claims).map_err(ApiError::internal)?),
        });
    }
    asked.metadata.name = Some(account.name.to_string());
    asked.metadata.namespace = Some(account.namespace.to_string());
    asked.metadata.uid = Some(account.uid.to_string());
    asked.metadata.creation_timestamp = Some(Time(crate::meta::whole_seconds(call.now())));
    Ok(json(201, &asked))
}

/// The request may say which account it is about, which the path says.
fn check_metadata(call: Call<'_>, metadata: &ObjectMeta) -> Result<(), ApiError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&metadata.namespace).is_some_and(|namespace| namespace != call.target.namespace) {
        let problem =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(problem));
    }
    match given(&metadata.name).filter(|name| *name != call.target.name) {
        None => Ok(()),
        Some(name) => {
            let problem = "must match the service account name if specified";
            let error = FieldError::invalid("metadata.name", name, problem);
            Err(ApiError::invalid(TokenRequest::ROW, &call.target.name, &[error]))
        }
    }
}

/// A conflict about an object that upstream calls by its kind here.
fn conflict(group: &str, kind: &str, name: &str, problem: &str) -> ApiError {
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let text = format!("Operation cannot be fulfilled on {qualified} {name:?}: {problem}");
    let mut error = ApiError::new(409, "Conflict", text);
    let details = error.status_mut().details.get_or_insert_default();
    details.group = Some(group.to_owned()).filter(|group| !group.is_empty());
    details.kind = Some(kind.to_owned());
    details.name = Some(name.to_owned());
    error
}

fn check_seconds(call: Call<'_>, seconds: i64) -> Result<(), ApiError> {
    let problem = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, problem);
    Err(ApiError::invalid(TokenRequest::ROW, &call.target.name, &[error]))
}

fn bound(version: &Version) -> BoundObject {
    BoundObject { name: version.name.to_string(), uid: version.uid.to_string() }
}

async fn bind(
    call: Call<'_>,
    reference: &BoundObjectReference,
    account: &Version,
    claims: &mut Claims,
) -> Result<(), ApiError> {
    let name = reference.name.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or_default();
    let api_version = reference.api_version.as_deref().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let row: &KindRow = match (group, kind) {
        ("", "Pod") => Pod::ROW,
        ("", "Secret") => Secret::ROW,
        ("", "Node") => Node::ROW,
        _ => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let key = crate::request::object_key(row, &account.namespace, name);
    let version = call.core.find(row, &key).await?.ok_or_else(|| ApiError::not_found(row, name))?;
    if let Some(uid) = reference.uid.as_deref().filter(|uid| !uid.is_empty())
        && *uid != *version.uid
    {
        let problem = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(conflict("", kind, name, &problem));
    }
    match kind {
        "Pod" => {
            let own = scan::at_path(&version.json, "spec.serviceAccountName").map(scan::scalar);
            if own.as_deref() != Some(&*account.name) {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.target.name
                )));
            }
            claims.kubernetes.pod = Some(bound(&version));
            let node = version.field(Pod::ROW, "spec.nodeName");
            if let Some(node) = call.core.find(Node::ROW, node).await?.filter(|_| !node.is_empty())
            {
                claims.kubernetes.node = Some(bound(&node));
            }
        }
        "Secret" => claims.kubernetes.secret = Some(bound(&version)),
        _ => claims.kubernetes.node = Some(bound(&version)),
    }
    Ok(())
}
