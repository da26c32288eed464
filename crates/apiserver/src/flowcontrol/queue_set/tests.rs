use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl Queued for () {}
impl Queued for char {}
impl Queued for usize {}

const MILLI: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLI;

/// A hash whose hand of one card is this queue.
fn queue(index: u64) -> u64 {
    index
}

fn queuing(queues: u32, length: u32) -> Policy {
    Policy::Queue(Queuing { queues, hand: 1, length })
}

/// Clients that each keep so many requests open, each of so many seats and of such a length: what
/// each gets done within a time.
fn served(set: &mut QueueSet<usize>, clients: &[(usize, u32, Nanos)], time: Nanos) -> Vec<Nanos> {
    let mut work = vec![0; clients.len()];
    let mut open = vec![0; clients.len()];
    // Ends of the requests being executed.
    let mut ends: BTreeMap<(Nanos, u64), usize> = BTreeMap::new();
    let mut known = std::collections::HashSet::new();
    let mut now = 0;
    while now < time {
        for (client, (concurrent, seats, _)) in clients.iter().enumerate() {
            while open[client] < *concurrent {
                let hash = queue(client as u64);
                set.start(now, hash, Estimate::seats(*seats), client).unwrap();
                open[client] += 1;
            }
        }
        for (id, entry) in set.entries() {
            if let Phase::Executing { since } = entry.phase
                && known.insert(id)
            {
                ends.insert((since + clients[entry.request].2, id), entry.request);
            }
        }
        let ((end, id), client) = ends.pop_first().unwrap();
        now = end;
        assert_eq!(set.end(now, id), End::Finished);
        work[client] += clients[client].2 * Nanos::from(clients[client].1);
        open[client] -= 1;
        assert!(set.seats().0 <= 10 || set.executing() == 1, "{:?}", set.seats());
    }
    work
}

#[test]
fn a_flood_does_not_take_the_seats_of_others() {
    let mut set = QueueSet::new(queuing(4, 1_000), 10);
    // One floods with hundreds, one has five at a time, one asks for long and wide ones.
    let clients = [(500, 1, 10 * MILLI), (5, 1, 10 * MILLI), (20, 5, 40 * MILLI)];
    let work = served(&mut set, &clients, 60 * SECOND);
    let total: Nanos = work.iter().sum();
    // Each could use at least a third, but for the second, which needs about that.
    for (client, done) in work.iter().enumerate() {
        let part = done * 100 / total;
        assert!((26..=42).contains(&part), "client {client} got {part} %: {work:?}");
    }
}

#[test]
fn requests_wait_in_turn_and_are_refused_where_the_queue_is_full() {
    let mut set = QueueSet::new(queuing(2, 2), 1);
    let start =
        |set: &mut QueueSet<char>, queue, name| set.start(0, queue, Estimate::seats(1), name);
    let (a, executing) = start(&mut set, 0, 'a').unwrap();
    assert!(executing);
    let (b, executing) = start(&mut set, 0, 'b').unwrap();
    assert!(!executing);
    start(&mut set, 0, 'c').unwrap();
    assert_eq!(start(&mut set, 0, 'd'), Err(Rejection::QueueFull));
    let (e, _) = start(&mut set, 1, 'e').unwrap();
    // The other queue has been served less.
    assert_eq!(set.end(MILLI, a), End::Finished);
    assert_ne!(set.entry(e).unwrap().phase, Phase::Waiting);
    assert_eq!(set.entry(b).unwrap().phase, Phase::Waiting);
    // Who gives up makes room.
    assert_eq!(set.end(MILLI, b), End::Cancelled);
    assert!(start(&mut set, 0, 'f').is_ok());
    let totals = set.totals();
    assert_eq!((totals.dispatched, totals.rejected, totals.cancelled), (2, 2, 1));
}

#[tokio::test]
async fn whoever_waits_is_woken() {
    let mut set = QueueSet::new(queuing(1, 5), 1);
    let (first, _) = set.start(0, 0, Estimate::seats(1), ()).unwrap();
    let (second, executing) = set.start(0, 0, Estimate::seats(1), ()).unwrap();
    assert!(!executing);
    let mut woken = set.wake(second);
    assert!(woken.try_recv().is_err());
    set.end(1, first);
    assert_eq!(woken.await, Ok(()));
}

#[test]
fn levels_without_queues_refuse_at_once() {
    let mut set = QueueSet::new(Policy::Reject, 2);
    let (id, _) = set.start(0, 0, Estimate::seats(2), ()).unwrap();
    assert_eq!(set.start(0, 0, Estimate::seats(1), ()), Err(Rejection::ConcurrencyLimit));
    set.end(1, id);
    // One that is wider than the level is executed alone.
    let (wide, _) = set.start(1, 0, Estimate::seats(5), ()).unwrap();
    assert_eq!(set.start(1, 0, Estimate::seats(1), ()), Err(Rejection::ConcurrencyLimit));
    set.end(2, wide);
    let mut exempt = QueueSet::new(Policy::Exempt, 0);
    assert!((0..100).all(|_| exempt.start(0, 0, Estimate::seats(1), ()).is_ok()));
}

