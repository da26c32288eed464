//! Seats: what a request takes once it is authorized, and gives back when its answer has been sent.
//!
//! Requests get their seats from [`FlowControl`](crate::flowcontrol::FlowControl), which lets them
//! wait for one in fair queues. With `--enable-priority-and-fairness=false` they are only counted:
//! where no seat is free a request is refused at once. Watches and sessions, which last, have a
//! limit of their own in both cases; a watch gives its seat back when its initial state is sent.

use std::sync::{Arc, Weak};

use api::ApiError;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::shares::{self, Shares};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::aggregation::Delegated;
use crate::answer::ANSWER_TIME;
use crate::audit::Completion;
use crate::core::Core;
use crate::flowcontrol::{Entry, Flow, Seats, Ticket};
use crate::request::{Request, Subject, Verb};
use crate::response::Response;
use crate::user::{MASTERS, User};

type Awaited = BoxFuture<'static, Result<Ticket, ApiError>>;

/// Watches and sessions at once.
const LONG_RUNNING: usize = 10_000;
/// What is left of them for nodes and the control plane, whatever others do.
const LONG_RUNNING_RESERVE: usize = 2_000;
/// The share of a user: of a node, or of anybody but the control plane, some of whose users stand
/// for a program on every node.
const LONG_RUNNING_SHARE: usize = 1_000;
/// The users of the control plane, and the group of its ServiceAccounts.
const CONTROL_PLANE: [&str; 5] = [
    "system:apiserver",
    "system:dns",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "system:kube-scheduler",
];
const CONTROL_PLANE_ACCOUNTS: &str = "system:serviceaccounts:kube-system";

/// What a request does to the server while it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ReadOnly,
    Mutating,
    LongRunning,
}

/// The numbers of requests.
pub struct Inflight {
    read_only: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
    long_running: LongRunning,
}

/// Places of watches and sessions, of which nobody gets more than a share.
struct LongRunning {
    all: Arc<Semaphore>,
    nodes: Shares<String>,
    others: Shares<String>,
}

impl LongRunning {
    fn new() -> Self {
        let share = LONG_RUNNING_SHARE;
        Self {
            all: Arc::new(Semaphore::new(LONG_RUNNING)),
            nodes: Shares::new(LONG_RUNNING, share),
            others: Shares::new(LONG_RUNNING - LONG_RUNNING_RESERVE, share),
        }
    }

    fn take(&self, user: &User) -> Option<Place> {
        let shared = match user {
            _ if user.node_name().is_some() => Some(&self.nodes),
            _ if CONTROL_PLANE.contains(&user.name.as_str())
                || user.in_group(CONTROL_PLANE_ACCOUNTS) =>
            {
                None
            }
            _ => Some(&self.others),
        };
        let share = shared.map(|shares| shares.take(user.name.clone())).transpose().ok()?;
        let permit = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _permit: permit, _share: share })
    }
}

/// A place, until it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<shares::Place<String>>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Inflight {
    /// Limits of reads and of writes; 0: none.
    pub fn new(read_only: usize, mutating: usize) -> Self {
        let seats = |limit: usize| {
            (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
        };
        Self {
            read_only: seats(read_only),
            mutating: seats(mutating),
            long_running: LongRunning::new(),
        }
    }

    /// Without limits of reads and of writes, which have them elsewhere.
    pub fn unlimited() -> Self {
        Self::new(0, 0)
    }

    /// Takes a place for a request; `Ok(None)`: it needs none.
    fn take(&self, request: &Request) -> Result<Option<Place>, ApiError> {
        if is_exempt(request) {
            return Ok(None);
        }
        let seats = match kind(&request.subject) {
            Kind::ReadOnly => self.read_only.as_ref(),
            Kind::Mutating => self.mutating.as_ref(),
            Kind::LongRunning => {
                let place = self.long_running.take(&request.user);
                return place.map(Some).ok_or_else(|| refusal(1));
            }
        };
        let Some(seats) = seats else { return Ok(None) };
        let taken = seats.clone().try_acquire_owned();
        taken.map(|permit| Some(Place { _permit: permit, _share: None })).map_err(|_| refusal(1))
    }
}

