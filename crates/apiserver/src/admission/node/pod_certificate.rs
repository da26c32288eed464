//! Requests for certificates of pods: a kubelet asks for those of its own pods, in their names, and
//! at the signers that they name.

use std::sync::Arc;

use api::pod::is_mirror;
use api::{ApiError, Kind, KindRow};
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};

use crate::authz::Attributes;
use crate::cache::Version;
use crate::core::Call;

/// Checks a request that a kubelet creates.
///
/// # Errors
/// 403; 500 for what may be right for somebody who has seen more than this server.
pub async fn check(
    call: Call<'_>,
    own: &str,
    request: &PodCertificateRequest,
) -> Result<(), ApiError> {
    let (spec, namespace) = (&request.spec, &call.target.namespace);
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let refuse = |message: String| Err(ApiError::forbidden(call.row(), name, message));
    if spec.node_name != own {
        return refuse(format!(
            "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {own:?}",
            spec.node_name
        ));
    }
    let node = named(call, Node::ROW, "node", "", own).await?;
    let about = format!("{namespace}/{}", spec.pod_name);
    if *node.uid != *spec.node_uid {
        return Err(later(format!(
            "PodCertificateRequest for pod {about:?} names node UID {:?}, inconsistent with the running node ({:?})",
            spec.node_uid, &*node.uid
        )));
    }
    let stored = named(call, Pod::ROW, "pod", namespace, &spec.pod_name).await?;
    if *stored.uid != *spec.pod_uid {
        return Err(later(format!(
            "PodCertificateRequest for pod {about:?} contains pod UID ({:?}) which differs from running pod {:?}",
            spec.pod_uid, &*stored.uid
        )));
    }
    let pod = Pod::decode(&stored.json).map_err(ApiError::internal)?;
    if let Err(problem) = belongs(spec, &pod, &about) {
        return refuse(problem);
    }
    let account = &spec.service_account_name;
    let account = named(call, ServiceAccount::ROW, "service account", namespace, account).await?;
    if *account.uid != *spec.service_account_uid {
        return Err(later(format!(
            "PodCertificateRequest for pod {about:?} names service account UID {:?}, which differs from the running service account ({:?})",
            spec.service_account_uid, &*account.uid
        )));
    }
    if mounts(&pod, &spec.signer_name) || may_ask(call, spec).await {
        return Ok(());
    }
    refuse(format!(
        "signer name {:?} not found in pod spec volume, {} is not authorized to request certificates from this signer",
        spec.signer_name, call.user.name
    ))
}

/// What this server may not have seen yet: the kubelet tries again.
fn later(message: String) -> ApiError {
    ApiError::new(500, "", message)
}

async fn named(
    call: Call<'_>,
    row: &'static KindRow,
    what: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<Version>, ApiError> {
    let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    call.core.find(row, &key).await?.ok_or_else(|| {
        let missing = ApiError::not_found(row, name);
        later(format!(
            "while retrieving {what} {key:?} named in the PodCertificateRequest: {}",
            missing.message()
        ))
    })
}

/// # Errors
/// Why the request is not one for the pod.
fn belongs(spec: &PodCertificateRequestSpec, pod: &Pod, about: &str) -> Result<(), String> {
    if api::pod::node_name(pod) != Some(&*spec.node_name) {
        return Err(format!(
            "pod {about:?} is not running on node {:?} named in the PodCertificateRequest",
            spec.node_name
        ));
    }
    if is_mirror(pod) {
        return Err(format!("pod {about:?} is a mirror pod"));
    }
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.unwrap_or_default();
    if account != spec.service_account_name {
        return Err(format!(
            "PodCertificateRequest for pod {about:?} contains serviceAccountName ({:?}) that differs from running pod ({account:?})",
            spec.service_account_name
        ));
    }
    Ok(())
}

/// Whether a volume of the pod has a certificate of the signer.
fn mounts(pod: &Pod, signer: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.pod_certificate.as_ref())
        .any(|certificate| certificate.signer_name == signer)
}

/// Whether an administrator has granted the node this signer for the account.
async fn may_ask(call: Call<'_>, spec: &PodCertificateRequestSpec) -> bool {
    let attributes = Attributes::Resource {
        verb: "request-serviceaccounts-podcertificate-signer".to_owned(),
        group: PodCertificateRequest::ROW.group.to_string(),
        resource: spec.signer_name.replace('/', ":"),
        subresource: String::new(),
        namespace: call.target.namespace.clone(),
        name: spec.service_account_name.clone(),
    };
    call.core.authorizers.allows(call.core, call.user, &attributes).await
}
