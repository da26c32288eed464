//! Creates keys and certificates.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::cluster::pki::{Certificate, Usage};

/// Certificates are valid from this long before they are issued, since clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate authority: its certificate, and its key to sign with.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, and its key in PEM.
    pub fn create(
        common_name: &str,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<(Self, String), rcgen::Error> {
        let mut params = dated(CertificateParams::default(), now, lifetime);
        params.distinguished_name = subject(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok((Self { pem, issuer: Issuer::new(params, key) }, key_pem))
    }

    /// Loads an authority from its certificate and key, in PEM.
    pub fn load(pem: String, key: &str) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(key)?)?;
        Ok(Self { pem, issuer })
    }

    /// The authority's certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and its new key, in PEM.
    pub fn issue(
        &self,
        wanted: &Certificate,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<(String, String), rcgen::Error> {
        let mut params = dated(CertificateParams::new(wanted.names.clone())?, now, lifetime);
        params.distinguished_name = subject(&wanted.common_name, wanted.organization.as_deref());
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match wanted.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            // etcd's gateway dials its own server with the server's certificate.
            Usage::Server => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// A key pair for signing tokens (ES256): private in PKCS #8, public in SPKI, both in PEM.
pub fn key_pair() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn dated(mut params: CertificateParams, now: SystemTime, lifetime: Duration) -> CertificateParams {
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime).into();
    params
}
