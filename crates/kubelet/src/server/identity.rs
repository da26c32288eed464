//! Who may call.

use tonic::{Request, Status};

/// The group that may do everything.
const MASTERS: &str = "system:masters";
/// The apiserver.
const APISERVER: &str = "kube-apiserver-kubelet-client";

/// Lets the apiserver and administrators in.
#[allow(clippy::result_large_err)]
pub(super) fn check(request: Request<()>) -> Result<Request<()>, Status> {
    let certificates = request.peer_certs();
    let identity = certificates
        .as_deref()
        .and_then(|certificates| certificates.first())
        .and_then(|certificate| rpc::tls::certificate_identity(certificate));
    match identity {
        None => Err(Status::unauthenticated("a client certificate is needed")),
        Some(identity)
            if identity.name == APISERVER
                || identity.groups.iter().any(|group| group == MASTERS) =>
        {
            Ok(request)
        }
        Some(identity) => Err(Status::permission_denied(format!(
            "{} may not use the kubelet",
            identity.name
        ))),
    }
}