/// The answer to a request that finds no seat.
pub fn refusal(retry_after_seconds: i32) -> ApiError {
    let why = "Too many requests, please try again later.";
    ApiError::too_many_requests(why, retry_after_seconds)
}

#[derive(Debug, Default)]
struct Held {
    taken: bool,
    place: Option<Place>,
    ticket: Option<Ticket>,
    flow: Option<Arc<Flow>>,
    completion: Option<Completion>,
}

/// Holds a request's seat until its answer has been sent: the front end and the request share it.
#[derive(Clone, Debug, Default)]
pub struct Seat(Arc<Mutex<Held>>);

impl Seat {
    /// How the request was classified.
    pub fn flow(&self) -> Option<Arc<Flow>> {
        self.0.lock().flow.clone()
    }

    /// Takes a request's seat, and notes how it is classified. `Some`: it has to wait for the seat.
    ///
    /// # Errors
    /// 429 if there is neither a seat nor a place to wait.
    fn take(&self, core: &Core, request: &Request) -> Result<Option<Awaited>, ApiError> {
        // A front end may have taken it, to receive a large message.
        if std::mem::replace(&mut self.0.lock().taken, true) {
            return Ok(None);
        }
        let place = core.inflight.take(request)?;
        let lasts = request.subject.is_long_running();
        let watches = matches!(&request.subject, Subject::Resource { verb: Verb::Watch, .. });
        let flow_control = core.flow_control.as_ref().filter(|_| watches || !lasts);
        let entry = flow_control.map(|flow_control| flow_control.enter(core, request));
        let mut held = self.0.lock();
        held.place = place;
        let Some(Entry { flow, seats }) = entry else { return Ok(None) };
        held.flow = Some(flow);
        match seats? {
            Seats::Taken(ticket) => {
                held.ticket = Some(ticket);
                Ok(None)
            }
            Seats::Awaited(awaited) => Ok(Some(awaited)),
        }
    }

    /// Has the request's last event sent when its answer has been.
    pub fn complete(&self, completion: Completion) {
        self.0.lock().completion = Some(completion);
    }

    /// Notes the code that a request was answered with, where only its front end knows.
    pub fn answered(&self, code: u16) {
        if let Some(completion) = &self.0.lock().completion {
            completion.answered(code);
        }
    }

    /// Gives the seat back, but not the place of a watch.
    fn initialized(&self) {
        let ticket = self.0.lock().ticket.take();
        drop(ticket);
    }
}

/// Gives a watch's seat back when it is dropped.
struct Initialization(Seat);

impl Drop for Initialization {
    fn drop(&mut self) {
        self.0.initialized();
    }
}

/// Lets a request in when there is a seat for it: the step of the pipeline after authorization.
///
/// # Errors
/// 429 if there is none in time.
pub async fn admit<S>(core: Arc<Core>, request: Request, mut inner: S) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    let seat = request.seat.clone();
    if let Some(awaited) = seat.take(&core, &request)? {
        let ticket = awaited.await?;
        seat.0.lock().ticket = Some(ticket);
    }
    let mut response = inner.call(request).await?;
    if let Response::Watch(watcher) = response {
        give_back_in_time(&seat);
        let watcher = watcher.initializing(Initialization(seat));
        response = Response::Watch(Box::new(watcher));
    }
    Ok(response)
}

/// A client that does not read the initial state of its watch gives up its seat.
fn give_back_in_time(seat: &Seat) {
    let held: Weak<Mutex<Held>> = Arc::downgrade(&seat.0);
    tokio::spawn(async move {
        tokio::time::sleep(ANSWER_TIME).await;
        if let Some(held) = held.upgrade() {
            Seat(held).initialized();
        }
    });
}

fn kind(subject: &Subject) -> Kind {
    match subject {
        _ if subject.is_long_running() => Kind::LongRunning,
        _ if is_read(subject) => Kind::ReadOnly,
        _ => Kind::Mutating,
    }
}

/// Whether a request changes nothing.
pub fn is_read(subject: &Subject) -> bool {
    match subject {
        Subject::Resource { verb, .. } => verb.is_read(),
        Subject::Path { method, .. } => matches!(*method, "get" | "head"),
        Subject::Delegated(Delegated { info, .. }) | Subject::Unserved(info) => info.is_read(),
    }
}

