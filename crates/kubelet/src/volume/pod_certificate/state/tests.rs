use k8s_openapi::api::certificates::v1::PodCertificateRequestStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn asked(name: &str, created: i64) -> Asked {
    Asked::new(format!("key of {name}"), name.to_owned(), at(created), 0.0)
}

/// A request with a condition, and times of a certificate of two hours from `start`.
fn request(name: &str, type_: &str, start: i64) -> PodCertificateRequest {
    let mut request = PodCertificateRequest::default();
    request.metadata.name = Some(name.to_owned());
    request.metadata.namespace = Some("ns".to_owned());
    if type_.is_empty() {
        return request;
    }
    let condition = Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: "Because".to_owned(),
        message: "so".to_owned(),
        last_transition_time: Time(at(start)),
        observed_generation: None,
    };
    let certificate = pem::encode(CERTIFICATE_LABEL, &[1, 2]);
    request.status = Some(PodCertificateRequestStatus {
        conditions: Some(vec![condition]),
        certificate_chain: Some(format!("a comment\n{certificate}between\n{certificate}")),
        not_before: Some(Time(at(start))),
        not_after: Some(Time(at(start + 7_200))),
        begin_refresh_at: Some(Time(at(start + 3_600))),
    });
    request
}

/// The step from a state when these requests are there.
fn after(state: Option<State>, requests: &[PodCertificateRequest], now: i64) -> Step {
    let find =
        |name: &str| requests.iter().find(|request| request.metadata.name.as_deref() == Some(name));
    step(state, find, at(now), 0.0)
}

/// A certificate that was issued at 1,000.
fn issued() -> Issued {
    let state = Some(State::Waiting(asked("a", 1_000)));
    match after(state, &[request("a", "Issued", 1_000)], 1_001).state {
        Some(State::Issued(issued, None)) => issued,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_certificate_is_asked_for_and_waited_for() {
    let first = after(None, &[], 1_000);
    assert_eq!(first, Step { ask: true, ..Step::default() });
    let waiting = || Some(State::Waiting(asked("a", 1_000)));
    // Not seen yet, then pending.
    for requests in [&[][..], &[request("a", "", 0)], &[request("other", "Issued", 1_000)]] {
        let step = after(waiting(), requests, 1_001);
        assert_eq!(step, Step { state: waiting(), ..Step::default() });
    }
    assert_eq!(waiting().unwrap().look_at(at(1_001)), Some(at(1_600)));
    // Somebody has deleted it.
    assert_eq!(after(waiting(), &[], 1_600), Step { ask: true, ..Step::default() });
    let issued = issued();
    assert_eq!(issued.key_pem, "key of a");
    let certificate = pem::encode(CERTIFICATE_LABEL, &[1, 2]);
    assert_eq!(issued.chain_pem, certificate.repeat(2));
}

#[test]
fn refusals_are_final_and_said_once() {
    for (type_, denied, text) in [
        (
            "Denied",
            true,
            "PodCertificateRequest ns/a was denied, reason=\"Because\", message=\"so\"",
        ),
        ("Failed", false, "PodCertificateRequest ns/a failed, reason=\"Because\", message=\"so\""),
    ] {
        let before = [State::Waiting(asked("a", 0)), State::Issued(issued(), Some(asked("a", 0)))];
        for state in before {
            let requests = [request("a", type_, 0)];
            let step = after(Some(state), &requests, 10);
            let ended =
                State::Ended { denied, reason: "Because".to_owned(), message: "so".to_owned() };
            assert_eq!(step.state, Some(ended.clone()));
            assert_eq!(step.events, [(type_, text.to_owned())]);
            let again = after(Some(ended.clone()), &requests, 100_000);
            assert_eq!(again, Step { state: Some(ended.clone()), ..Step::default() });
            assert_eq!(ended.look_at(at(10)), None);
        }
    }
}

#[test]
fn a_certificate_is_renewed_in_time_and_used_until_the_next_one_is_there() {
    let fresh = || State::Issued(issued(), None);
    assert_eq!(fresh().look_at(at(1_001)), Some(at(4_600)));
    let early = after(Some(fresh()), &[], 4_599);
    assert_eq!(early, Step { state: Some(fresh()), ..Step::default() });
    let due = after(Some(fresh()), &[], 4_600);
    assert_eq!(due, Step { state: Some(fresh()), ask: true, ..Step::default() });
    let renewing = State::Issued(issued(), Some(asked("b", 4_600)));
    let pending = [request("b", "", 0)];
    let step = after(Some(renewing.clone()), &pending, 4_700);
    assert_eq!(step, Step { state: Some(renewing.clone()), ..Step::default() });
    let next = after(Some(renewing.clone()), &[request("b", "Issued", 4_650)], 4_700);
    let Some(State::Issued(issued, None)) = next.state else { panic!("{next:?}") };
    assert_eq!((&*issued.key_pem, issued.refresh_at), ("key of b", at(8_250)));
    // The request was deleted: another one.
    let gone = after(Some(renewing), &[], 5_200);
    assert!(gone.ask && gone.state == Some(fresh()), "{gone:?}");
}

#[test]
fn whoever_looks_learns_once_that_a_certificate_is_too_old() {
    let renewing = State::Issued(issued(), Some(asked("b", 4_600)));
    let pending = [request("b", "", 0)];
    assert_eq!(renewing.look_at(at(4_700)), Some(at(5_200)));
    let overdue = after(Some(renewing), &pending, 5_201);
    let reasons = |step: &Step| step.events.iter().map(|(reason, _)| *reason).collect::<Vec<_>>();
    assert_eq!(reasons(&overdue), ["CertificateOverdueForRefresh"]);
    let again = after(overdue.state, &pending, 5_300);
    assert_eq!(reasons(&again), [""; 0]);
    let expired = after(again.state, &pending, 8_201);
    assert_eq!(reasons(&expired), ["CertificateExpired"]);
    assert_eq!(reasons(&after(expired.state, &pending, 9_000)), [""; 0]);
}

#[test]
fn requests_are_spread() {
    let late = Asked::new(String::new(), String::new(), at(0), 1.0);
    assert_eq!(late.abandon_at, at(900));
    assert_eq!(spread(at(0), 0.5), at(150));
}
