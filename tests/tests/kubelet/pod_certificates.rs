//! Certificates in pods' volumes, with a signer as others write them.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use client::{Api, Event as Change, InformerOptions, informer};
use futures::StreamExt;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestStatus};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair,
};
use testkit::suite::Fixture;
use testkit::wait;
use tests::pods;

use super::{create, exec, id};

const ISSUER: &str = "example.com/issuer";
const DENIER: &str = "example.com/denier";

/// What becomes of a request: its certificate names the pod.
fn answer(
    request: &PodCertificateRequest,
    issuer: &Issuer<'static, KeyPair>,
    authority: &str,
) -> anyhow::Result<PodCertificateRequestStatus> {
    let condition = |type_: &str, reason: &str| Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: "by the test".to_owned(),
        last_transition_time: Time(clock::now()),
        observed_generation: None,
    };
    if request.spec.signer_name == DENIER {
        let conditions = Some(vec![condition("Denied", "UnsupportedKeyType")]);
        return Ok(PodCertificateRequestStatus { conditions, ..Default::default() });
    }
    let der = request.spec.stub_pkc_s10_request.0.clone();
    let mut asked = CertificateSigningRequestParams::from_der(&der.into())?;
    asked.params.distinguished_name.push(DnType::CommonName, request.spec.pod_name.as_str());
    let start = seconds_from_now(-60)?;
    let end = start + Duration::from_secs(3_600);
    (asked.params.not_before, asked.params.not_after) = (start.into(), end.into());
    let leaf = asked.signed_by(issuer)?.pem();
    let time = |at: SystemTime| -> anyhow::Result<Option<Time>> {
        let seconds = i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
        Ok(Some(Time(k8s_openapi::jiff::Timestamp::from_second(seconds)?)))
    };
    Ok(PodCertificateRequestStatus {
        conditions: Some(vec![condition("Issued", "Issued")]),
        certificate_chain: Some(format!("{leaf}{authority}")),
        not_before: time(start)?,
        not_after: time(end)?,
        begin_refresh_at: time(start + Duration::from_secs(1_800))?,
    })
}

/// So many seconds from now, in whole seconds.
fn seconds_from_now(offset: i64) -> anyhow::Result<SystemTime> {
    let seconds = u64::try_from(clock::now().as_second() + offset)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Answers the requests of a namespace, as a controller.
async fn sign(
    fixture: &Fixture,
    issuer: &Issuer<'static, KeyPair>,
    authority: &str,
) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    let requests: Api<PodCertificateRequest> = Api::namespaced(client, &fixture.namespace);
    let options =
        InformerOptions { namespace: fixture.namespace.clone(), ..InformerOptions::default() };
    let mut changes = pin!(informer::<PodCertificateRequest>(client.clone(), options));
    while let Some(change) = changes.next().await {
        let (Change::InitApply(mut request) | Change::Apply(mut request)) = change else {
            continue;
        };
        if api::certificates::pod::outcome(&request).is_none() {
            request.status = Some(answer(&request, issuer, authority)?);
            requests.replace_status(&request).await?;
        }
    }
    anyhow::bail!("the watch has ended")
}

fn pod(name: &str, signer: &str, key_type: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    securityContext: {{runAsUser: 1000}}
    volumeMounts: [{{name: identity, mountPath: /identity}}]
  volumes:
  - name: identity
    projected:
      sources:
      - podCertificate:
          signerName: {signer}
          keyType: {key_type}
          maxExpirationSeconds: 3600
          credentialBundlePath: bundle.pem
          keyPath: parts/key.pem
          certificateChainPath: parts/chain.pem
          userAnnotations: {{example.com/for: test}}
"#
    )
}

pub async fn a_pod_has_a_certificate_that_is_renewed(fixture: &Fixture) -> anyhow::Result<()> {
    let requests: Api<PodCertificateRequest> =
        Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    tokio::select! {
        tested = certified(fixture, &requests) => tested,
        signed = sign(fixture, &issuer, &authority) => signed,
    }
}

