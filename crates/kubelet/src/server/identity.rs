//! Authentication and authorization of gRPC callers.

use http::Extensions;
use jiff::Timestamp;
use rpc::tls::{CertificateIdentity, certificate_identity};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

/// The group of administrators.
const MASTERS: &str = "system:masters";
/// The user name of the apiserver.
const APISERVER: &str = "kube-apiserver-kubelet-client";

/// The identity in the client's certificate, if it presented one that is still valid. TLS has
/// verified it when the connection was made.
pub(super) fn certificate(extensions: &Extensions, now: Timestamp) -> Option<CertificateIdentity> {
    let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certificates = connection.peer_certs()?;
    let identity = certificate_identity(certificates.first()?).ok()?;
    identity.is_valid_at(now.as_second()).then_some(identity)
}

/// Whether it is the apiserver or an administrator, who may do everything here.
pub(super) fn is_trusted(identity: &CertificateIdentity) -> bool {
    identity.name == APISERVER || identity.groups.iter().any(|group| group == MASTERS)
}

/// Admits callers that may use this service.
#[allow(clippy::result_large_err)]
pub(super) fn check(request: Request<()>, now: Timestamp) -> Result<Request<()>, Status> {
    match certificate(request.extensions(), now) {
        None => Err(Status::unauthenticated("a valid client certificate is required")),
        Some(identity) if is_trusted(&identity) => Ok(request),
        Some(identity) => {
            Err(Status::permission_denied(format!("{} may not use the kubelet", identity.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use clock::{Clock, ManualClock};
    use http::request::Parts;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use tokio::net::TcpListener;
    use tonic::service::Routes;
    use tonic::transport::Server;

    use super::*;

    const LIFE: Duration = Duration::from_secs(3600);

    /// A connection that was made with a valid certificate, after the certificate has expired.
    #[tokio::test]
    async fn a_connection_does_not_outlive_its_certificate() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let ca = Issuer::new(params, key);
        let issue = |name: &str| {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_after = (std::time::SystemTime::UNIX_EPOCH
                + Duration::from_secs(clock::now().as_second() as u64)
                + LIFE)
                .into();
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
        };
        let (certificate_pem, key_pem) = issue("kubelet");
        let pair =
            rpc::tls::KeyPair { certificate_pem: certificate_pem.into(), key_pem: key_pem.into() };
        let client_ca_pem = ca_pem.clone().into_bytes();
        let pem = rpc::incoming::ServerPem { pair, client_ca_pem };
        let pem = tokio::sync::watch::channel(Arc::new(pem)).1;
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let incoming = rpc::incoming::incoming(listener, pem).unwrap();
        let time = Arc::new(ManualClock::at(clock::now()));
        let answering = time.clone();
        let router = Router::new().fallback(move |request: Parts| {
            let found = certificate(&request.extensions, answering.now());
            async move { found.map_or_else(|| "nobody".to_owned(), |identity| identity.name) }
        });
        let server = Server::builder().accept_http1(true).add_routes(Routes::from(router));
        tokio::spawn(server.serve_with_incoming(incoming));

        let (own_pem, own_key) = issue(APISERVER);
        let client = reqwest::Client::builder()
            .identity(reqwest::Identity::from_pem((own_pem + &own_key).as_bytes()).unwrap())
            .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap()])
            .build()
            .unwrap();
        let ask = || async { client.get(&url).send().await.unwrap().text().await.unwrap() };
        assert_eq!(ask().await, APISERVER);
        time.advance(LIFE + Duration::from_secs(1));
        assert_eq!(ask().await, "nobody");
    }
}
