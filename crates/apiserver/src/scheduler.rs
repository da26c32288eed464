//! Questions to the scheduler that leads. Its address is an annotation of its Lease, so that every
//! apiserver finds it; the certificate proves that it is the scheduler.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Kind};
use k8s_openapi::api::coordination::v1::Lease;
use rpc::scheduler_v1::scheduler_client::SchedulerClient;
use rpc::scheduler_v1::{ExplainRequest, ExplainResponse};
use rpc::tls::Dial;
use tonic::transport::Channel;

use crate::core::Core;
use crate::kubelet::{CurrentTls, KubeletTls};

/// The Lease of the scheduler, by its key.
const LEASE: &str = "kube-system/kube-scheduler";
/// Annotation: `host:port` of the leader's server.
const ADDRESS: &str = "skiff.dev/address";
/// The name that the scheduler's certificate is valid for.
const SERVER_NAME: &str = "kube-scheduler";
/// How long an unused channel is kept.
const IDLE: Duration = Duration::from_secs(300);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to schedulers, as the same client as to kubelets.
pub struct Schedulers {
    tls: CurrentTls,
    channels: moka::sync::Cache<String, (Arc<KubeletTls>, Channel)>,
}

impl Schedulers {
    pub fn new(tls: CurrentTls) -> Self {
        Self { tls, channels: moka::sync::Cache::builder().time_to_idle(IDLE).build() }
    }

    fn client(&self, address: &str) -> Result<SchedulerClient<Channel>, ApiError> {
        let tls = self.tls.borrow().clone();
        let (Some(ca_pem), Some(key_pair)) = (&tls.ca_pem, &tls.key_pair) else {
            return Err(ApiError::service_unavailable(
                "the apiserver has no certificate for the scheduler (--kubelet-client-certificate)",
            ));
        };
        let channel = match self.channels.get(address) {
            Some((made_with, channel)) if Arc::ptr_eq(&made_with, &tls) => channel,
            _ => {
                let channel = rpc::tls::channel(&Dial {
                    url: format!("https://{address}"),
                    ca_pem: Some(ca_pem.clone()),
                    key_pair: Some(key_pair.clone()),
                    server_name: Some(SERVER_NAME.to_owned()),
                })
                .map_err(ApiError::internal)?;
                self.channels.insert(address.to_owned(), (tls.clone(), channel.clone()));
                channel
            }
        };
        Ok(SchedulerClient::new(channel).max_decoding_message_size(rpc::MAX_MESSAGE_BYTES))
    }
}

/// What the scheduler knows about the pod with this uid.
///
/// # Errors
/// 503 when there is no scheduler that can be asked.
pub async fn explain(core: &Core, uid: &str) -> Result<ExplainResponse, ApiError> {
    let address = address(core).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "no scheduler can be asked: the Lease {LEASE} has no annotation {ADDRESS}"
        ))
    })?;
    let mut client = core.schedulers.client(&address)?;
    let asked = client.explain(ExplainRequest { uid: uid.to_owned() });
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(ApiError::service_unavailable(format!(
            "the scheduler at {address} cannot be asked: {}",
            status.message()
        ))),
        Err(_) => Err(ApiError::service_unavailable(format!(
            "the scheduler at {address} did not answer in time"
        ))),
    }
}

fn address(core: &Core) -> Option<String> {
    let version = core.cache.resource(Lease::ROW).get(LEASE)?;
    let lease = Lease::decode(&version.json).ok()?;
    lease.metadata.annotations?.remove(ADDRESS).filter(|address| !address.is_empty())
}