async fn certified(fixture: &Fixture, requests: &Api<PodCertificateRequest>) -> anyhow::Result<()> {
    for (name, key_type) in [("rsa", "RSA3072"), ("curve", "ECDSAP384")] {
        create(fixture, &pod(name, ISSUER, key_type)).await?;
    }
    for name in ["rsa", "curve"] {
        pods::ready(fixture, name).await?;
    }
    let before = pods::ready(fixture, "curve").await?;
    for name in ["rsa", "curve"] {
        let [bundle, key, chain] = files(fixture, name)?;
        ensure!(bundle == format!("{key}{chain}"), "{bundle}");
        let blocks: Vec<_> = api::pem::blocks(bundle.as_bytes()).collect();
        let labels: Vec<_> = blocks.iter().map(|block| block.label.as_str()).collect();
        ensure!(labels == ["PRIVATE KEY", "CERTIFICATE", "CERTIFICATE"], "{labels:?}");
        let pair =
            rpc::tls::KeyPair { certificate_pem: chain.into_bytes(), key_pem: key.into_bytes() };
        pair.check().context("the certificate is that of the key")?;
        let access = exec(fixture, name, "main", "stat -L -c '%u %a' /identity/bundle.pem")?;
        ensure!(access == "1000 600", "{access}");
    }
    let all = requests.list(&Default::default()).await?.items;
    ensure!(all.len() == 2, "one request for each pod: {all:?}");
    for request in &all {
        let annotations = request.spec.unverified_user_annotations.clone().unwrap_or_default();
        ensure!(annotations["example.com/for"] == "test", "{request:?}");
        ensure!(request.spec.max_expiration_seconds == Some(3_600), "{request:?}");
    }
    // What a kubelet had is not kept: the next one asks again, and the pod goes on.
    let old = files(fixture, "curve")?;
    kill(Pid::from_raw(fixture.cluster.pid("kubelet-node-1")?), Signal::SIGKILL)?;
    wait::eventually("the pod has another certificate", async || {
        let new = files(fixture, "curve")?;
        ensure!(new[1] != old[1] && new[2] != old[2], "still the same");
        Ok(())
    })
    .await?;
    let pods: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let after = pods.get("curve").await?;
    ensure!(id(&before, "main") == id(&after, "main"), "it was restarted");
    // A signer that does not want to.
    create(fixture, &pod("refused", DENIER, "ED25519")).await?;
    let events: Api<Event> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    wait::eventually("the pod says why it does not start", async || {
        let all = events.list(&Default::default()).await?.items;
        let of_pod =
            all.iter().filter(|one| one.involved_object.name.as_deref() == Some("refused"));
        let texts: Vec<(String, String)> = of_pod
            .map(|one| (one.reason.clone(), one.message.clone()))
            .map(|(reason, message)| (reason.unwrap_or_default(), message.unwrap_or_default()))
            .collect();
        for (reason, part) in [
            ("Denied", "was denied, reason=\"UnsupportedKeyType\", message=\"by the test\""),
            (
                "FailedMount",
                "PodCertificateRequest was permanently denied: reason=\"UnsupportedKeyType\"",
            ),
        ] {
            let said = texts.iter().any(|one| one.0 == reason && one.1.contains(part));
            ensure!(said, "{reason}: {texts:?}");
        }
        Ok(())
    })
    .await
}

/// Bundle, key and chain.
fn files(fixture: &Fixture, pod: &str) -> anyhow::Result<[String; 3]> {
    let read = |path: &str| -> anyhow::Result<String> {
        Ok(exec(fixture, pod, "main", &format!("cat /identity/{path}"))? + "\n")
    };
    Ok([read("bundle.pem")?, read("parts/key.pem")?, read("parts/chain.pem")?])
}
