//! The ConfigMap `kube-system/extension-apiserver-authentication`: how extension servers authenticate
//! those who call them, and this server as a proxy of others. Upstream keeps it in
//! `pkg/controlplane/controller/clusterauthenticationtrust`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Kind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;

use super::create_or_complete;
use crate::aggregation::RequestHeaders;
use crate::cache::{Filter, Follower};
use crate::core::Core;
use crate::server::{CurrentTls, Tls};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const CLIENT_CA: &str = "client-ca-file";
const PROXY_CA: &str = "requestheader-client-ca-file";
/// For how long a certificate stays after it has expired, in seconds.
const EXPIRED_SECONDS: i64 = 300;
/// How long a failed write, or a broken watch, waits for the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// Whom this server trusts.
#[derive(Clone, Copy)]
pub struct Trust<'a> {
    pub client_ca_pem: &'a [u8],
    /// The authority of front proxies, and the headers that they may send.
    pub proxies: Option<&'a (Vec<u8>, RequestHeaders)>,
}

/// Creates the ConfigMap, or adds what it lacks, and does so again when somebody changes it or an
/// authority is replaced, until `shutdown`.
///
/// # Errors
/// When the store fails at start.
pub async fn keep(
    core: &Arc<Core>,
    mut tls: CurrentTls,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let mut now = wanted(&tls.borrow_and_update().clone());
    restore(core, &now).await?;
    let core = core.clone();
    let keeping = async move {
        let mut changes = Follower::new(&core, [Filter::one(ConfigMap::ROW, NAMESPACE, NAME)]);
        let mut later = None;
        loop {
            tokio::select! {
                () = changes.next(later) => {}
                changed = tls.changed() => match changed {
                    Ok(()) => now = wanted(&tls.borrow_and_update().clone()),
                    Err(_) => return,
                },
            }
            let restored = restore(&core, &now).await.inspect_err(|error| {
                tracing::debug!(%error, "cannot keep how extension servers authenticate");
            });
            later = restored.is_err().then_some(RETRY);
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(keeping).await });
    Ok(())
}

fn wanted(tls: &Tls) -> ConfigMap {
    let trust = Trust { client_ca_pem: &tls.pem.client_ca_pem, proxies: tls.proxies.as_ref() };
    let mut wanted = ConfigMap { data: Some(data(&trust)), ..ConfigMap::default() };
    wanted.metadata.name = Some(NAME.to_owned());
    wanted.metadata.namespace = Some(NAMESPACE.to_owned());
    wanted
}

async fn restore(core: &Core, wanted: &ConfigMap) -> Result<(), ApiError> {
    let now = core.clock.now();
    create_or_complete(core, wanted, |there, wanted| complete(there, wanted, now)).await
}

fn data(trust: &Trust<'_>) -> BTreeMap<String, String> {
    let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
    let mut data = BTreeMap::from([(CLIENT_CA.to_owned(), text(trust.client_ca_pem))]);
    let Some((authority, headers)) = trust.proxies else {
        return data;
    };
    data.insert(PROXY_CA.to_owned(), text(authority));
    for (key, names) in [
        ("requestheader-allowed-names", &headers.allowed_names),
        ("requestheader-username-headers", &headers.username),
        ("requestheader-uid-headers", &headers.uid),
        ("requestheader-group-headers", &headers.group),
        ("requestheader-extra-headers-prefix", &headers.extra_prefixes),
    ] {
        data.insert(key.to_owned(), serde_json::json!(names).to_string());
    }
    data
}

/// Adds what is missing: another apiserver may trust another authority. Of those that are there,
/// the ones that have expired go.
fn complete(there: &mut ConfigMap, wanted: &ConfigMap, now: Timestamp) {
    let there = there.data.get_or_insert_default();
    for (key, value) in wanted.data.iter().flatten() {
        let present = there.entry(key.clone()).or_default();
        *present = match key.as_str() {
            CLIENT_CA | PROXY_CA => authorities(present, value, now),
            _ => names(present, value),
        };
    }
}

/// The certificates of both texts, each once.
fn authorities(present: &str, own: &str, now: Timestamp) -> String {
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    for text in [present, own] {
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()).flatten() {
            let identity = rpc::tls::validity(&certificate);
            let lasts = identity
                .is_some_and(|(_, until)| until > now.as_second().saturating_sub(EXPIRED_SECONDS));
            if lasts && !all.contains(&certificate) {
                all.push(certificate);
            }
        }
    }
    all.iter().map(|certificate| pem(certificate)).collect()
}

fn pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = BASE64.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        writeln!(pem, "{line}").expect("writing to a text does not fail");
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// The names of both lists, each once.
fn names(present: &str, own: &str) -> String {
    let list = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_default();
    let mut all = list(present);
    for name in list(own) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    serde_json::json!(all).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(until: i32) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn lines(pem: &str) -> String {
        pem.replace('\r', "")
    }

    #[test]
    fn authorities_and_names_are_added_once() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let headers = RequestHeaders {
            allowed_names: vec!["front-proxy-client".to_owned()],
            username: vec!["X-Remote-User".to_owned()],
            ..RequestHeaders::default()
        };
        let (one, two, old) = (authority(2090), authority(2090), authority(2025));
        let map = |client: &str, proxies: Option<&(Vec<u8>, RequestHeaders)>| {
            let trust = Trust { client_ca_pem: client.as_bytes(), proxies };
            ConfigMap { data: Some(data(&trust)), ..ConfigMap::default() }
        };
        let mut there = map(&format!("{old}{one}"), None);
        assert_eq!(there.data.as_ref().unwrap().len(), 1, "there are no proxies");
        let proxies = (two.clone().into_bytes(), headers);
        let wanted = map(&two, Some(&proxies));
        for _ in 0..2 {
            complete(&mut there, &wanted, now);
            let data = there.data.as_ref().unwrap();
            assert_eq!(data[CLIENT_CA], lines(&format!("{one}{two}")));
            assert_eq!(data[PROXY_CA], lines(&two));
            assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
            assert_eq!(data["requestheader-username-headers"], r#"["X-Remote-User"]"#);
            assert_eq!(data["requestheader-uid-headers"], "[]");
        }
        let data = there.data.as_mut().unwrap();
        data.insert("requestheader-allowed-names".to_owned(), r#"["other"]"#.to_owned());
        data.insert(CLIENT_CA.to_owned(), "nonsense".to_owned());
        complete(&mut there, &wanted, now);
        let data = there.data.as_ref().unwrap();
        assert_eq!(data["requestheader-allowed-names"], r#"["other","front-proxy-client"]"#);
        assert_eq!(data[CLIENT_CA], lines(&two));
    }
}
