//! Who may call.

use http::Extensions;
use rpc::tls::{CertificateIdentity, certificate_identity};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

/// The group that may do everything.
const MASTERS: &str = "system:masters";
/// The apiserver.
const APISERVER: &str = "kube-apiserver-kubelet-client";

/// The identity in the certificate that a client showed, if it showed one; TLS has verified it.
pub(super) fn certificate(extensions: &Extensions) -> Option<CertificateIdentity> {
    let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certificates = connection.peer_certs()?;
    certificate_identity(certificates.first()?)
}

/// True for the apiserver and administrators, who may do everything here.
pub(super) fn is_trusted(identity: &CertificateIdentity) -> bool {
    identity.name == APISERVER || identity.groups.iter().any(|group| group == MASTERS)
}

/// Lets those whom this kubelet trusts call its service.
#[allow(clippy::result_large_err)]
pub(super) fn check(request: Request<()>) -> Result<Request<()>, Status> {
    match certificate(request.extensions()) {
        None => Err(Status::unauthenticated("a client certificate is needed")),
        Some(identity) if is_trusted(&identity) => Ok(request),
        Some(identity) => {
            Err(Status::permission_denied(format!("{} may not use the kubelet", identity.name)))
        }
    }
}
