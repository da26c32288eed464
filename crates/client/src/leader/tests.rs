//! The election against servers that refuse, or do not answer, under virtual time.

use std::sync::{Arc, Mutex, MutexGuard};

use api::{ApiError, Kind};

use super::*;

fn election() -> Election {
    Election::for_component("c")
}

/// Calls that are never answered; the first ones are.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    replaces: Option<usize>,
    gets: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    lease: Lease,
    answers: Answers,
    /// How many of the next replaces are refused because somebody has edited the Lease.
    conflicts: usize,
    /// How many of the next gets fail for another reason.
    failing_gets: usize,
    delay: Duration,
    /// When the last replace arrived that was answered.
    renewed: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, count: impl FnOnce(&mut Answers) -> &mut Option<usize>) {
        let delay = {
            let mut state = self.state();
            match count(&mut state.answers) {
                Some(0) => None,
                Some(left) => {
                    *left -= 1;
                    Some(state.delay)
                }
                None => Some(state.delay),
            }
        };
        match delay {
            Some(delay) => tokio::time::sleep(delay).await,
            None => std::future::pending().await,
        }
    }
}

impl Leases for Server {
    async fn get(&self, _: &str) -> Result<Lease, Error> {
        self.answer(|answers| &mut answers.gets).await;
        let mut state = self.state();
        if state.failing_gets > 0 {
            state.failing_gets -= 1;
            return Err(Error::Transport(tonic::Status::unavailable("no connection")));
        }
        Ok(state.lease.clone())
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, Error> {
        self.replace(lease).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, Error> {
        let arrived = clock::instant();
        self.answer(|answers| &mut answers.replaces).await;
        let mut state = self.state();
        if state.conflicts > 0 {
            state.conflicts -= 1;
            return Err(Error::Api(ApiError::modified(Lease::ROW, "c")));
        }
        state.lease = lease.clone();
        state.renewed = Some(arrived);
        Ok(lease.clone())
    }
}

async fn lead(election: &Election, server: &Server) -> Leadership {
    let held = election.take(server, None).await.unwrap();
    Leadership::hold(election.clone(), server.clone(), held)
}

#[tokio::test(start_paused = true)]
async fn a_free_or_released_lease_is_tried_at_once_and_a_held_one_after_its_duration() {
    let election = election();
    assert_eq!(election.attempt_at(None), clock::instant());
    let mut lease = Lease::default();
    let mut other = election.clone();
    other.identity = "other".into();
    other.lease_duration = Duration::from_secs(7);
    other.claim(&mut lease);
    assert_eq!(election.attempt_at(Some(&lease)), clock::instant() + Duration::from_secs(7));
    lease.spec.as_mut().unwrap().holder_identity = Some(String::new());
    assert_eq!(election.attempt_at(Some(&lease)), clock::instant());
    // Another process of this machine that has ended: no pid is this high.
    let own = Process::own().unwrap().to_string();
    let mut parts: Vec<&str> = own.split('-').collect();
    parts[2] = "1073741824";
    lease.spec.as_mut().unwrap().holder_identity = Some(format!("h_0_{}", parts.join("-")));
    assert_eq!(election.attempt_at(Some(&lease)), clock::instant());
}

#[test]
fn transitions_count_changes_of_holder() {
    let (mine, mut lease) = (election(), Lease::default());
    mine.claim(&mut lease);
    mine.claim(&mut lease);
    assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(0));
    let other = election();
    other.claim(&mut lease);
    assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(1));
}

/// Whichever call the server does not answer, right after a conflict or not, the leader stops
/// before the others, who have seen the last renewal no earlier than it arrived, may lead.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_calls_hang_stops_in_time() {
    for (replaces, gets, conflicts) in
        [(Some(0), None, 0), (Some(1), None, 0), (Some(1), Some(0), 1), (Some(1), None, 1)]
    {
        let (election, server) = (election(), Server::default());
        let leadership = lead(&election, &server).await;
        tokio::time::sleep(Duration::from_secs(33)).await;
        assert!(!leadership.lost().is_cancelled(), "it renews while the server answers");
        {
            let mut state = server.state();
            state.answers = Answers { replaces, gets };
            state.conflicts = conflicts;
        }
        let lost =
            tokio::time::timeout(Duration::from_secs(600), leadership.lost().cancelled_owned());
        lost.await.unwrap_or_else(|_| panic!("leads on: {replaces:?} {gets:?} {conflicts}"));
        let renewed = server.state().renewed.unwrap();
        let led = clock::instant() - renewed;
        assert_eq!(led, election.renew_deadline, "{replaces:?} {gets:?} {conflicts}");
        assert!(led < election.lease_duration);
    }
}

/// The answer to the request that takes the Lease may be late: the time of the others runs from
/// when the server wrote it.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_leader_starts_with_its_request() {
    let (election, server) = (election(), Server::default());
    server.state().delay = Duration::from_secs(8);
    let asked = clock::instant();
    let leadership = lead(&election, &server).await;
    assert_eq!(clock::instant() - asked, Duration::from_secs(8));
    server.state().answers.replaces = Some(0);
    leadership.lost().cancelled().await;
    assert_eq!(clock::instant() - asked, election.renew_deadline);

    server.state().answers.replaces = None;
    server.state().delay = Duration::from_secs(12);
    let asked = clock::instant();
    let error = election.take(&server, None).await.unwrap_err();
    assert!(matches!(error, Error::Transport(_)), "{error}");
    assert_eq!(clock::instant() - asked, election.renew_deadline);
}

#[tokio::test(start_paused = true)]
async fn an_edited_lease_is_renewed_and_a_taken_one_given_up_at_once() {
    let (election, server) = (election(), Server::default());
    let leadership = lead(&election, &server).await;
    server.state().conflicts = 1;
    server.state().failing_gets = 1;
    tokio::time::sleep(election.retry_period + RETRY_AFTER_FAILURE * 2).await;
    assert!(!leadership.lost().is_cancelled(), "a failed call is repeated");
    assert!(clock::instant() - server.state().renewed.unwrap() < election.retry_period);

    server.state().conflicts = 1;
    tokio::time::sleep(election.retry_period).await;
    assert!(!leadership.lost().is_cancelled());
    assert!(clock::instant() - server.state().renewed.unwrap() < election.retry_period);

    let other = Election { identity: "other".into(), ..election.clone() };
    {
        let mut state = server.state();
        state.conflicts = 1;
        other.claim(&mut state.lease);
    }
    let before = clock::instant();
    leadership.lost().cancelled().await;
    assert!(clock::instant() - before <= election.retry_period);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_hangs_ends_with_the_leadership() {
    let (election, server) = (election(), Server::default());
    let leadership = lead(&election, &server).await;
    let renewed = server.state().renewed.unwrap();
    server.state().answers.replaces = Some(0);
    leadership.release().await;
    assert_eq!(clock::instant() - renewed, election.renew_deadline);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_stuck_is_not_healthy() {
    let (election, server) = (election(), Server::default());
    let healthy = election.is_renewed();
    assert!(healthy(), "a candidate is");
    let leadership = lead(&election, &server).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(healthy(), "it has renewed its Lease");
    // As if the task hung.
    leadership.renewal.abort();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(healthy(), "others may still believe the Lease");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(!healthy());
    // Who has lost the Lease, and is about to exit, is not stuck.
    let leadership = lead(&election, &server).await;
    assert!(healthy());
    server.state().answers.replaces = Some(0);
    leadership.lost().cancelled().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(healthy());
}
