//! How many seats a request takes, and for how long (upstream's `pkg/util/flowcontrol/request`).

use std::time::Duration;

use super::Flow;
use super::queue_set::Estimate;
use crate::core::Core;
use crate::kinds::forms;
use crate::request::{Request, Subject, Target, Verb};

/// The most seats of a list and of a write, whatever the level allows.
const LIST_SEATS: u32 = 100;
const WRITE_SEATS: u32 = 10;
/// What is read for a list per seat, in bytes, and the most that a list has in memory at once.
const BYTES_PER_SEAT: usize = 100_000;
const LIST_BYTES: usize = 1_000_000;
/// Watches that are told of a write per seat, and how long that takes them.
const WATCHES_PER_SEAT: usize = 10;
const EVENT_TIME: Duration = Duration::from_millis(5);

/// The estimate for a request of a flow.
pub fn of(core: &Core, request: &Request, flow: &Flow) -> Estimate {
    let Subject::Resource { verb, target } = &request.subject else { return Estimate::seats(1) };
    match verb {
        Verb::List => list(core, request, target, flow),
        // Its initial state is a list.
        Verb::Watch if has_initial_state(request) => list(core, request, target, flow),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => write(core, target, flow),
        _ => Estimate::seats(1),
    }
}

fn has_initial_state(request: &Request) -> bool {
    let options = &request.options;
    options.send_initial_events == Some(true)
        || matches!(options.resource_version.as_str(), "" | "0")
}

fn at_most(flow: &Flow, limit: u32) -> u32 {
    if flow.seats_max == 0 { limit } else { flow.seats_max.min(limit) }
}

fn list(core: &Core, request: &Request, target: &Target, flow: &Flow) -> Estimate {
    let one = !target.name.is_empty() || request.options.fields.exact("metadata.name").is_some();
    let row = forms::stored(&target.row);
    if one || !row.stored {
        return Estimate::seats(1);
    }
    let resource = core.cache.resource(row);
    let (count, bytes) = (resource.len(), resource.bytes());
    let limit = usize::try_from(request.options.limit).unwrap_or(usize::MAX);
    let read = if limit > 0 && limit < count { bytes / count * limit } else { bytes };
    let seats = read.min(LIST_BYTES).div_ceil(BYTES_PER_SEAT);
    let seats = u32::try_from(seats).unwrap_or(LIST_SEATS);
    Estimate::seats(seats.min(at_most(flow, LIST_SEATS)).max(1))
}

fn write(core: &Core, target: &Target, flow: &Flow) -> Estimate {
    let row = forms::stored(&target.row);
    // A token is no change of its account.
    if !row.stored || target.subresource == "token" {
        return Estimate::seats(1);
    }
    let watches = core.cache.resource(row).watchers(&target.namespace, &target.name);
    flow.metrics.watched(watches);
    if watches < WATCHES_PER_SEAT {
        return Estimate::seats(1);
    }
    let wanted = u32::try_from(watches.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
    // The same work, with fewer seats for a longer time.
    let last = wanted.min(at_most(flow, WRITE_SEATS)).max(1);
    Estimate { initial: 1, last, lingers: EVENT_TIME * wanted / last }
}
