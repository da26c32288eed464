//! One request for a certificate: sent, and waited for.

use std::net::IpAddr;
use std::time::Duration;

use api::certificates::{
    CLIENT_AUTH, DENIED, DIGITAL_SIGNATURE, FAILED, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER,
    REQUEST_LABEL, SERVER_AUTH, has_condition, issued, kubelet,
};
use client::{Api, Client, mirror};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use rpc::tls::KeyPair;

/// How long a certificate is waited for: somebody may have to approve it.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const NODES: &str = "system:nodes";

/// What a certificate is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub node: String,
    /// The names of a serving certificate; `None`: a client certificate.
    pub serving: Option<IpAddr>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("cannot make a request")]
    Make(#[from] rcgen::Error),
    #[error("cannot send the request")]
    Send(#[from] client::Error),
    #[error("the request {0} was denied")]
    Denied(String),
    #[error("the signer cannot issue what {0} asks for")]
    Failed(String),
    #[error("the request {0} was not answered in time")]
    Late(String),
    #[error("what was issued for {0} does not belong to the key")]
    Foreign(String),
}

/// A request for a key. `name`: empty for a generated one.
fn request(
    wanted: &Wanted,
    key: &rcgen::KeyPair,
    name: &str,
) -> Result<CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES);
    let user = format!("{}{}", kubelet::USER_PREFIX, wanted.node);
    params.distinguished_name.push(DnType::CommonName, user);
    let (signer, purpose) = match wanted.serving {
        None => (KUBELET_CLIENT_SIGNER, CLIENT_AUTH),
        Some(address) => {
            let name = wanted.node.as_str().try_into()?;
            params.subject_alt_names = vec![SanType::DnsName(name), SanType::IpAddress(address)];
            (KUBELET_SERVING_SIGNER, SERVER_AUTH)
        }
    };
    let pem = api::pem::encode(REQUEST_LABEL, params.serialize_request(key)?.der());
    let mut request = CertificateSigningRequest::default();
    if name.is_empty() {
        request.metadata.generate_name = Some("csr-".to_owned());
    } else {
        request.metadata.name = Some(name.to_owned());
    }
    request.spec.request = ByteString(pem.into_bytes());
    request.spec.signer_name = signer.to_owned();
    // No key encipherment: that is for RSA.
    request.spec.usages = Some(vec![DIGITAL_SIGNATURE.to_owned(), purpose.to_owned()]);
    Ok(request)
}

/// Asks for a certificate and waits until it is issued. A request of this name that is there already
/// is the same one.
///
/// # Errors
/// When it is not issued.
pub async fn obtain(
    client: &Client,
    wanted: &Wanted,
    key: &rcgen::KeyPair,
    name: &str,
) -> Result<KeyPair, RequestError> {
    let requests = Api::<CertificateSigningRequest>::all(client);
    let name = match requests.create(&request(wanted, key, name)?).await {
        Ok(created) => created.metadata.name.unwrap_or_default(),
        Err(error) if error.is_already_exists() && !name.is_empty() => name.to_owned(),
        Err(error) => return Err(error.into()),
    };
    tracing::info!(name, ?wanted, "asked for a certificate");
    let answered = tokio::time::timeout(PATIENCE, answer(client, &name)).await;
    let certificate = answered.map_err(|_| RequestError::Late(name.clone()))??;
    let pair = KeyPair { certificate_pem: certificate, key_pem: key.serialize_pem().into_bytes() };
    pair.check().map_err(|_| RequestError::Foreign(name))?;
    Ok(pair)
}

async fn answer(client: &Client, name: &str) -> Result<Vec<u8>, RequestError> {
    let mut states = mirror::object::<CertificateSigningRequest>(client, "", name);
    // `None`: it has been deleted.
    while let Some(Some(request)) = states.next().await {
        if let Some(certificate) = issued(&request) {
            return Ok(certificate.to_vec());
        }
        if has_condition(&request, DENIED) {
            return Err(RequestError::Denied(name.to_owned()));
        }
        if has_condition(&request, FAILED) {
            return Err(RequestError::Failed(name.to_owned()));
        }
    }
    Err(RequestError::Late(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_signers_sign() {
        let key = rcgen::KeyPair::generate().unwrap();
        let of = |serving: Option<IpAddr>| {
            let wanted = Wanted { node: "a".to_owned(), serving };
            let request = request(&wanted, &key, "").unwrap();
            let parsed = api::certificates::parse(&request.spec.request.0).unwrap();
            let usages = request.spec.usages.unwrap();
            kubelet::check(&request.spec.signer_name, &parsed, &usages).unwrap();
            parsed
        };
        assert_eq!(of(None).common_name, "system:node:a");
        let serving = of(Some([10, 0, 0, 1].into()));
        assert_eq!(serving.dns_names, ["a"]);
        assert_eq!(serving.ip_addresses, [IpAddr::from([10, 0, 0, 1])]);
    }
}
