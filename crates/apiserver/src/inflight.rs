//! Limits of requests in flight: one for each kind of request, in seats.
//!
//! A request takes a seat once it is authorized, and gives it back when its answer has been sent.
//! Where no seat is free it is refused at once, with 429: waiting requests would be a queue without
//! a bound. A small form of Kubernetes' priority levels: `system:masters` and health checks need no
//! seat, what keeps a cluster alive (leader election and the heartbeats of nodes, then all else
//! that nodes and controllers do) has seats of its own, and everybody shares the rest.

use std::sync::Arc;

use api::{ApiError, Kind as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::core::Core;
use crate::request::{Request, Subject, Target};
use crate::response::Response;
use crate::user::{MASTERS, User};

/// Watches and sessions at once that share seats. They last, so they have a limit of their own.
const LONG_RUNNING: usize = 10_000;
/// Seats of leader election and heartbeats, and of the rest of the system, beside the shared ones:
/// one for so many of those.
const HEARTBEAT_PART: usize = 8;
const SYSTEM_PART: usize = 4;

/// What a request does to the server while it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ReadOnly,
    Mutating,
    LongRunning,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Exempt,
    Heartbeat,
    System,
    Shared,
}

/// The seats of one kind of request.
struct Seats {
    heartbeat: Arc<Semaphore>,
    system: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

impl Seats {
    /// `None`: without a limit.
    fn new(limit: usize) -> Option<Self> {
        let seats = |number: usize| Arc::new(Semaphore::new(number));
        (limit > 0).then(|| Self {
            heartbeat: seats(limit.div_ceil(HEARTBEAT_PART)),
            system: seats(limit.div_ceil(SYSTEM_PART)),
            shared: seats(limit.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// A seat of the level's own, or else a shared one.
    fn take(&self, level: Level) -> Option<OwnedSemaphorePermit> {
        let own = match level {
            Level::Heartbeat => [&self.heartbeat, &self.system, &self.shared].to_vec(),
            Level::System => [&self.system, &self.shared].to_vec(),
            Level::Shared | Level::Exempt => [&self.shared].to_vec(),
        };
        own.into_iter().find_map(|seats| seats.clone().try_acquire_owned().ok())
    }
}

/// The limits.
pub struct Inflight {
    read_only: Option<Seats>,
    mutating: Option<Seats>,
    long_running: Option<Seats>,
}

impl Inflight {
    /// Limits of reads and of writes; 0: none.
    pub fn new(read_only: usize, mutating: usize) -> Self {
        Self {
            read_only: Seats::new(read_only),
            mutating: Seats::new(mutating),
            long_running: Seats::new(LONG_RUNNING),
        }
    }

    /// Takes a seat for a request; `Ok(None)`: it needs none.
    fn take(&self, request: &Request) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let level = level(request);
        let seats = match kind(&request.subject) {
            Kind::ReadOnly => &self.read_only,
            Kind::Mutating => &self.mutating,
            Kind::LongRunning => &self.long_running,
        };
        match seats {
            Some(seats) if level != Level::Exempt => match seats.take(level) {
                Some(seat) => Ok(Some(seat)),
                None => Err(ApiError::too_many_requests(
                    "Too many requests, please try again later.",
                    1,
                )),
            },
            _ => Ok(None),
        }
    }
}

/// Holds a request's seat until its answer has been sent: the front end and the request share it.
#[derive(Clone, Debug, Default)]
pub struct Seat(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Seat {
    fn is_taken(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// Lets a request in if there is a seat for it: the step of the pipeline after authorization.
///
/// # Errors
/// 429 if there is none.
pub async fn admit<S>(core: Arc<Core>, request: Request, mut inner: S) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    // A front end may have taken it, to receive a large message.
    if !request.seat.is_taken() {
        *request.seat.0.lock() = core.inflight.take(&request)?;
    }
    inner.call(request).await
}

fn kind(subject: &Subject) -> Kind {
    match subject {
        _ if subject.is_long_running() => Kind::LongRunning,
        Subject::Resource { verb, .. } if verb.is_read() => Kind::ReadOnly,
        Subject::Path { method: "get" | "head", .. } => Kind::ReadOnly,
        Subject::Delegated(delegated) if delegated.is_read() => Kind::ReadOnly,
        _ => Kind::Mutating,
    }
}

fn level(request: &Request) -> Level {
    let user = &*request.user;
    match &request.subject {
        _ if user.in_group(MASTERS) => Level::Exempt,
        Subject::Path { path, .. }
            if ["/healthz", "/livez", "/readyz"].iter().any(|health| path.starts_with(health)) =>
        {
            Level::Exempt
        }
        Subject::Resource { target, .. } if is_system(user) && is_heartbeat(target) => {
            Level::Heartbeat
        }
        _ if is_system(user) => Level::System,
        _ => Level::Shared,
    }
}

/// Nodes, and what runs the cluster.
fn is_system(user: &User) -> bool {
    user.in_group("system:nodes")
        || user.in_group("system:serviceaccounts:kube-system")
        || matches!(
            user.name.as_str(),
            "system:kube-controller-manager" | "system:kube-scheduler" | "system:kube-proxy"
        )
}

fn is_heartbeat(target: &Target) -> bool {
    let lease = target.row == Lease::ROW
        && matches!(target.namespace.as_str(), "kube-system" | "kube-node-lease");
    lease || (target.row == Node::ROW && !target.name.is_empty())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::request::Verb;

    fn request(user: &str, group: &str, verb: Verb, target: Target) -> Request {
        let user = User::authenticated(user, vec![group.to_owned()]);
        Request {
            user: Arc::new(user),
            ..Request::new(Subject::Resource { verb, target }, Default::default())
        }
    }

    fn target(row: &'static api::KindRow, namespace: &str, name: &str) -> Target {
        Target {
            row: row.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            subpath: String::new(),
        }
    }

    #[test]
    fn levels_have_their_own_seats_and_share_the_rest() {
        let inflight = Inflight::new(8, 8);
        let pods = || target(Pod::ROW, "default", "p");
        let lease = || target(Lease::ROW, "kube-node-lease", "n");
        let ask = |user: &str, group: &str, verb, target| {
            inflight.take(&request(user, group, verb, target))
        };
        let someone = |verb| ask("bob", "dev", verb, pods());
        let held: Vec<_> = (0..8).map(|_| someone(Verb::Update).unwrap().unwrap()).collect();
        let refused = someone(Verb::Update).unwrap_err();
        assert_eq!((refused.code(), refused.reason()), (429, "TooManyRequests"));
        let seconds = refused.status().details.as_ref().unwrap().retry_after_seconds;
        assert_eq!(seconds, Some(1));
        // Other kinds of request have limits of their own.
        assert!(someone(Verb::List).unwrap().is_some());
        assert!(someone(Verb::Watch).unwrap().is_some());
        // Masters need no seat.
        assert!(ask("root", MASTERS, Verb::Update, pods()).unwrap().is_none());
        // A node has two seats of the system's, and its heartbeats have one more.
        let node = |target| ask("system:node:n", "system:nodes", Verb::Update, target);
        let system: Vec<_> = (0..2).map(|_| node(pods()).unwrap().unwrap()).collect();
        assert_eq!(node(pods()).unwrap_err().code(), 429);
        let beat = node(lease()).unwrap().unwrap();
        assert_eq!(node(lease()).unwrap_err().code(), 429);
        // The Lease alone makes nobody a node.
        assert_eq!(ask("bob", "dev", Verb::Update, lease()).unwrap_err().code(), 429);
        drop((held, system, beat));
        assert!(someone(Verb::Update).unwrap().is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let inflight = Inflight::new(0, 1);
        let list = || request("bob", "dev", Verb::List, target(Pod::ROW, "", ""));
        assert!(inflight.take(&list()).unwrap().is_none());
    }

    #[test]
    fn watches_and_sessions_are_bounded() {
        let inflight = Inflight::new(1, 1);
        let watch = || {
            let pods = target(Pod::ROW, "default", "");
            inflight.take(&request("bob", "dev", Verb::Watch, pods))
        };
        let held: Vec<_> = (0..LONG_RUNNING).map(|_| watch().unwrap()).collect();
        assert_eq!(watch().unwrap_err().code(), 429);
        drop(held);
        assert!(watch().unwrap().is_some());
    }
}
