//! The kind table: one row per kind, and the trait that ties a type to its row and codec.
//!
//! Adding a kind takes a line in `kinds!`. What a kind does beyond being stored (defaults,
//! validation, columns) is in the apiserver's strategy for it.

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};

use crate::custom::{Custom, CustomObject};
use crate::object::{Codec, Object};
use crate::schema::{self, TypeRow};

/// Whether objects of a kind are in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A text of a row: of the binary for built-in kinds, owned for custom ones.
pub type Text = Cow<'static, str>;

/// A list of texts of a row.
pub type Texts = Cow<'static, [Text]>;

/// Everything about a kind that does not depend on its Rust type.
#[derive(Debug)]
pub struct KindRow {
    /// `""` for the core group.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    /// Lower-case plural: the resource's name in paths.
    pub plural: Text,
    pub singular: Text,
    pub scope: Scope,
    pub short_names: Texts,
    pub categories: Texts,
    /// Names of subresources, without the resource's own: `["status", "scale"]`.
    pub subresources: Texts,
    /// JSON paths that field selectors support, besides `metadata.name` and `metadata.namespace`.
    pub selectable: Texts,
    /// False for kinds that are never stored: reviews and the like.
    pub stored: bool,
    /// Another form of a stored kind: it has every verb, but no objects of its own.
    pub form: bool,
    /// Its objects are computed when somebody asks for them: they can be read, and nothing else.
    pub computed: bool,
    /// What only a kind has that a CustomResourceDefinition defines.
    pub custom: Option<Box<Custom>>,
}

/// A kind that a request or an object refers to: built-in, or defined while the server runs.
/// Resolved once, then cloned.
#[derive(Clone)]
pub enum KindRef {
    BuiltIn(&'static KindRow),
    Custom(Arc<KindRow>),
}

impl KindRef {
    /// Whether both are one definition of the kind, not two that followed one another.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq::<KindRow>(&**self, &**other)
    }
}

impl Deref for KindRef {
    type Target = KindRow;

    fn deref(&self) -> &KindRow {
        match self {
            Self::BuiltIn(row) => row,
            Self::Custom(row) => row,
        }
    }
}

impl From<&'static KindRow> for KindRef {
    fn from(row: &'static KindRow) -> Self {
        Self::BuiltIn(row)
    }
}

impl Debug for KindRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

impl PartialEq for KindRef {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for KindRef {}

impl From<&Self> for KindRef {
    fn from(kind: &Self) -> Self {
        kind.clone()
    }
}

impl PartialEq<&KindRow> for KindRef {
    fn eq(&self, other: &&KindRow) -> bool {
        **self == **other
    }
}

impl fmt::Display for KindRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl PartialEq<KindRow> for KindRef {
    fn eq(&self, other: &KindRow) -> bool {
        **self == *other
    }
}

impl KindRow {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`: how Kubernetes names a resource in messages.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Pod` or `Deployment.apps`: how Kubernetes names a kind in messages.
    pub(crate) fn qualified_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_string()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Whether objects of the kind can be read, changed and watched.
    pub fn has_objects(&self) -> bool {
        self.stored || self.form
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Kind name of a list of this kind.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind.clone(),
            None => format!("{}List", self.kind),
        }
    }

    /// The definition of a built-in kind in the schema table.
    pub fn schema(&self) -> Option<&'static TypeRow> {
        schema::kind(&self.group, &self.version, &self.kind)
    }

    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|known| known == name)
    }
}

impl PartialEq for KindRow {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.kind == other.kind && self.group == other.group && self.version == other.version
    }
}

impl Eq for KindRow {}

impl fmt::Display for KindRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified_resource())
    }
}

/// Why bytes are not an object of the expected kind.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {kind}")]
pub struct DecodeError {
    pub kind: String,
    #[source]
    pub source: serde_json::Error,
}

/// A `k8s-openapi` type with its row and codec.
pub trait Kind:
    Resource
    + Metadata<Ty = ObjectMeta>
    + serde::Serialize
    + Clone
    + Debug
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
{
    const ROW: &'static KindRow;

    /// Decodes JSON; unknown fields are ignored.
    fn decode(json: &[u8]) -> Result<Self, DecodeError>;

    /// Encodes as JSON, `apiVersion` and `kind` first.
    fn encode(&self) -> Vec<u8>;
}

