//! The apiserver's metrics, under Kubernetes' names and in Prometheus' text format, and the step of
//! the pipeline that counts requests.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::kind::Text;
use clock::monotonic;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::Service;

use crate::admission::AdmissionMetrics;
use crate::admission::pod_security::policy::{LevelVersion, Mode};
use crate::aggregation::{AggregatorMetrics, Delegated};
use crate::audit::AuditMetrics;
use crate::authz::AuthorizationMetrics;
use crate::core::{Call, Core};
use crate::encryption::EncryptionMetrics;
use crate::flowcontrol::FlowControlMetrics;
use crate::inflight::is_read;
use crate::request::{PatchType, Request, Subject, Verb};
use crate::request_info::RequestInfo;
use crate::response::Response;

/// Upper bounds of the durations' buckets in seconds, as upstream.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// The labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    component: &'static str,
    dry_run: &'static str,
    group: Text,
    resource: Text,
    scope: &'static str,
    subresource: Text,
    verb: &'static str,
    version: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
    #[prometheus(flatten)]
    request: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Inflight {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    resource: String,
}

/// The labels of what Pod Security admission decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PodSecurityLabels {
    request_operation: &'static str,
    /// `pod` or `controller`
    resource: &'static str,
    subresource: Text,
}

impl PodSecurityLabels {
    pub fn new(call: Call<'_>, resource: &'static str) -> Self {
        let mut known = call.row().subresources.iter();
        let known = known.find(|name| **name == call.target.subresource);
        let request_operation = if call.verb == Verb::Create { "create" } else { "update" };
        Self { request_operation, resource, subresource: known.cloned().unwrap_or_default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvaluationLabels {
    decision: &'static str,
    mode: &'static str,
    policy_level: &'static str,
    policy_version: String,
    #[prometheus(flatten)]
    request: PodSecurityLabels,
}

/// Counters of Pod Security admission, as upstream's.
#[derive(Default)]
pub struct PodSecurityMetrics {
    evaluations: Family<EvaluationLabels, Counter>,
    exemptions: Family<PodSecurityLabels, Counter>,
    errors: Family<PodSecurityLabels, Counter>,
}

impl PodSecurityMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "pod_security_evaluations",
            "Pods and templates checked against a level, by decision",
            Family::clone(&self.evaluations),
        );
        registry.register(
            "pod_security_exemptions",
            "Pods and templates that are exempt from Pod Security",
            Family::clone(&self.exemptions),
        );
        registry.register(
            "pod_security_errors",
            "Pods and templates in namespaces whose labels are not valid",
            Family::clone(&self.errors),
        );
    }

    pub fn evaluated(
        &self,
        request: &PodSecurityLabels,
        mode: Mode,
        policy: LevelVersion,
        allowed: bool,
    ) {
        let labels = EvaluationLabels {
            decision: if allowed { "allow" } else { "deny" },
            mode: mode.text(),
            policy_level: policy.level.text(),
            policy_version: policy.version.label(),
            request: request.clone(),
        };
        self.evaluations.get_or_create(&labels).inc();
    }

    pub fn exempt(&self, request: &PodSecurityLabels) {
        self.exemptions.get_or_create(request).inc();
    }

    pub fn error(&self, request: &PodSecurityLabels) {
        self.errors.get_or_create(request).inc();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    enforcement_action: String,
    error_type: &'static str,
    policy: String,
    policy_binding: String,
}

/// The labels of a mutation of an admission policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MutationLabels {
    error_type: &'static str,
    policy: String,
    policy_binding: String,
}

/// Upper bounds of the time that a mutation takes in seconds, as upstream.
const MUTATION_BUCKETS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

/// Counts of what admission policies decide and change, as upstream's.
pub struct PolicyMetrics {
    decisions: Family<PolicyLabels, Counter>,
    mutations: Family<MutationLabels, Counter>,
    durations: Family<MutationLabels, Histogram, fn() -> Histogram>,
}

impl Default for PolicyMetrics {
    fn default() -> Self {
        Self {
            decisions: Family::default(),
            mutations: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(MUTATION_BUCKETS)),
        }
    }
}

