//! Audit: who asked for what, and what became of it, for those who have to know later.
//!
//! Every request of either front end passes through [`record`], after authentication. The policy
//! ([`policy`]) decides how much of it is kept; its [`Trail`] collects that while the request is
//! carried out, and an [`event`] is sent to the backends ([`backend`]) at each stage.
//!
//! Without `--audit-policy-file` a request pays one look at an option for all of this.

mod backend;
mod event;
pub mod flags;
mod log;
mod metrics;
mod policy;
mod webhook;

use std::collections::btree_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::ApiError;
use clock::SharedClock;
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::Service;

use self::backend::Backend;
use self::event::{AuthenticationMetadata, Event, UserInfo};
pub use self::metrics::AuditMetrics;
use self::policy::{Decision, Policy};
pub use self::policy::{Level, Stage};
use crate::body;
use crate::core::Core;
use crate::request::{Request, Subject, Verb};
use crate::response::Response;
use crate::rest::{Accept, Pieces, deprecation};
use crate::scan;
use crate::user::{ClientCertificate, User};

/// Annotations of an event, for each of which a webhook or a policy can give a value.
const ANNOTATIONS_MAX: usize = 1_000;

/// The policy and the backends.
pub struct Audit {
    policy: Policy,
    backends: Vec<Backend>,
    metrics: AuditMetrics,
    clock: SharedClock,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    /// Sends an event to all backends. False: one that must not lose any has lost it.
    async fn process(&self, event: &Event) -> bool {
        self.metrics.sent();
        let mut kept = true;
        for backend in &self.backends {
            kept &= backend.process(event).await;
        }
        kept
    }

    /// Waits until all that has been collected is written, for some time.
    pub async fn stop(&self) {
        for backend in &self.backends {
            backend.stop().await;
        }
    }
}

#[derive(Debug)]
struct Recorded {
    audit: Arc<Audit>,
    decision: Decision,
    event: Mutex<Event>,
}

/// What is kept of a request while it is carried out; nothing of most.
#[derive(Clone, Debug, Default)]
pub struct Trail(Option<Arc<Recorded>>);

impl Trail {
    fn new(audit: &Arc<Audit>, decision: Decision, request: &Request) -> Self {
        let event = Event::new(request, decision.level, audit.clock.now());
        Self(Some(Arc::new(Recorded { audit: audit.clone(), decision, event: Mutex::new(event) })))
    }

    /// How much is kept.
    fn level(&self) -> Level {
        self.0.as_ref().map_or(Level::None, |recorded| recorded.decision.level)
    }

    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an annotation, the first of its key.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let Some(recorded) = &self.0 else { return };
        let mut event = recorded.event.lock();
        if event.annotations.len() >= ANNOTATIONS_MAX {
            return;
        }
        match event.annotations.entry(key.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(value.into());
            }
            Entry::Occupied(known) => {
                let value = value.into();
                if *known.get() != value {
                    tracing::warn!(key, "an audit annotation has a value already");
                }
            }
        }
    }

    /// Adds an annotation that shows part of the request's object.
    pub fn annotate_with_object(&self, key: &str, value: impl FnOnce() -> String) {
        if self.level() >= Level::Request {
            self.annotate(key, value());
        }
    }

    /// `constraint`: the verb that has let it be done; empty: no constrained one.
    pub fn impersonates(&self, user: &User, constraint: String) {
        if let Some(recorded) = &self.0 {
            let mut event = recorded.event.lock();
            event.impersonated_user = Some(UserInfo::of(user));
            event.authentication_metadata = (!constraint.is_empty())
                .then_some(AuthenticationMetadata { impersonation_constraint: constraint });
        }
    }

    /// Keeps what has been sent: which object it is about, and, as the policy says, all of it.
    pub fn received(&self, request: &Request) {
        let Some(recorded) = &self.0 else { return };
        if request.body.is_empty() {
            return;
        }
        let Subject::Resource { verb, target } = &request.subject else { return };
        let Ok(json) = body::as_json(&request.body, request.body_format) else { return };
        let mut event = recorded.event.lock();
        if matches!(verb, Verb::Create | Verb::Update) {
            event.refer(&json, target);
        }
        if recorded.decision.level >= Level::Request {
            event.request_object = recorded.shown(&json);
        }
    }

    fn answered(&self, answer: &Result<Response, ApiError>) {
        let Some(recorded) = &self.0 else { return };
        let full = recorded.decision.level >= Level::RequestResponse;
        let (status, object) = match answer {
            Err(error) => (event::status(error.status()), full.then(|| error.encode().into())),
            Ok(Response::Object(answer)) => {
                (event::code(answer.code), full.then(|| answer.version.json.clone()))
            }
            Ok(Response::Json { code, json, .. }) => {
                let own = (scan::string(json, "kind") == "Status")
                    .then(|| api::status::decode_status(json).ok())
                    .flatten();
                let status = own.map_or_else(|| event::code(*code), |own| event::status(&own));
                (status, full.then(|| json.clone()))
            }
            Ok(Response::List(list)) => {
                let now = recorded.audit.clock.now();
                let whole = || Pieces::new(list.clone(), &Accept::default(), now).whole().ok();
                (event::code(200), full.then(whole).flatten())
            }
            Ok(Response::Raw { code, .. }) => (event::code(*code), None),
            Ok(Response::Http(response)) => (event::code(response.status().as_u16()), None),
            Ok(Response::Watch(_)) => (event::code(200), None),
            Ok(Response::Connect(_)) => (event::code(101), None),
        };
        let object = object.and_then(|json| recorded.shown(&json));
        let mut event = recorded.event.lock();
        event.response_status = Some(status);
        event.response_object = object;
    }

    /// Sends the event of a stage, unless the policy omits it. False: it is lost, and must not be.
    async fn stage(&self, stage: Stage) -> bool {
        let Some(recorded) = &self.0 else { return true };
        if recorded.decision.omits(stage) {
            return true;
        }
        let event = {
            let mut event = recorded.event.lock();
            event.reach(stage, recorded.audit.clock.now());
            event.clone()
        };
        recorded.audit.process(&event).await
    }

    fn panicked(&self, panic: &(dyn std::any::Any + Send)) {
        let Some(recorded) = &self.0 else { return };
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        let error = ApiError::new(500, "InternalError", format!("APIServer panic'd: {text}"));
        recorded.event.lock().response_status = Some(event::status(error.status()));
    }
}