/// Whoever may do everything can always do something about an overload, and health checks tell of
/// it.
fn is_exempt(request: &Request) -> bool {
    let health = ["/healthz", "/livez", "/readyz"];
    request.user.in_group(MASTERS)
        || matches!(&request.subject, Subject::Path { path, .. }
            if health.iter().any(|health| path.starts_with(health)))
}

#[cfg(test)]
mod tests {
    use api::Kind as _;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::request::Target;

    fn request(group: &str, verb: Verb) -> Request {
        of(User::authenticated("bob", vec![group.to_owned()]), verb)
    }

    fn of(user: User, verb: Verb) -> Request {
        let target = Target {
            row: Pod::ROW.into(),
            namespace: "default".to_owned(),
            name: "p".to_owned(),
            subresource: String::new(),
            subpath: String::new(),
        };
        Request {
            user: Arc::new(user),
            ..Request::new(Subject::Resource { verb, target }, Default::default())
        }
    }

    #[test]
    fn kinds_of_requests_are_counted_apart() {
        let inflight = Inflight::new(8, 8);
        let ask = |group: &str, verb| inflight.take(&request(group, verb));
        let held: Vec<_> = (0..8).map(|_| ask("dev", Verb::Update).unwrap().unwrap()).collect();
        let refused = ask("dev", Verb::Update).unwrap_err();
        assert_eq!((refused.code(), refused.reason()), (429, "TooManyRequests"));
        let seconds = refused.status().details.as_ref().unwrap().retry_after_seconds;
        assert_eq!(seconds, Some(1));
        assert!(ask("dev", Verb::List).unwrap().is_some());
        assert!(ask("dev", Verb::Watch).unwrap().is_some());
        // Masters need no seat.
        assert!(ask(MASTERS, Verb::Update).unwrap().is_none());
        drop(held);
        assert!(ask("dev", Verb::Update).unwrap().is_some());
        assert!(Inflight::unlimited().take(&request("dev", Verb::Get)).unwrap().is_none());
    }

    #[test]
    fn watches_and_sessions_are_bounded() {
        let inflight = Inflight::new(1, 1);
        let verbs = [Verb::Watch, Verb::Connect { authorized_as: "create" }];
        let watch = |user: &str, group: &str, index: usize| {
            let user = User::authenticated(user, vec![group.to_owned()]);
            inflight.take(&of(user, verbs[index % 2]))
        };
        // Nobody gets more than a share, and all together no more than leaves the reserve.
        let mut held = Vec::new();
        for user in 0.. {
            let before = held.len();
            held.extend((0..LONG_RUNNING).map_while(|i| watch(&format!("u{user}"), "", i).ok()));
            match held.len() - before {
                0 => break,
                taken => assert_eq!(taken, LONG_RUNNING_SHARE, "u{user}"),
            }
        }
        assert_eq!(held.len(), LONG_RUNNING - LONG_RUNNING_RESERVE);
        assert_eq!(watch("bob", "system:serviceaccounts:default", 0).unwrap_err().code(), 429);
        // A node has a share of the rest, and the control plane all of it.
        let node = |name: &str| watch(&format!("system:node:{name}"), "system:nodes", 0);
        held.extend((0..LONG_RUNNING_SHARE).map(|_| node("a").unwrap()));
        assert_eq!(node("a").unwrap_err().code(), 429);
        held.push(node("b").unwrap());
        held.push(
            watch("system:serviceaccount:kube-system:job", CONTROL_PLANE_ACCOUNTS, 0).unwrap(),
        );
        let left = LONG_RUNNING - held.len();
        held.extend((0..left).map(|i| watch(CONTROL_PLANE[i % 5], "", i).unwrap()));
        assert_eq!(watch(CONTROL_PLANE[0], "", 0).unwrap_err().code(), 429);
        assert!(watch("admin", MASTERS, 0).unwrap().is_none());
        drop(held);
        assert!(watch("bob", "", 0).unwrap().is_some());
    }
}