impl PolicyMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_validating_admission_policy_check",
            "Requests that violate an admission policy, by what is done about it",
            Family::clone(&self.decisions),
        );
        registry.register(
            "apiserver_mutating_admission_policy_check",
            "Mutations of admission policies, by what went wrong",
            Family::clone(&self.mutations),
        );
        registry.register(
            "apiserver_mutating_admission_policy_check_duration_seconds",
            "Time that a mutation of an admission policy took",
            self.durations.clone(),
        );
    }

    /// `action`: `Deny` and the like. `error`: the policy could not be evaluated.
    pub fn decided(&self, policy: &str, binding: &str, action: &str, error: bool) {
        let labels = PolicyLabels {
            enforcement_action: action.to_lowercase(),
            error_type: if error { "invalid_error" } else { "no_error" },
            policy: policy.to_owned(),
            policy_binding: binding.to_owned(),
        };
        self.decisions.get_or_create(&labels).inc();
    }

    pub fn mutated(&self, policy: &str, binding: &str, error_type: &'static str, took: Duration) {
        let (policy, policy_binding) = (policy.to_owned(), binding.to_owned());
        let labels = MutationLabels { error_type, policy, policy_binding };
        self.mutations.get_or_create(&labels).inc();
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// The labels of a call of an admission webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    name: String,
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    error_type: &'static str,
    name: String,
    operation: &'static str,
    rejection_code: u16,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailOpenLabels {
    name: String,
    r#type: &'static str,
}

/// Upper bounds of the buckets of a webhook's durations in seconds, as upstream.
const WEBHOOK_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes above it are counted as it, as upstream: a webhook chooses its code.
const REJECTION_CODE_MAX: u16 = 600;

/// Metrics of admission webhooks, as upstream's. What is called a count there has no suffix, which
/// counters get, so that two of them are gauges that only rise.
pub struct WebhookMetrics {
    durations: Family<WebhookLabels, Histogram, fn() -> Histogram>,
    rejections: Family<RejectionLabels, Gauge>,
    failed_open: Family<FailOpenLabels, Gauge>,
}

impl Default for WebhookMetrics {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(WEBHOOK_BUCKETS)),
            rejections: Family::default(),
            failed_open: Family::default(),
        }
    }
}

impl WebhookMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time that an admission webhook took, by whether it led to a rejection",
            self.durations.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests that were rejected because of an admission webhook",
            Family::clone(&self.rejections),
        );
        registry.register(
            "apiserver_admission_webhook_fail_open_count",
            "Requests that went on although an admission webhook failed",
            Family::clone(&self.failed_open),
        );
    }

    pub fn called(
        &self,
        name: &str,
        r#type: &'static str,
        operation: &'static str,
        rejected: bool,
        took: Duration,
    ) {
        let rejected = if rejected { "true" } else { "false" };
        let labels = WebhookLabels { name: name.to_owned(), operation, rejected, r#type };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub fn rejected(
        &self,
        name: &str,
        r#type: &'static str,
        operation: &'static str,
        error_type: &'static str,
        code: u16,
    ) {
        let (name, rejection_code) = (name.to_owned(), code.min(REJECTION_CODE_MAX));
        let labels = RejectionLabels { error_type, name, operation, rejection_code, r#type };
        self.rejections.get_or_create(&labels).inc();
    }

    pub fn failed_open(&self, name: &str, r#type: &'static str) {
        let labels = FailOpenLabels { name: name.to_owned(), r#type };
        self.failed_open.get_or_create(&labels).inc();
    }
}

/// Counters of the process.
pub struct Metrics {
    pub pod_security: PodSecurityMetrics,
    pub webhooks: WebhookMetrics,
    pub admission: AdmissionMetrics,
    pub policies: PolicyMetrics,
    pub flow_control: FlowControlMetrics,
    pub aggregator: AggregatorMetrics,
    pub audit: AuditMetrics,
    pub encryption: EncryptionMetrics,
    pub authorization: AuthorizationMetrics,
    registry: Registry,
    requests: Family<CodeLabels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    /// Reads and writes.
    inflight: [Gauge; 2],
    objects: Family<ObjectLabels, Gauge>,
    revision: Gauge,
    unreadable: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let inflight: Family<Inflight, Gauge> = Family::default();
        let objects = Family::default();
        let (revision, unreadable) = (Gauge::default(), Gauge::default());
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and the code of the answer",
            Family::clone(&requests),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the answer of requests that are not watches or sessions",
            durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests that are being answered",
            Family::clone(&inflight),
        );
        registry.register(
            "apiserver_storage_objects",
            "Objects by resource",
            Family::clone(&objects),
        );
        registry.register(
            "skiff_apiserver_cache_revision",
            "Revision that the watch cache has reached",
            revision.clone(),
        );
        let pod_security = PodSecurityMetrics::default();
        pod_security.register(&mut registry);
        let webhooks = WebhookMetrics::default();
        webhooks.register(&mut registry);
        let admission = AdmissionMetrics::default();
        admission.register(&mut registry);
        let policies = PolicyMetrics::default();
        policies.register(&mut registry);
        let flow_control = FlowControlMetrics::default();
        flow_control.register(&mut registry);
        let aggregator = AggregatorMetrics::default();
        aggregator.register(&mut registry);
        let audit = AuditMetrics::default();
        audit.register(&mut registry);
        let encryption = EncryptionMetrics::default();
        encryption.register(&mut registry);
        let authorization = AuthorizationMetrics::default();
        authorization.register(&mut registry);
        registry.register(
            "skiff_apiserver_unreadable_values",
            "Values of the store that could not be read since the start; their objects are missing",
            Gauge::clone(&unreadable),
        );
        Self {
            pod_security,
            webhooks,
            admission,
            policies,
            flow_control,
            aggregator,
            audit,
            encryption,
            authorization,
            registry,
            requests,
            durations,
            inflight: ["readOnly", "mutating"]
                .map(|request_kind| inflight.get_or_create_owned(&Inflight { request_kind })),
            objects,
            revision,
            unreadable,
        }
    }
}

