//! The plugins in the order in which a request passes them, which is upstream's
//! (`k8s.io/kubernetes/pkg/kubeapiserver/options/plugins.go`). A new one is a row.

use api::{Kind, KindRow};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, ClusterTrustBundle};
use k8s_openapi::api::core::v1::{
    Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::plugin::{ALL_KINDS, ALL_SUBRESOURCES, ITSELF, Mutation, Plugin, Validation};
use super::webhooks::Operation::{self, Connect, Create, Delete, Update};
use super::{
    always, certificates, claim_resize, defaults, event_rate, external_ips, images, lifecycle,
    limits, namespaces, node, node_selector, owners, pod_resize, pod_security, priority, quota,
    runtime_class, service_account, toleration_restriction, topology,
};

const CREATES: &[Operation] = &[Create];
const UPDATES: &[Operation] = &[Update];
const WRITES: &[Operation] = &[Create, Update];
const CHANGES: &[Operation] = &[Create, Update, Delete];
const ALL: &[Operation] = &[Create, Update, Delete, Connect];

const PODS: &[&KindRow] = &[Pod::ROW];
const CLAIMS: &[&KindRow] = &[PersistentVolumeClaim::ROW];
const REQUESTS: &[&KindRow] = &[CertificateSigningRequest::ROW];
/// What a LimitRange is about. Of an update only a resize changes what a pod uses.
const LIMITED: &[&KindRow] = &[Pod::ROW, PersistentVolumeClaim::ROW];
const RESIZE: &[&str] = &["resize"];
const ITSELF_AND_RESIZE: &[&str] = &["", "resize"];
const ITSELF_AND_EPHEMERAL: &[&str] = &["", "ephemeralcontainers"];

pub static PLUGINS: &[Plugin] = &[
    // Admits everything.
    Plugin::off("AlwaysAdmit"),
    Plugin::off("NamespaceAutoProvision")
        .handles(CREATES, ALL_KINDS, ALL_SUBRESOURCES)
        .mutates(Mutation::Decide(|attributes, _| Box::pin(namespaces::provide(attributes)))),
    Plugin::on(lifecycle::NAME).handles(CHANGES, ALL_KINDS, ALL_SUBRESOURCES).mutates(
        Mutation::Decide(|attributes, object| Box::pin(lifecycle::check(attributes, object))),
    ),
    Plugin::off("NamespaceExists")
        .handles(CHANGES, ALL_KINDS, ALL_SUBRESOURCES)
        .validates(Validation::Decide(|attributes, _| Box::pin(namespaces::require(attributes)))),
    Plugin::off("LimitPodHardAntiAffinityTopology")
        .handles(WRITES, PODS, ITSELF)
        .validates(Validation::Check(topology::check_anti_affinity)),
    Plugin::on("LimitRanger")
        .handles(WRITES, LIMITED, ITSELF_AND_RESIZE)
        .mutates(Mutation::Change(limits::complete))
        .validates(Validation::Check(limits::check)),
    Plugin::on("ServiceAccount")
        .handles(WRITES, PODS, ITSELF_AND_EPHEMERAL)
        .mutates(Mutation::Complete(|attributes, object| {
            Box::pin(service_account::complete(attributes, object))
        }))
        .validates(Validation::Decide(|attributes, object| {
            Box::pin(service_account::check(attributes, object))
        })),
    Plugin::on("NodeRestriction")
        .handles(CHANGES, ALL_KINDS, ALL_SUBRESOURCES)
        .mutates(Mutation::Decide(|attributes, object| Box::pin(node::check(attributes, object)))),
    Plugin::on("TaintNodesByCondition")
        .handles(CREATES, &[Node::ROW], ITSELF)
        .mutates(Mutation::Change(defaults::taint)),
    Plugin::off("AlwaysPullImages")
        .handles(WRITES, PODS, ITSELF)
        .mutates(Mutation::Change(images::always_pull))
        .validates(Validation::Check(images::check)),
    Plugin::off("ImagePolicyWebhook").missing(
        "it is not supported by this server; a validating webhook or policy can judge images",
    ),
    Plugin::on("PodSecurity").handles(WRITES, ALL_KINDS, ALL_SUBRESOURCES).validates(
        Validation::Call(|attributes, view, admitted| {
            Box::pin(pod_security::check(attributes, view, admitted))
        }),
    ),
    Plugin::off("PodNodeSelector")
        .handles(CREATES, PODS, ITSELF)
        .mutates(Mutation::Complete(|attributes, object| {
            Box::pin(node_selector::complete(attributes, object))
        }))
        .validates(Validation::Decide(|attributes, object| {
            Box::pin(node_selector::check(attributes, object))
        })),
    Plugin::on("Priority")
        .handles(WRITES, &[Pod::ROW, PriorityClass::ROW], ITSELF)
        .mutates(Mutation::Complete(|attributes, object| {
            Box::pin(priority::complete(attributes, object))
        }))
        .validates(Validation::Check(priority::check_class)),
    Plugin::on("DefaultTolerationSeconds")
        .handles(WRITES, PODS, ITSELF)
        .mutates(Mutation::Change(defaults::tolerations)),
    Plugin::off("PodTolerationRestriction")
        .handles(WRITES, PODS, ITSELF)
        .mutates(Mutation::Complete(|attributes, object| {
            Box::pin(toleration_restriction::complete(attributes, object))
        }))
        .validates(Validation::Decide(|attributes, object| {
            Box::pin(toleration_restriction::check(attributes, object))
        })),
    Plugin::off("EventRateLimit")
        .handles(WRITES, &[Event::ROW], ALL_SUBRESOURCES)
        .validates(Validation::Check(event_rate::check)),
    Plugin::off("ExtendedResourceToleration")
        .handles(WRITES, PODS, ITSELF)
        .mutates(Mutation::Change(toleration_restriction::of_extended_resources)),
    Plugin::on("DefaultStorageClass")
        .handles(CREATES, CLAIMS, ITSELF)
        .mutates(Mutation::Change(defaults::storage_class)),
    Plugin::on("StorageObjectInUseProtection")
        .handles(CREATES, &[PersistentVolumeClaim::ROW, PersistentVolume::ROW], ITSELF)
        .mutates(Mutation::Change(defaults::protection)),
    // PodGroups are not served.
    Plugin::on("PodGroupProtection"),
    Plugin::off("OwnerReferencesPermissionEnforcement")
        .handles(WRITES, ALL_KINDS, ALL_SUBRESOURCES)
        .validates(Validation::Decide(|attributes, object| {
            Box::pin(owners::check(attributes, object))
        })),
    Plugin::on("PersistentVolumeClaimResize").handles(UPDATES, CLAIMS, ITSELF).validates(
        Validation::Decide(|attributes, object| Box::pin(claim_resize::check(attributes, object))),
    ),
    Plugin::on("RuntimeClass").handles(CREATES, PODS, ITSELF).mutates(Mutation::Complete(
        |attributes, object| Box::pin(runtime_class::complete(attributes, object)),
    )),
    Plugin::on("CertificateApproval").handles(UPDATES, REQUESTS, &["approval"]).validates(
        Validation::Decide(|attributes, object| {
            Box::pin(certificates::approve(attributes, object))
        }),
    ),
    Plugin::on("CertificateSigning").handles(UPDATES, REQUESTS, &["status"]).validates(
        Validation::Decide(|attributes, object| Box::pin(certificates::sign(attributes, object))),
    ),
    Plugin::on("ClusterTrustBundleAttest")
        .handles(WRITES, &[ClusterTrustBundle::ROW], ITSELF)
        .validates(Validation::Decide(|attributes, object| {
            Box::pin(certificates::attest(attributes, object))
        })),
    Plugin::on("CertificateSubjectRestriction")
        .handles(CREATES, REQUESTS, ITSELF)
        .validates(Validation::Check(certificates::check_subject)),
    Plugin::on("DefaultIngressClass")
        .handles(CREATES, &[Ingress::ROW], ITSELF)
        .mutates(Mutation::Change(defaults::ingress_class)),
    Plugin::off("DenyServiceExternalIPs")
        .handles(WRITES, &[Service::ROW], ITSELF)
        .validates(Validation::Check(external_ips::check)),
    Plugin::on("PodTopologyLabels").handles(CREATES, PODS, &["", "binding"]).mutates(
        Mutation::Complete(|attributes, object| Box::pin(topology::label(attributes, object))),
    ),
    // Neither Workloads nor PodGroups are served.
    Plugin::on("PodGroupWorkloadExists"),
    // Nodes declare no features.
    Plugin::on("NodeDeclaredFeatureValidator"),
    // Workloads are not served.
    Plugin::on("JobValidation"),
    Plugin::on("PodResizeValidator").handles(UPDATES, PODS, RESIZE).validates(Validation::Decide(
        |attributes, object| Box::pin(pod_resize::check(attributes, object)),
    )),
    // A deletion has nothing to change.
    Plugin::on("MutatingAdmissionPolicy")
        .handles(&[Create, Update, Connect], ALL_KINDS, ALL_SUBRESOURCES)
        .mutates(Mutation::Call(|attributes, subject, rounds| {
            let webhooks = &attributes.call.core.admission.webhooks;
            Box::pin(webhooks.change_by_policies(attributes, subject, rounds))
        })),
    Plugin::on("MutatingAdmissionWebhook").handles(ALL, ALL_KINDS, ALL_SUBRESOURCES).mutates(
        Mutation::Call(|attributes, subject, rounds| {
            let webhooks = &attributes.call.core.admission.webhooks;
            Box::pin(webhooks.mutate(attributes, subject, rounds))
        }),
    ),
    Plugin::on("ValidatingAdmissionPolicy").handles(ALL, ALL_KINDS, ALL_SUBRESOURCES).validates(
        Validation::Call(|attributes, view, _| {
            Box::pin(attributes.call.core.admission.webhooks.judge(attributes, view))
        }),
    ),
    Plugin::on("ValidatingAdmissionWebhook").handles(ALL, ALL_KINDS, ALL_SUBRESOURCES).validates(
        Validation::Call(|attributes, view, _| {
            Box::pin(attributes.call.core.admission.webhooks.validate(attributes, view))
        }),
    ),
    Plugin::on("ResourceQuota").handles(WRITES, ALL_KINDS, ITSELF_AND_RESIZE).validates(
        Validation::Call(|attributes, view, admitted| {
            Box::pin(quota::check(attributes, view, admitted))
        }),
    ),
    Plugin::off("AlwaysDeny")
        .handles(ALL, ALL_KINDS, ALL_SUBRESOURCES)
        .mutates(Mutation::Decide(|attributes, object| Box::pin(always::deny(attributes, object))))
        .validates(Validation::Decide(|attributes, object| {
            Box::pin(always::deny(attributes, object))
        })),
];