#[test]
fn writes_keep_their_seats_while_watchers_are_told() {
    let mut set = QueueSet::new(queuing(1, 5), 3);
    let estimate = Estimate { initial: 1, last: 9, lingers: Duration::from_millis(5) };
    let (id, executing) = set.start(0, 0, estimate, ()).unwrap();
    assert!(executing);
    // Fewer seats for a longer time.
    assert_eq!(set.end(MILLI, id), End::Lingers(Duration::from_millis(15)));
    let (next, executing) = set.start(MILLI, 0, Estimate::seats(1), ()).unwrap();
    assert!(!executing);
    set.release(16 * MILLI, id);
    assert_ne!(set.entry(next).unwrap().phase, Phase::Waiting);
    assert_eq!(set.seats(), (1, 0));
}

#[test]
fn a_higher_limit_lets_more_in_and_other_queues_keep_requests() {
    let mut set = QueueSet::new(queuing(8, 5), 1);
    let start =
        |set: &mut QueueSet<()>, queue| set.start(0, queue, Estimate::seats(1), ()).unwrap();
    let ids: Vec<u64> = (0..6).map(|index| start(&mut set, index).0).collect();
    assert_eq!((set.executing(), set.waiting()), (1, 5));
    set.configure(1, queuing(2, 5), 3, 3);
    assert_eq!((set.executing(), set.waiting()), (3, 3));
    set.configure(2, Policy::Reject, 6, 6);
    assert_eq!((set.executing(), set.waiting()), (6, 0));
    for id in ids {
        set.end(3, id);
    }
    assert!(set.is_idle() && set.queues().is_empty());
}

#[test]
fn no_more_requests_wait_than_the_bound() {
    let mut set = QueueSet::new(queuing(1_000_000, 1_000_000), 1);
    let waiting = (0..=WAITING_MAX as u64)
        .filter(|index| set.start(0, *index, Estimate::seats(1), ()).is_ok())
        .count();
    assert_eq!(waiting, WAITING_MAX + 1, "and one that is executed");
    assert_eq!(set.start(0, 7, Estimate::seats(1), ()), Err(Rejection::QueueFull));
}

#[derive(Clone, Debug)]
enum Step {
    Start { hash: u64, initial: u32, last: u32, lingers: u64 },
    End(usize),
    Release(usize),
    Configure(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        4 => (any::<u64>(), 1_u32..6, 0_u32..12, 0_u64..10)
            .prop_map(|(hash, initial, last, lingers)| Step::Start { hash, initial, last, lingers }),
        3 => any::<usize>().prop_map(Step::End),
        2 => any::<usize>().prop_map(Step::Release),
        1 => (0_u32..9, 0_u32..9).prop_map(|(queues, limit)| Step::Configure(queues, limit)),
    ];
    prop::collection::vec((0_u64..5_000_000, step), 1..200)
}

proptest! {
    /// Whatever happens in whatever order: the counts are those of the requests, no seat is given
    /// twice, none is lost, and nobody waits while there is room.
    #[test]
    fn counts_are_consistent(steps in steps()) {
        let mut set = QueueSet::new(queuing(8, 3), 5);
        let (mut open, mut ended): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
        let (mut now, mut limit) = (0, 5);
        let mut most = 5;
        for (later, step) in steps {
            now += later;
            match step {
                Step::Start { hash, initial, last, lingers } => {
                    let lingers = Duration::from_millis(if last == 0 { 0 } else { lingers });
                    let estimate = Estimate { initial, last, lingers };
                    open.extend(set.start(now, hash, estimate, ()).map(|(id, _)| id));
                }
                Step::End(at) if !open.is_empty() => {
                    let id = open.swap_remove(at % open.len());
                    if let End::Lingers(_) = set.end(now, id) {
                        ended.push(id);
                    }
                }
                Step::Release(at) if !ended.is_empty() => {
                    set.release(now, ended.swap_remove(at % ended.len()));
                }
                Step::Configure(queues, seats) => {
                    let policy = if queues == 0 { Policy::Reject } else { queuing(queues, 3) };
                    limit = seats;
                    most = most.max(seats);
                    set.configure(now, policy, seats, seats);
                }
                Step::End(_) | Step::Release(_) => {}
            }
            let (mut waiting, mut executing, mut seats, mut wanted) = (0, 0, 0, 0);
            for (_, entry) in set.entries() {
                match entry.phase {
                    Phase::Waiting => {
                        waiting += 1;
                        wanted += entry.estimate.width();
                    }
                    Phase::Executing { .. } => {
                        executing += 1;
                        seats += entry.estimate.width();
                    }
                    Phase::Lingering => seats += entry.estimate.width(),
                }
            }
            prop_assert_eq!((set.waiting(), set.executing()), (waiting, executing));
            prop_assert_eq!(set.seats(), (seats, wanted));
            prop_assert_eq!(set.entries().count(), open.len() + ended.len());
            let queued: usize = set.queues().values().map(|queue| queue.waiting.len()).sum();
            prop_assert_eq!(queued, waiting);
            let active = set.queues().values().filter(|queue| queue.is_active()).count();
            prop_assert_eq!(active, set.active as usize);
            // A wide one runs alone, or beside those that only linger.
            prop_assert!(seats <= most + 12 + 12 * u32::try_from(ended.len()).unwrap());
            if let (true, Some(Next { id, .. })) = (seats < limit, set.next_queue()) {
                let width = set.entry(id).unwrap().estimate.width();
                prop_assert!(!set.fits(width), "{} waits", id);
            }
        }
        for id in open.into_iter().chain(ended) {
            set.end(now, id);
            set.release(now, id);
        }
        prop_assert!(set.is_idle() && set.queues().is_empty());
        prop_assert_eq!(set.seats(), (0, 0));
    }
}
