//! Authentication and authorization of gRPC callers.

use http::Extensions;
use rpc::tls::{CertificateIdentity, certificate_identity};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

/// The group of administrators.
const MASTERS: &str = "system:masters";
/// The user name of the apiserver.
const APISERVER: &str = "kube-apiserver-kubelet-client";

/// The identity in the client's certificate, if it presented one; TLS has verified it.
pub(super) fn certificate(extensions: &Extensions) -> Option<CertificateIdentity> {
    let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certificates = connection.peer_certs()?;
    certificate_identity(certificates.first()?)
}

/// Whether it is the apiserver or an administrator, who may do everything here.
pub(super) fn is_trusted(identity: &CertificateIdentity) -> bool {
    identity.name == APISERVER || identity.groups.iter().any(|group| group == MASTERS)
}

/// Admits callers that may use this service.
#[allow(clippy::result_large_err)]
pub(super) fn check(request: Request<()>) -> Result<Request<()>, Status> {
    match certificate(request.extensions()) {
        None => Err(Status::unauthenticated("a client certificate is required")),
        Some(identity) if is_trusted(&identity) => Ok(request),
        Some(identity) => {
            Err(Status::permission_denied(format!("{} may not use the kubelet", identity.name)))
        }
    }
}