/// Declares kinds: `impl Kind`, and the two tables [`KINDS`] and [`CODECS`] in the same order.
macro_rules! kinds {
    ($( $ty:ty {
        $scope:ident $singular:literal
        $(short [$($short:literal),*];)? $(categories [$($category:literal),*];)?
        $(subresources [$($subresource:literal),*];)? $(selectable [$($selectable:literal),*];)? $(stored $stored:literal;)? $(form $form:literal;)? $(computed $computed:literal;)?
    } )*) => {
        $(
            impl Kind for $ty {
                const ROW: &'static KindRow = &KindRow {
                    group: Cow::Borrowed(<$ty as Resource>::GROUP),
                    version: Cow::Borrowed(<$ty as Resource>::VERSION),
                    kind: Cow::Borrowed(<$ty as Resource>::KIND),
                    plural: Cow::Borrowed(<$ty as Resource>::URL_PATH_SEGMENT),
                    singular: Cow::Borrowed($singular),
                    scope: Scope::$scope,
                    short_names: kinds!(@texts $($($short),*)?),
                    categories: kinds!(@texts $($($category),*)?),
                    subresources: kinds!(@texts $($($subresource),*)?),
                    selectable: kinds!(@texts $($($selectable),*)?),
                    stored: kinds!(@or $($stored)?; true),
                    form: kinds!(@or $($form)?; false),
                    computed: kinds!(@or $($computed)?; false),
                    custom: None,
                };

                fn decode(json: &[u8]) -> Result<Self, DecodeError> {
                    serde_json::from_slice(json).map_err(|source| DecodeError { kind: Self::KIND.to_owned(), source })
                }

                fn encode(&self) -> Vec<u8> {
                    serde_json::to_vec(self).expect("Kubernetes types always serialize to JSON")
                }
            }
        )*

        /// Every built-in kind.
        pub static KINDS: &[&KindRow] = &[$(<$ty as Kind>::ROW),*];

        /// The codecs of [`KINDS`], in the same order. Separate from the rows, so that a binary
        /// that only looks rows up does not link every kind's codec.
        pub(crate) static CODECS: &[Codec] = &[$(Codec::of::<$ty>()),*];
    };
    (@texts $($text:literal),*) => {{
        const TEXTS: &[Text] = &[$(Cow::Borrowed($text)),*];
        Cow::Borrowed(TEXTS)
    }};
    (@or $value:expr; $default:expr) => { $value };
    (@or ; $default:expr) => { $default };
}

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling,
    autoscaling::v2 as autoscaling_v2, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource,
    scheduling::v1 as scheduling, storage::v1 as storage, storagemigration::v1 as storagemigration,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