impl Recorded {
    /// An object as it is kept.
    fn shown(&self, json: &[u8]) -> Option<Box<RawValue>> {
        if !self.decision.omits_managed_fields {
            return serde_json::from_slice(json).ok();
        }
        let mut object: Value = serde_json::from_slice(json).ok()?;
        event::without_managed_fields(&mut object);
        serde_json::value::to_raw_value(&object).ok()
    }
}

/// Sends the last event of a request when it is dropped: its answer has been sent, or its client
/// has gone.
#[derive(Debug, Default)]
pub struct Completion(Trail);

impl Completion {
    /// The code of the answer.
    pub fn answered(&self, code: u16) {
        if let Some(recorded) = &self.0.0 {
            recorded.event.lock().response_status = Some(event::code(code));
        }
    }

    /// It is sent already.
    fn done(mut self) {
        self.0 = Trail::default();
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        let trail = std::mem::take(&mut self.0);
        let Some(recorded) = &trail.0 else { return };
        recorded.event.lock().response_status.get_or_insert_with(event::closed_early);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { trail.stage(Stage::ResponseComplete).await });
        }
    }
}

/// Records what becomes of a request: the step of the pipeline after authentication.
///
/// # Errors
/// Those of the request; 500 if a backend that must not lose anything fails before it begins.
pub async fn record<S>(
    core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    let Some((audit, trail)) = begin(&core, &mut request) else {
        return inner.call(request).await;
    };
    audit.metrics.decided(trail.level());
    if !trail.is_kept() {
        return inner.call(request).await;
    }
    if deprecation(&request.subject).is_some() {
        trail.annotate("k8s.io/deprecated", "true");
    }
    if !trail.stage(Stage::RequestReceived).await {
        audit.metrics.refused();
        return Err(ApiError::internal("failed to store audit event"));
    }
    let (long, seat) = (request.subject.is_long_running(), request.seat.clone());
    let completion = Completion(trail.clone());
    let answer = match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => {
            completion.done();
            trail.panicked(&*panic);
            trail.stage(Stage::Panic).await;
            std::panic::resume_unwind(panic);
        }
    };
    trail.answered(&answer);
    if long {
        trail.stage(Stage::ResponseStarted).await;
    }
    // What a connection is answered with, its front end finds out.
    let connects = matches!(&answer, Ok(Response::Connect(_)));
    if answer.is_ok() && (long || connects) {
        seat.complete(completion);
    } else {
        trail.stage(Stage::ResponseComplete).await;
        completion.done();
    }
    answer
}

/// What is kept of a request, which it carries from now on; `None`: nothing of any.
fn begin<'a>(core: &'a Core, request: &mut Request) -> Option<(&'a Arc<Audit>, Trail)> {
    let audit = core.audit.as_ref()?;
    let decision = audit.policy.decide(&request.user, request);
    let trail = match decision.level {
        Level::None => Trail::default(),
        _ => Trail::new(audit, decision, request),
    };
    request.options.trail = trail.clone();
    Some((audit, trail))
}

/// Records a request that a front end refuses before it receives all of it.
///
/// # Errors
/// Those of the request.
pub async fn record_refusal<S>(
    core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    let Some((audit, trail)) = begin(&core, &mut request) else {
        return inner.call(request).await;
    };
    let answer = inner.call(request).await;
    if answer.is_err() && trail.is_kept() {
        audit.metrics.decided(trail.level());
        trail.stage(Stage::RequestReceived).await;
        trail.answered(&answer);
        trail.stage(Stage::ResponseComplete).await;
    }
    answer
}

/// Records a request whose credentials are not valid.
pub async fn record_unauthenticated(core: &Core, request: &Request) {
    let Some(audit) = &core.audit else { return };
    let nobody = User::default();
    let decision = audit.policy.decide(&nobody, request);
    audit.metrics.decided(decision.level);
    if decision.level == Level::None {
        return;
    }
    let trail = Trail::new(audit, decision, request);
    if let Some(recorded) = &trail.0 {
        let credentials = &request.credentials;
        let mut tried = Vec::new();
        if !matches!(credentials.certificate, ClientCertificate::Absent) {
            tried.push("x509");
        }
        if credentials.bearer.is_some() {
            tried.push("bearer");
        }
        let why = if tried.is_empty() {
            "Authentication failed, no credentials provided".to_owned()
        } else {
            format!("Authentication failed, attempted: {}", tried.join(", "))
        };
        let mut event = recorded.event.lock();
        event.user = UserInfo::default();
        event.response_status = Some(event::unauthenticated(why));
    }
    trail.stage(Stage::ResponseStarted).await;
}
