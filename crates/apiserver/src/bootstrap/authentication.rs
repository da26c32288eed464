//! The ConfigMap `kube-system/extension-apiserver-authentication`: how extension servers authenticate
//! those who call them. Upstream keeps it in `pkg/controlplane/controller/clusterauthenticationtrust`.
//!
//! There is no aggregator that calls them on behalf of others, hence no certificate authority of
//! such a proxy (`requestheader-client-ca-file`), without which its headers prove nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::ApiError;
use k8s_openapi::api::core::v1::ConfigMap;

use tokio_util::sync::CancellationToken;

use super::create_or_complete;
use crate::core::Core;
use crate::server::CurrentTls;

const CLIENT_CA: &str = "client-ca-file";
/// Lists as JSON.
const HEADERS: &[(&str, &str)] = &[
    ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
    ("requestheader-username-headers", r#"["X-Remote-User"]"#),
    ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
    ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
    ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
];

/// Writes the ConfigMap, and again when the authority is replaced.
///
/// # Errors
/// When the store fails the first time.
pub async fn keep(
    core: &Arc<Core>,
    mut tls: CurrentTls,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let authority = |tls: &mut CurrentTls| tls.borrow_and_update().pem.client_ca_pem.clone();
    let first = authority(&mut tls);
    reconcile(core, &first).await?;
    let core = core.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = tls.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
            let now = authority(&mut tls);
            if let Err(error) = reconcile(&core, &now).await {
                tracing::warn!(%error, "cannot write how extension servers authenticate");
            }
        }
    });
    Ok(())
}

/// Creates the ConfigMap, or adds what it lacks: another apiserver may trust another authority.
///
/// # Errors
/// When the store fails.
async fn reconcile(core: &Core, client_ca_pem: &[u8]) -> Result<(), ApiError> {
    let authority = String::from_utf8_lossy(client_ca_pem).into_owned();
    let mut wanted = ConfigMap { data: Some(data(authority)), ..ConfigMap::default() };
    wanted.metadata.name = Some("extension-apiserver-authentication".to_owned());
    wanted.metadata.namespace = Some("kube-system".to_owned());
    create_or_complete(core, &wanted, complete).await
}

fn data(authority: String) -> BTreeMap<String, String> {
    let headers = HEADERS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    headers.chain([(CLIENT_CA.to_owned(), authority)]).collect()
}

fn complete(there: &mut ConfigMap, wanted: &ConfigMap) {
    let there = there.data.get_or_insert_default();
    for (key, value) in wanted.data.iter().flatten() {
        let present = there.entry(key.clone()).or_insert_with(|| value.clone());
        if key == CLIENT_CA && !present.contains(value.trim()) {
            *present = format!("{}\n{value}", present.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_added_once() {
        let map = |authority: &str| {
            let data = Some(data(authority.to_owned()));
            ConfigMap { data, ..ConfigMap::default() }
        };
        let mut there = map("one\n");
        complete(&mut there, &map("two\n"));
        complete(&mut there, &map("two\n"));
        complete(&mut there, &map("one\n"));
        assert_eq!(there, map("one\ntwo\n"));
        there.data.as_mut().unwrap().remove("requestheader-group-headers");
        complete(&mut there, &map("one\n"));
        assert_eq!(there, map("one\ntwo\n"));
    }
}
