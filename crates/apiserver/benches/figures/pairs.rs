//! Loads compared side by side: rounds alternate between them, and the median of the ratios within
//! a round is what counts.

use std::cell::Cell;
use std::time::Duration;

use clock::monotonic;
use futures::future::join_all;

use crate::server::{Rest, Server};

const ROUNDS: usize = 7;
/// The duration of a load in a round.
const ROUND: Duration = Duration::from_millis(400);
const CONNECTIONS: usize = 16;

pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
}

/// Requests to a server that runs in a process of its own.
pub struct Load<'a> {
    server: &'a Server,
    clients: Vec<Rest>,
    /// The request with a number.
    request: Box<dyn Fn(usize) -> Request + 'a>,
    sent: Cell<usize>,
}

/// Requests in one round.
#[derive(Clone, Copy)]
pub struct Rate {
    pub per_second: f64,
    /// Of the server's processor time.
    pub per_cpu_second: f64,
}

impl<'a> Load<'a> {
    /// The load of a user, on several connections.
    pub fn new(
        server: &'a Server,
        (user, groups): (&str, &[&str]),
        request: impl Fn(usize) -> Request + 'a,
    ) -> Self {
        let clients = (0..CONNECTIONS).map(|_| server.rest_as(user, groups)).collect();
        Self { server, clients, request: Box::new(request), sent: Cell::new(0) }
    }

    async fn round(&self) -> Rate {
        let before = (self.sent.get(), processor(self.server));
        let start = monotonic();
        join_all(self.clients.iter().map(|rest| async move {
            while start.elapsed() < ROUND {
                let number = self.sent.get();
                self.sent.set(number + 1);
                let Request { method, path, body } = (self.request)(number);
                let headers = [("content-type", "application/json")];
                let (parts, answer) = rest.exchange(method, &path, &headers, body).await;
                assert!(parts.status.is_success(), "{}", String::from_utf8_lossy(&answer));
            }
        }))
        .await;
        let elapsed = start.elapsed();
        let count = (self.sent.get() - before.0) as f64;
        let spent = processor(self.server).saturating_sub(before.1);
        Rate {
            per_second: count / elapsed.as_secs_f64(),
            per_cpu_second: count / spent.as_secs_f64(),
        }
    }
}

/// The processor time of a server.
fn processor(server: &Server) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let nanoseconds = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        // A thread may have ended.
        let times = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        times.split_ascii_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks.filter_map(nanoseconds).sum())
}

/// The rates of each load, round by round.
pub async fn alternate<const N: usize>(loads: [Load<'_>; N]) -> [Vec<Rate>; N] {
    let mut rates = [const { Vec::new() }; N];
    for load in &loads {
        load.round().await;
    }
    for round in 0..ROUNDS {
        for turn in 0..N {
            // No load is always the first of its round.
            let index = (turn + round) % N;
            rates[index].push(loads[index].round().await);
        }
    }
    rates
}

/// Prints how a load compares with the one it is measured against.
pub fn report(what: &str, rates: &[Rate], against: &[Rate]) {
    let ratio = |of: fn(&Rate) -> f64| {
        median(rates.iter().zip(against).map(|(rate, against)| of(rate) / of(against)))
    };
    let seconds = |rates: &[Rate]| median(rates.iter().map(|rate| rate.per_second));
    println!(
        "{what:<48} {:>10.0} /s  {:>9.0} /s  {:>6.3} x  {:>6.3} x per CPU second",
        seconds(rates),
        seconds(against),
        ratio(|rate| rate.per_second),
        ratio(|rate| rate.per_cpu_second),
    );
}

/// Prints by how much processor time a request of a load is dearer.
pub fn report_difference(what: &str, rates: &[Rate], against: &[Rate]) {
    let each = |rate: &Rate| 1e6 / rate.per_cpu_second;
    let more = rates.iter().zip(against).map(|(rate, against)| each(rate) - each(against));
    let (more, base) = (median(more), median(against.iter().map(each)));
    println!("{what:<48} {more:>10.1} us  on top of {base:.0} us of processor time");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
