//! A single watch: its selection and its position.

use etcd_client::{
    WatchFilterType,
    proto::{PbEvent, PbKeyValue, PbResponseHeader, PbWatchRequestUnion, PbWatchResponse},
};
use redb::Error;

use super::{
    check::REQUEST_MAX_BYTES,
    key_range::KeyRange,
    recent::Change,
    record::Record,
    shared::Shared,
    tables::{self, View},
};

/// How much history a watch that is catching up reads per step, in records and in bytes. The
/// changes of one revision are never split between steps.
const STEP_RECORDS: usize = 1_000;
const STEP_BYTES: usize = 1 << 20;

/// A running watch.
pub(super) struct Watcher {
    pub(super) id: i64,
    pub(super) range: KeyRange,
    /// The first revision that has not been processed.
    pub(super) next: u64,
    pub(super) progress_notify: bool,
    /// Whether anything was sent since the last periodic notification.
    pub(super) active: bool,
    pub(super) puts: bool,
    pub(super) deletions: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
}

/// The result of a step of a watch.
pub(super) enum Step {
    /// Events, possibly none, and the first revision that has not been processed.
    Events(Vec<PbEvent>, u64),
    /// The watch still needs history before this revision, which is compacted.
    Compacted(u64),
}

impl Watcher {
    /// Processes the next changes up to `current` from memory; `None` if they are not there.
    pub(super) fn step_in_memory(
        &self,
        shared: &Shared,
        current: u64,
    ) -> Option<Result<Step, Error>> {
        let commits = shared.recent.since(self.next, current, STEP_BYTES)?;
        let next = commits.last()?.last + 1;
        let changes = commits.iter().flat_map(|commit| &commit.changes);
        let selected = changes.filter(|change| {
            change.main >= self.next && self.selects(&change.kv.key, change.deletion)
        });
        let events = selected
            .map(|change| self.event(shared, change.clone()))
            .collect::<Result<Vec<_>, _>>();
        Some(events.map(|events| Step::Events(events, next)))
    }

    /// Processes the next changes up to `current` from the file. Blocks.
    pub(super) fn step_in_file(&self, shared: &Shared, current: u64) -> Result<Step, Error> {
        let view = {
            let state = shared.read();
            if self.next < state.index.compacted {
                return Ok(Step::Compacted(state.index.compacted));
            }
            state.view()
        };
        let (changes, next) = self.read(&view, current)?;
        drop(view);
        let events = changes
            .into_iter()
            .map(|change| self.event(shared, change))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Step::Events(events, next))
    }

    fn read(&self, view: &View, current: u64) -> Result<(Vec<Change>, u64), Error> {
        let (mut changes, mut records, mut bytes, mut last) = (Vec::new(), 0, 0, 0);
        for entry in view.history.range((self.next, 0)..=(current, u32::MAX))? {
            let (position, value) = entry?;
            let (main, _) = position.value();
            if main != last && (records >= STEP_RECORDS || bytes >= STEP_BYTES) {
                return Ok((changes, main));
            }
            last = main;
            records += 1;
            let record = Record::decode(value.value())?;
            let deletion = record.version == 0;
            if self.selects(record.key, deletion) {
                bytes += record.encoded_len();
                changes.push(Change { main, deletion, kv: record.to_key_value(main) });
            }
        }
        Ok((changes, current + 1))
    }

    fn selects(&self, key: &[u8], deletion: bool) -> bool {
        let kind = if deletion { self.deletions } else { self.puts };
        kind && self.range.contains(key)
    }

    fn event(&self, shared: &Shared, change: Change) -> Result<PbEvent, Error> {
        let prev_kv = if self.prev_kv { previous(shared, &change)? } else { None };
        Ok(PbEvent { r#type: i32::from(change.deletion), kv: Some(change.kv), prev_kv })
    }

    /// The messages for the events: one, or several if the client accepts fragments.
    pub(super) fn messages(
        &self,
        header: PbResponseHeader,
        events: Vec<PbEvent>,
    ) -> Vec<PbWatchResponse> {
        let message = |events| PbWatchResponse {
            header: Some(header),
            watch_id: self.id,
            events,
            ..PbWatchResponse::default()
        };
        if !self.fragment {
            return vec![message(events)];
        }
        let mut messages: Vec<PbWatchResponse> = Vec::new();
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for event in events {
            let size = event_bytes(&event);
            if bytes + size > REQUEST_MAX_BYTES && !piece.is_empty() {
                messages.push(PbWatchResponse {
                    fragment: true,
                    ..message(std::mem::take(&mut piece))
                });
                bytes = 0;
            }
            bytes += size;
            piece.push(event);
        }
        messages.push(message(piece));
        messages
    }
}

fn event_bytes(event: &PbEvent) -> usize {
    let bytes = |kv: &Option<PbKeyValue>| kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
    bytes(&event.kv) + bytes(&event.prev_kv)
}

/// The state of a key before a change, unless compacted.
fn previous(shared: &Shared, change: &Change) -> Result<Option<PbKeyValue>, Error> {
    let before = change.main - 1;
    let (view, version) = {
        let state = shared.read();
        if before < state.index.compacted {
            return Ok(None);
        }
        match state.index.get(&change.kv.key, before) {
            Some(version) => (state.view(), *version),
            None => return Ok(None),
        }
    };
    tables::fetch(&view.history, version.position(), |record| record.to_key_value(version.main))
        .map(Some)
}

/// The watch of a create request; `None` for other requests.
pub(super) fn from_request(request: PbWatchRequestUnion) -> Option<NewWatch> {
    let PbWatchRequestUnion::CreateRequest(request) = request else {
        return None;
    };
    let without = |filter: WatchFilterType| request.filters.contains(&(filter as i32));
    let key = if request.key.is_empty() { vec![0] } else { request.key.clone() };
    let range = KeyRange::new(&key, &request.range_end);
    Some(NewWatch {
        start: u64::try_from(request.start_revision).unwrap_or(0),
        id: request.watch_id,
        watcher: Watcher {
            id: request.watch_id,
            range,
            next: 0,
            progress_notify: request.progress_notify,
            active: false,
            puts: !without(WatchFilterType::NoPut),
            deletions: !without(WatchFilterType::NoDelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
        },
    })
}

/// A watch that a client has requested.
pub(super) struct NewWatch {
    /// The revision to start at; zero for the current one.
    pub(super) start: u64,
    /// The id that the client requested; zero for any.
    pub(super) id: i64,
    pub(super) watcher: Watcher,
}

/// A response about a watch, without events.
pub(super) fn empty_response(header: PbResponseHeader, watch_id: i64) -> PbWatchResponse {
    PbWatchResponse { header: Some(header), watch_id, ..PbWatchResponse::default() }
}