impl Metrics {
    /// The text of `/metrics`, in OpenMetrics' format.
    pub fn encode(&self, core: &Core) -> String {
        for resource in core.cache.resources().iter() {
            let labels = ObjectLabels { resource: resource.row.qualified_resource() };
            let count = i64::try_from(resource.len()).unwrap_or(i64::MAX);
            self.objects.get_or_create(&labels).set(count);
        }
        if let Some(flow_control) = &core.flow_control {
            flow_control.observe();
        }
        self.aggregator.observe(&core.aggregator.snapshot());
        let revision = i64::try_from(core.cache.revision()).unwrap_or(i64::MAX);
        self.revision.set(revision);
        self.unreadable.set(i64::try_from(core.cache.unreadable()).unwrap_or(i64::MAX));
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            write!(out, "# {error}").expect("a string takes everything");
        }
        out
    }
}

fn labels(request: &Request) -> Labels {
    let options = &request.options;
    let labels = Labels {
        component: "apiserver",
        dry_run: if options.dry_run { "All" } else { "" },
        group: "".into(),
        resource: "".into(),
        scope: "",
        subresource: "".into(),
        verb: "",
        version: "".into(),
    };
    match &request.subject {
        Subject::Path { method, .. } => {
            let verb = match *method {
                "get" => "GET",
                "head" => "HEAD",
                "post" => "POST",
                _ => "other",
            };
            Labels { verb, ..labels }
        }
        // Clients can invent all of the rest.
        Subject::Unserved(info) => Labels { verb: verb_of_method(info), ..labels },
        Subject::Delegated(Delegated { service, info, .. }) => {
            let (group, version) = (service.group.clone(), service.version.clone());
            let verb = verb_of_method(info);
            Labels { verb, group: group.into(), version: version.into(), ..labels }
        }
        Subject::Resource { verb, target } => {
            let scope = if !target.name.is_empty() || *verb == Verb::Create {
                "resource"
            } else if target.namespace.is_empty() {
                "cluster"
            } else {
                "namespace"
            };
            // Clients can invent names, but the number of labels is bounded.
            let mut known = target.row.subresources.iter();
            let known = known.find(|name| **name == target.subresource);
            Labels {
                group: target.row.group.clone(),
                version: target.row.version.clone(),
                resource: target.row.plural.clone(),
                subresource: known.cloned().unwrap_or_default(),
                scope,
                verb: verb_name(*verb, options.patch_type),
                ..labels
            }
        }
    }
}

fn verb_of_method(info: &RequestInfo) -> &'static str {
    match info.method {
        "get" | "head" => "GET",
        "post" => "POST",
        "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        _ => "other",
    }
}

fn verb_name(verb: Verb, patch: Option<PatchType>) -> &'static str {
    match verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch if patch == Some(PatchType::Apply) => "APPLY",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Connect { .. } => "CONNECT",
    }
}

fn code(answer: &Result<Response, ApiError>) -> u16 {
    match answer {
        Ok(Response::Object(answer)) => answer.code,
        Ok(Response::Json { code, .. } | Response::Raw { code, .. }) => *code,
        Ok(Response::List(_) | Response::Watch(_)) => 200,
        Ok(Response::Http(response)) => response.status().as_u16(),
        Ok(Response::Connect(_)) => 101,
        Err(error) => error.code(),
    }
}

/// A request in progress, until this is dropped: its client may disconnect at any time.
struct InflightRequest(Gauge);

impl InflightRequest {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InflightRequest {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts requests and measures their duration: the outermost step of the pipeline.
///
/// # Errors
/// Those of the request.
pub async fn count<S>(core: Arc<Core>, request: Request, mut inner: S) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    let metrics = &core.metrics;
    let request_labels = labels(&request);
    let long = request.subject.is_long_running();
    let reads = is_read(&request.subject);
    let inflight = InflightRequest::new(metrics.inflight[usize::from(!reads)].clone());
    let started = monotonic();
    let answer = inner.call(request).await;
    drop(inflight);
    if !long {
        let seconds = started.elapsed().as_secs_f64();
        metrics.durations.get_or_create(&request_labels).observe(seconds);
    }
    let labels = CodeLabels { code: code(&answer), request: request_labels };
    metrics.requests.get_or_create(&labels).inc();
    answer
}
