//! The ConfigMaps, Secrets, ClusterTrustBundles and requests for certificates that the node's pods
//! refer to, each watched for as long as some pod does. Of the first two, one watch per object, by
//! name, because that is all a node may read.
//!
//! Entry point: [`Objects`]. A pod's first use of an object registers it; a change notifies the
//! pod's worker.

mod list;
mod watched;

use std::sync::Arc;

use client::Client;
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::pod::worker::handle::WorkerHandle;
use list::WatchedList;
use watched::Watched;

/// See the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    config_maps: Arc<Watched<ConfigMap>>,
    secrets: Arc<Watched<Secret>>,
    trust_bundles: Arc<WatchedList<ClusterTrustBundle>>,
    certificate_requests: Arc<WatchedList<PodCertificateRequest>>,
}

impl Objects {
    /// `client` should have a connection of its own: the watches are many and long-lived.
    pub fn new(client: &Client, node_name: &str) -> Self {
        let own = format!("spec.nodeName={node_name}");
        Self {
            config_maps: Arc::new(Watched::new(client)),
            secrets: Arc::new(Watched::new(client)),
            trust_bundles: Arc::new(WatchedList::new(client, String::new())),
            certificate_requests: Arc::new(WatchedList::new(client, own)),
        }
    }

    /// The ConfigMap, or `None` when there is none. From now on its changes notify the worker.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Option<Arc<ConfigMap>>, client::Error> {
        self.config_maps.get(namespace, name, worker).await
    }

    /// The Secret, or `None` when there is none. From now on its changes notify the worker.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Option<Arc<Secret>>, client::Error> {
        self.secrets.get(namespace, name, worker).await
    }

    /// Every ClusterTrustBundle. From now on changes of any notify the worker.
    pub async fn trust_bundles(
        &self,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Vec<Arc<ClusterTrustBundle>>, client::Error> {
        self.trust_bundles.all(worker).await
    }

    /// Every request for a certificate of a pod of the node. From now on changes of any notify the
    /// worker.
    pub async fn certificate_requests(
        &self,
        worker: &Arc<WorkerHandle>,
    ) -> Result<Vec<Arc<PodCertificateRequest>>, client::Error> {
        self.certificate_requests.all(worker).await
    }

    /// The pod no longer refers to any object.
    pub fn release(&self, worker: &Arc<WorkerHandle>) {
        self.config_maps.release(worker);
        self.secrets.release(worker);
        self.trust_bundles.release(worker);
        self.certificate_requests.release(worker);
    }
}
