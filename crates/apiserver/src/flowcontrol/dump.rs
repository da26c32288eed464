//! `/debug/api_priority_and_fairness/`: what waits where, as upstream prints it
//! (`apf_controller_debug.go`).

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::FlowControl;
use super::classify::ResourceInfo;
use super::level::{Details, Level};
use super::queue_set::{Entry, Phase, Policy};

/// Below which path the dumps are.
pub const PREFIX: &str = "/debug/api_priority_and_fairness/";
/// Queues without requests that are shown of a level.
const IDLE_QUEUES: u32 = 1_024;

/// A dump. `details`: who asks for what. `None`: there is no such dump.
pub fn page(control: &FlowControl, name: &str, details: bool) -> Option<String> {
    let rows = match name {
        "dump_priority_levels" => levels(control),
        "dump_queues" => queues(control),
        "dump_requests" => requests(control, details),
        _ => return None,
    };
    Some(table(&rows))
}

/// Cells of a row, as text.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($cell.to_string()),*] };
}

fn levels(control: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = vec![row![
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]];
    for (name, state) in control.levels.lock().iter() {
        let set = state.level.set();
        let active = set.queues().values().filter(|queue| queue.waiting().len() > 0).count();
        let totals = set.totals();
        rows.push(row![
            name,
            active,
            set.is_idle(),
            state.quiescing,
            set.waiting(),
            set.executing(),
            totals.dispatched,
            totals.rejected,
            0,
            totals.cancelled,
        ]);
    }
    rows
}

fn queues(control: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = vec![row![
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]];
    let seconds = |number: f64| format!("{number:.8}ss");
    for (name, state) in control.levels.lock().iter() {
        let set = state.level.set();
        let Policy::Queue(queuing) = set.policy() else { continue };
        let idle = (0..queuing.queues.min(IDLE_QUEUES)).chain(set.queues().keys().copied());
        let all: std::collections::BTreeSet<u32> = idle.collect();
        for index in all {
            let Some(queue) = set.queues().get(&index) else {
                let none = seconds(0.0);
                rows.push(row![name, index, 0, 0, 0, none, 0, 0, none]);
                continue;
            };
            let estimates = || {
                let entries = queue.waiting().filter_map(|id| set.entry(id));
                entries.map(|entry| entry.estimate)
            };
            let initial: u32 = estimates().map(|estimate| estimate.initial).sum();
            let widest: u32 = estimates().map(|estimate| estimate.width()).sum();
            let (work, next) = queue.seat_seconds();
            rows.push(row![
                name,
                index,
                queue.waiting().len(),
                queue.executing,
                queue.seats,
                seconds(next),
                initial,
                widest,
                seconds(work),
            ]);
        }
    }
    rows
}

fn requests(control: &FlowControl, details: bool) -> Vec<Vec<String>> {
    let mut head = row![
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ];
    if details {
        head.extend(row![
            "UserName",
            "Verb",
            "APIPath",
            "Namespace",
            "Name",
            "APIVersion",
            "Resource",
            "SubResource",
        ]);
    }
    let mut rows = vec![head];
    for state in control.levels.lock().values() {
        let set = state.level.set();
        let mut all: Vec<_> = set
            .entries()
            .filter(|(_, entry)| entry.phase != Phase::Lingering)
            .map(|(id, entry)| {
                let queue = entry.queue.map_or(-1, i64::from);
                let waiting = entry.queue.and_then(|index| set.queues().get(&index));
                let place = waiting.and_then(|queue| queue.waiting().position(|one| one == id));
                let place = place.map_or(-1, |place| i64::try_from(place).unwrap_or(i64::MAX));
                (queue, place, id, entry)
            })
            .collect();
        all.sort_by_key(|(queue, place, id, _)| (*queue, place.cast_unsigned(), *id));
        for (queue, place, _, entry) in all {
            rows.push(request(&state.level, queue, place, entry, details));
        }
    }
    rows
}

fn request(
    level: &Level,
    queue: i64,
    place: i64,
    entry: &Entry<Details>,
    details: bool,
) -> Vec<String> {
    let Details { flow, user, subject, arrived } = &entry.request;
    let arrived = clock::now() - arrived.elapsed();
    let started = match entry.phase {
        Phase::Executing { since } => {
            let ago = level.now().saturating_sub(since);
            clock::now() - Duration::from_nanos(ago)
        }
        _ => Timestamp::from_second(-62_135_596_800).unwrap_or(Timestamp::MIN),
    };
    let distinguisher = flow.distinguisher_of(user, subject);
    let mut cells = row![
        level.name,
        flow.schema,
        queue,
        place,
        distinguisher,
        arrived,
        entry.estimate.initial,
        entry.estimate.last,
        format!("{:?}", entry.estimate.lingers),
        started,
    ];
    if details {
        cells.extend(match (ResourceInfo::of(subject), subject.path()) {
            (Some(info), _) => row![
                user.name,
                info.verb,
                subject.url_path(),
                info.namespace,
                info.name,
                info.api_version(),
                info.resource,
                info.subresource,
            ],
            (None, Some((method, path))) => row![user.name, method, path, "", "", "", "", ""],
            (None, None) => row![user.name, "", "", "", "", "", "", ""],
        });
    }
    cells
}

/// Columns at least eight characters wide, separated by a comma and at least one space.
fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = (cell.chars().count() + 2).max(8);
            match widths.get_mut(column) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                text.push_str(cell);
            } else {
                let cell = format!("{cell},");
                let width = widths[column];
                write!(text, "{cell:width$}").expect("a string takes everything");
            }
        }
        text.push('\n');
    }
    text
}
