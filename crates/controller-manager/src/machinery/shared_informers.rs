//! The informers that the controllers share, one for each kind: what its objects are found by, and
//! what is not kept of them.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;

use api::certificates::APISERVER_SERVING_SIGNER;
use api::{Kind, bootstrap_token};
use client::{Client, InformerOptions};

use crate::machinery::index::{self, By};
pub use crate::machinery::index::{of_service, on_node};
use crate::machinery::informer::{Informer, Synced};

/// The ConfigMap in every namespace that holds the cluster's CA bundle.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// The ConfigMap in `kube-public` that says where the cluster is.
pub const CLUSTER_INFO: &str = "cluster-info";

/// A kind with a shared informer.
pub trait Shared: Kind {
    fn informer(all: &SharedInformers) -> &Informer<Self>;
}

macro_rules! informers {
    ($($field:ident: $kind:ty, $index:expr, $strip:expr;)*) => {
        /// All shared informers.
        pub struct SharedInformers {
            $(pub $field: Informer<$kind>,)*
        }

        impl Default for SharedInformers {
            fn default() -> Self {
                let mut all = Self { $($field: Informer::new($index, $strip),)* };
                all.bootstrap_tokens = all.bootstrap_tokens.selecting(bootstrap_tokens());
                all.serving_trust_bundles =
                    all.serving_trust_bundles.selecting(serving_trust_bundles());
                all
            }
        }

        impl SharedInformers {
            /// The futures that keep the caches up to date which controllers use.
            pub fn start(&self, client: &Client) -> Vec<Synced> {
                [$(self.$field.start(client),)*].into_iter().flatten().collect()
            }
        }

        $(impl Shared for $kind {
            fn informer(all: &SharedInformers) -> &Informer<Self> {
                &all.$field
            }
        })*
    };
}

informers! {
    namespaces: Namespace, none, keep;
    nodes: Node, none, strip_node;
    leases: Lease, none, keep;
    pods: Pod, index::of_pod, strip_pod;
    services: Service, none, keep;
    endpoints: Endpoints, none, keep;
    endpoint_slices: EndpointSlice, index::of_slice, keep;
    service_accounts: ServiceAccount, none, keep;
    config_maps: ConfigMap, none, strip_config_map;
    replica_sets: ReplicaSet, index::by_owner, keep;
    deployments: Deployment, none, keep;
    replication_controllers: ReplicationController, none, keep;
    stateful_sets: StatefulSet, none, keep;
    daemon_sets: DaemonSet, none, keep;
    controller_revisions: ControllerRevision, index::by_owner, keep;
    jobs: Job, index::by_owner, keep;
    cron_jobs: CronJob, none, keep;
    horizontal_pod_autoscalers: HorizontalPodAutoscaler, none, keep;
    pod_disruption_budgets: PodDisruptionBudget, none, keep;
    resource_quotas: ResourceQuota, none, keep;
    persistent_volumes: PersistentVolume, index::of_volume, keep;
    persistent_volume_claims: PersistentVolumeClaim, index::of_claim, keep;
    storage_classes: StorageClass, none, keep;
    bootstrap_tokens: Secret, none, keep;
    validating_admission_policies: ValidatingAdmissionPolicy, none, keep;
    service_cidrs: ServiceCIDR, none, keep;
    ip_addresses: IPAddress, none, keep;
    resource_claims: ResourceClaim, index::of_device_claim, keep;
    resource_claim_templates: ResourceClaimTemplate, none, keep;
    storage_version_migrations: StorageVersionMigration, none, keep;
    cluster_roles: ClusterRole, none, keep;
    certificate_signing_requests: CertificateSigningRequest, none, keep;
    pod_certificate_requests: PodCertificateRequest, none, strip_pod_certificate_request;
    serving_trust_bundles: ClusterTrustBundle, none, keep;
}

/// The only Secrets that controllers read.
fn bootstrap_tokens() -> InformerOptions {
    InformerOptions {
        namespace: bootstrap_token::NAMESPACE.to_owned(),
        field_selector: format!("type={}", bootstrap_token::SECRET_TYPE),
        ..InformerOptions::default()
    }
}

/// The only ClusterTrustBundles that controllers read.
fn serving_trust_bundles() -> InformerOptions {
    InformerOptions {
        field_selector: format!("spec.signerName={APISERVER_SERVING_SIGNER}"),
        ..InformerOptions::default()
    }
}

fn none<K>(_: &Arc<K>, _: &mut Vec<By>) {}

fn keep<K>(_: &mut K) {}

/// Removes how the containers are run, which no controller reads.
fn strip_pod(pod: &mut Pod) {
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let Some(spec) = &mut pod.spec else { return };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.env = None;
        container.env_from = None;
        container.args = None;
        container.command = None;
        container.volume_mounts = None;
        container.lifecycle = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
        container.security_context = None;
    }
}

/// Requests for pods' certificates are only removed.
fn strip_pod_certificate_request(request: &mut PodCertificateRequest) {
    request.spec = Default::default();
    request.status = None;
}

fn strip_node(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

/// Controllers read no ConfigMap but the cluster's CA bundle and what new nodes learn first.
fn strip_config_map(map: &mut ConfigMap) {
    let name = map.metadata.name.as_deref();
    if !matches!(name, Some(ROOT_CA_CONFIG_MAP | CLUSTER_INFO)) {
        map.data = None;
        map.binary_data = None;
        map.metadata.annotations = None;
        map.metadata.labels = None;
    }
}