kinds! {
    core::Namespace { Cluster "namespace" short ["ns"]; subresources ["status", "finalize"]; selectable ["status.phase"]; }
    core::Node { Cluster "node" short ["no"]; subresources ["status", "proxy"]; selectable ["spec.unschedulable"]; }
    core::Pod { Namespaced "pod" short ["po"]; categories ["all"];
        subresources ["status", "log", "exec", "attach", "portforward", "proxy", "binding", "eviction", "ephemeralcontainers", "resize"];
        selectable ["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
            "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"]; }
    core::ConfigMap { Namespaced "configmap" short ["cm"]; }
    core::Secret { Namespaced "secret" selectable ["type"]; }
    core::ServiceAccount { Namespaced "serviceaccount" short ["sa"]; subresources ["token"]; }
    core::Service { Namespaced "service" short ["svc"]; categories ["all"]; subresources ["status", "proxy"];
        selectable ["spec.clusterIP", "spec.type"]; }
    core::Endpoints { Namespaced "endpoints" short ["ep"]; }
    core::Event { Namespaced "event" short ["ev"];
        selectable ["involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
            "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
            "reportingComponent", "source", "type"]; }
    core::ReplicationController { Namespaced "replicationcontroller" short ["rc"]; categories ["all"];
        subresources ["status", "scale"]; selectable ["status.replicas"]; }
    core::PersistentVolume { Cluster "persistentvolume" short ["pv"]; subresources ["status"]; }
    core::PersistentVolumeClaim { Namespaced "persistentvolumeclaim" short ["pvc"]; subresources ["status"]; }
    core::ResourceQuota { Namespaced "resourcequota" short ["quota"]; subresources ["status"]; }
    core::LimitRange { Namespaced "limitrange" short ["limits"]; }
    core::PodTemplate { Namespaced "podtemplate" }
    core::Binding { Namespaced "binding" stored false; }
    core::ComponentStatus { Cluster "componentstatus" short ["cs"]; stored false; computed true; }
    apps::Deployment { Namespaced "deployment" short ["deploy"]; categories ["all"]; subresources ["status", "scale"]; }
    apps::ReplicaSet { Namespaced "replicaset" short ["rs"]; categories ["all"]; subresources ["status", "scale"];
        selectable ["status.replicas"]; }
    apps::StatefulSet { Namespaced "statefulset" short ["sts"]; categories ["all"]; subresources ["status", "scale"]; }
    apps::DaemonSet { Namespaced "daemonset" short ["ds"]; categories ["all"]; subresources ["status"]; }
    apps::ControllerRevision { Namespaced "controllerrevision" }
    autoscaling_v2::HorizontalPodAutoscaler { Namespaced "horizontalpodautoscaler" short ["hpa"]; categories ["all"]; subresources ["status"]; }
    autoscaling::HorizontalPodAutoscaler { Namespaced "horizontalpodautoscaler" short ["hpa"]; categories ["all"]; subresources ["status"];
        stored false; form true; }
    batch::Job { Namespaced "job" categories ["all"]; subresources ["status"]; selectable ["status.successful"]; }
    batch::CronJob { Namespaced "cronjob" short ["cj"]; categories ["all"]; subresources ["status"]; }
    certificates::CertificateSigningRequest { Cluster "certificatesigningrequest" short ["csr"]; subresources ["status", "approval"];
        selectable ["spec.signerName"]; }
    certificates::ClusterTrustBundle { Cluster "clustertrustbundle" selectable ["spec.signerName"]; }
    certificates::PodCertificateRequest { Namespaced "podcertificaterequest" subresources ["status"];
        selectable ["spec.signerName", "spec.podName", "spec.nodeName"]; }
    coordination::Lease { Namespaced "lease" }
    discovery::EndpointSlice { Namespaced "endpointslice" }
    events::Event { Namespaced "event" short ["ev"];
        selectable ["regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "regarding.apiVersion",
            "regarding.resourceVersion", "regarding.fieldPath", "reason", "reportingController", "type"];
        stored false; form true; }
    networking::Ingress { Namespaced "ingress" short ["ing"]; subresources ["status"]; }
    networking::IngressClass { Cluster "ingressclass" }
    networking::IPAddress { Cluster "ipaddress" short ["ip"]; }
    networking::ServiceCIDR { Cluster "servicecidr" subresources ["status"]; }
    networking::NetworkPolicy { Namespaced "networkpolicy" short ["netpol"]; }
    policy::PodDisruptionBudget { Namespaced "poddisruptionbudget" short ["pdb"]; subresources ["status"]; }
    rbac::Role { Namespaced "role" }
    rbac::RoleBinding { Namespaced "rolebinding" }
    rbac::ClusterRole { Cluster "clusterrole" }
    rbac::ClusterRoleBinding { Cluster "clusterrolebinding" }
    resource::DeviceClass { Cluster "deviceclass" }
    resource::DeviceTaintRule { Cluster "devicetaintrule" subresources ["status"]; }
    resource::ResourceClaim { Namespaced "resourceclaim" subresources ["status"]; }
    resource::ResourceClaimTemplate { Namespaced "resourceclaimtemplate" }
    resource::ResourceSlice { Cluster "resourceslice" selectable ["spec.nodeName", "spec.driver"]; }
    storagemigration::StorageVersionMigration { Cluster "storageversionmigration" subresources ["status"]; }
    scheduling::PriorityClass { Cluster "priorityclass" short ["pc"]; }
    storage::StorageClass { Cluster "storageclass" short ["sc"]; }
    storage::CSIDriver { Cluster "csidriver" }
    storage::CSINode { Cluster "csinode" }
    storage::CSIStorageCapacity { Namespaced "csistoragecapacity" }
    storage::VolumeAttachment { Cluster "volumeattachment" subresources ["status"]; }
    storage::VolumeAttributesClass { Cluster "volumeattributesclass" short ["vac"]; }
    admission::MutatingWebhookConfiguration { Cluster "mutatingwebhookconfiguration" categories ["api-extensions"]; }
    admission::ValidatingWebhookConfiguration { Cluster "validatingwebhookconfiguration" categories ["api-extensions"]; }
    admission::MutatingAdmissionPolicy { Cluster "mutatingadmissionpolicy" categories ["api-extensions"]; }
    admission::MutatingAdmissionPolicyBinding { Cluster "mutatingadmissionpolicybinding" categories ["api-extensions"]; }
    admission::ValidatingAdmissionPolicy { Cluster "validatingadmissionpolicy" categories ["api-extensions"]; subresources ["status"]; }
    admission::ValidatingAdmissionPolicyBinding { Cluster "validatingadmissionpolicybinding" categories ["api-extensions"]; }
    node::RuntimeClass { Cluster "runtimeclass" }
    flowcontrol::FlowSchema { Cluster "flowschema" subresources ["status"]; }
    flowcontrol::PriorityLevelConfiguration { Cluster "prioritylevelconfiguration" subresources ["status"]; }
    apiextensions::CustomResourceDefinition { Cluster "customresourcedefinition" short ["crd", "crds"];
        categories ["api-extensions"]; subresources ["status"]; }
    apiregistration::APIService { Cluster "apiservice" categories ["api-extensions"]; subresources ["status"]; }
    authentication::TokenReview { Cluster "tokenreview" stored false; }
    authentication::SelfSubjectReview { Cluster "selfsubjectreview" stored false; }
    authorization::SubjectAccessReview { Cluster "subjectaccessreview" stored false; }
    authorization::SelfSubjectAccessReview { Cluster "selfsubjectaccessreview" stored false; }
    authorization::SelfSubjectRulesReview { Cluster "selfsubjectrulesreview" stored false; }
    authorization::LocalSubjectAccessReview { Namespaced "localsubjectaccessreview" stored false; }
}

/// Types of subresources: they have a codec but no resource of their own.
macro_rules! subresource_kinds {
    ($($ty:ty => $singular:literal),* $(,)?) => { $(
        impl Kind for $ty {
            const ROW: &'static KindRow = &KindRow {
                group: Cow::Borrowed(<$ty as Resource>::GROUP),
                version: Cow::Borrowed(<$ty as Resource>::VERSION),
                kind: Cow::Borrowed(<$ty as Resource>::KIND),
                plural: Cow::Borrowed(""),
                singular: Cow::Borrowed($singular),
                scope: Scope::Namespaced,
                short_names: Cow::Borrowed(&[]),
                categories: Cow::Borrowed(&[]),
                subresources: Cow::Borrowed(&[]),
                selectable: Cow::Borrowed(&[]),
                stored: false,
                form: false,
                computed: false,
                custom: None,
            };

            fn decode(json: &[u8]) -> Result<Self, DecodeError> {
                serde_json::from_slice(json).map_err(|source| DecodeError { kind: Self::KIND.to_owned(), source })
            }

            fn encode(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("Kubernetes types always serialize to JSON")
            }
        }
    )* };
}

subresource_kinds! {
    autoscaling::Scale => "scale",
    policy::Eviction => "eviction",
    authentication::TokenRequest => "tokenrequest",
}

/// The row of a resource by its path segments.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static KindRow> {
    KINDS
        .iter()
        .copied()
        .find(|row| row.plural == plural && row.group == group && row.version == version)
}

/// The row of a kind by `apiVersion` (`v1`, `apps/v1`) and kind.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static KindRow> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    KINDS
        .iter()
        .copied()
        .find(|row| row.kind == kind && row.group == group && row.version == version)
}

/// Decodes JSON as an object of a kind; unknown fields are ignored, as in what the store holds.
///
/// # Errors
/// When the JSON does not fit the kind.
pub fn decode(kind: &KindRef, json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
    if let KindRef::Custom(_) = kind {
        return Ok(Box::new(CustomObject::decode(kind.clone(), json)?));
    }
    let index = KINDS.iter().position(|row| **row == **kind);
    let codec = index.map(|index| &CODECS[index]).expect("every built-in kind has a codec");
    codec.decode(json)
}
