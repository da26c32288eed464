//! One watch: a cursor into a bucket, a filter, and bookmarks.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, KindRef};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bucket::{Bucket, Change, Event};
use super::resource::WatchStart;
use super::{Filter, Version};

/// How often an idle watch gets a bookmark.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events read from a bucket at once.
const BATCH: usize = 256;
/// Events are sent together up to about this many bytes of objects.
const BATCH_BYTES: usize = 64 << 10;

/// What a watch sends to its client.
#[derive(Debug)]
pub enum WatchEvent {
    /// An object of the initial state.
    Initial(Arc<Version>),
    Changed(Change, Arc<Event>),
    /// Everything up to `revision` has been sent; `initial_end`: so has the initial state.
    Bookmark {
        revision: u64,
        initial_end: bool,
    },
}

impl WatchEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Initial(version) => version.json.len(),
            Self::Changed(_, event) => event.bytes(),
            Self::Bookmark { .. } => 0,
        }
    }

    fn object(&self) -> Option<&Arc<Version>> {
        match self {
            Self::Initial(version) => Some(version),
            Self::Changed(change, event) => Some(event.object(*change)),
            Self::Bookmark { .. } => None,
        }
    }

    /// The states of the object that decide whether the event is seen.
    fn states(&self) -> impl Iterator<Item = &Arc<Version>> {
        let states = match self {
            Self::Initial(version) => [Some(version), None],
            Self::Changed(_, event) => [event.old.as_ref(), event.new.as_ref()],
            Self::Bookmark { .. } => [None, None],
        };
        states.into_iter().flatten()
    }

    /// What the event is to a client, of whose version the states are.
    fn judged(
        self,
        filter: &Filter,
        states: &mut impl Iterator<Item = Arc<Version>>,
    ) -> Option<Self> {
        match self {
            Self::Initial(_) => {
                states.next().filter(|state| filter.matches_converted(state)).map(Self::Initial)
            }
            Self::Changed(_, event) => {
                let old = event.old.as_ref().and_then(|_| states.next());
                let new = event.new.as_ref().and_then(|_| states.next());
                let event = Arc::new(Event::new(event.revision, old, new));
                visible_event(event, |version| filter.matches_converted(version))
            }
            bookmark @ Self::Bookmark { .. } => Some(bookmark),
        }
    }

    /// The same event, about the next of the objects if it is about one.
    fn with_object(self, objects: &mut impl Iterator<Item = Arc<Version>>) -> Self {
        let object = self.object().is_some().then(|| objects.next()).flatten();
        match (self, object) {
            (Self::Initial(_), Some(object)) => Self::Initial(object),
            (Self::Changed(change, event), Some(object)) => {
                let (old, new) = match change {
                    Change::Deleted => (Some(object), None),
                    Change::Added | Change::Modified => (None, Some(object)),
                };
                Self::Changed(change, Arc::new(Event::new(event.revision, old, new)))
            }
            (event, _) => event,
        }
    }
}

/// A running watch.
pub struct Watcher {
    filter: Filter,
    bucket: Arc<Bucket>,
    head: watch::Receiver<u64>,
    cursor: u64,
    /// The revision that the whole cache has reached.
    progress: watch::Receiver<u64>,
    pending: VecDeque<WatchEvent>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    /// Nothing up to this revision is sent again.
    after: u64,
    shutdown: CancellationToken,
    /// Held until the initial state has been handed out.
    initializing: Option<Box<dyn Any + Send + Sync>>,
    /// How objects are converted before they are sent, and to which row.
    conversion: Option<(KindRef, Conversion)>,
}

/// Converts stored objects to another API version, and keeps their order.
pub type Conversion = Arc<
    dyn Fn(Vec<Arc<Version>>) -> BoxFuture<'static, Result<Vec<Arc<Version>>, ApiError>>
        + Send
        + Sync,
>;

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Options of a watch.
#[derive(Clone, Debug, Default)]
pub struct WatchSettings {
    pub bookmarks: bool,
    /// Send a bookmark at the end of the initial state.
    pub initial_end: bool,
    pub timeout: Option<Duration>,
    /// The revision that the watch starts from.
    pub after: u64,
}

impl Watcher {
    pub(super) fn new(
        filter: Filter,
        start: WatchStart,
        settings: WatchSettings,
        progress: watch::Receiver<u64>,
        shutdown: CancellationToken,
    ) -> Self {
        let mut pending: VecDeque<WatchEvent> =
            start.snapshot.into_iter().map(WatchEvent::Initial).collect();
        pending.extend(start.backlog.into_iter().filter_map(|event| visible(&filter, event)));
        if settings.initial_end {
            pending.push_back(WatchEvent::Bookmark { revision: settings.after, initial_end: true });
        }
        let now = clock::instant();
        Self {
            filter,
            head: start.bucket.subscribe(),
            bucket: start.bucket,
            cursor: start.cursor,
            progress,
            pending,
            bookmarks: settings.bookmarks,
            next_bookmark: now + BOOKMARK_INTERVAL,
            deadline: settings.timeout.map(|timeout| now + timeout),
            after: settings.after,
            shutdown,
            initializing: None,
            conversion: None,
        }
    }

    /// The same watch, which converts its objects before it sends them.
    pub fn converted(mut self, row: impl Into<KindRef>, conversion: Conversion) -> Self {
        self.conversion = Some((row.into(), conversion));
        self
    }

    /// The same watch, which drops `held` as soon as its initial state has been handed out.
    pub fn initializing(mut self, held: impl Any + Send + Sync) -> Self {
        if !self.pending.is_empty() {
            self.initializing = Some(Box::new(held));
        }
        self
    }

    /// The kind of the objects sent.
    pub fn row(&self) -> &KindRef {
        self.conversion.as_ref().map_or(&self.filter.row, |(row, _)| row)
    }

    /// The next events, at least one; `None` when the watch has timed out.
    ///
    /// # Errors
    /// 410 when the client is too slow for the window of events.
    pub async fn next(&mut self) -> Option<Result<Vec<WatchEvent>, ApiError>> {
        loop {
            if self.shutdown.is_cancelled() {
                return None;
            }
            if !self.pending.is_empty() {
                match self.batch().await {
                    Ok(events) if events.is_empty() => continue,
                    events => return Some(events),
                }
            }
            self.initializing = None;
            // Here and not only in `sleep`: a watch that is always behind never sleeps.
            let now = clock::instant();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                return None;
            }
            // In this order: whatever happened up to `reached` is already in the bucket.
            let reached = *self.progress.borrow();
            self.head.borrow_and_update();
            let events = match self.bucket.read(&mut self.cursor, BATCH) {
                Ok(events) => events,
                Err(_) => return Some(Err(self.too_old())),
            };
            // All changes of a revision are read together.
            let revision = events.last().map_or(reached, |last| last.revision.max(self.after));
            let behind = !events.is_empty();
            if behind {
                let visible = events
                    .into_iter()
                    .filter(|event| event.revision > self.after)
                    .filter_map(|event| visible(&self.filter, event));
                self.pending.extend(visible);
            }
            let due = self.bookmarks && now >= self.next_bookmark;
            if due {
                self.next_bookmark = now + BOOKMARK_INTERVAL;
                let bookmark = WatchEvent::Bookmark { revision, initial_end: false };
                self.pending.push_back(bookmark);
            }
            if behind || due {
                continue;
            }
            if !self.sleep().await {
                return None;
            }
        }
    }

    /// The first of the pending events; nothing, if none of them matches what it is converted to.
    /// Those that wait for a conversion are still pending if the
    /// caller does not wait for it.
    async fn batch(&mut self) -> Result<Vec<WatchEvent>, ApiError> {
        let mut bytes = 0;
        let fit = self.pending.iter().take(BATCH).take_while(|event| {
            let fits = bytes < BATCH_BYTES;
            bytes += event.bytes();
            fits
        });
        let count = fit.count();
        let Some((_, conversion)) = &self.conversion else {
            return Ok(self.pending.drain(..count).collect());
        };
        if self.filter.converts() {
            let states = self.pending.iter().take(count).flat_map(WatchEvent::states).cloned();
            let mut states = conversion(states.collect()).await?.into_iter();
            let events = self.pending.drain(..count);
            let judged = events.map(|event| event.judged(&self.filter, &mut states));
            return Ok(judged.flatten().collect());
        }
        let objects = self.pending.iter().take(count).filter_map(WatchEvent::object).cloned();
        let mut objects = conversion(objects.collect()).await?.into_iter();
        let events = self.pending.drain(..count);
        Ok(events.map(|event| event.with_object(&mut objects)).collect())
    }

    /// Waits for an event, the next bookmark or the deadline. False: the watch is over.
    async fn sleep(&mut self) -> bool {
        let far = clock::instant() + Duration::from_secs(86_400);
        let deadline = self.deadline.unwrap_or(far);
        let bookmark = if self.bookmarks { self.next_bookmark } else { far };
        tokio::select! {
            changed = self.head.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => self.deadline.is_none(),
            () = tokio::time::sleep_until(bookmark) => true,
            () = self.shutdown.cancelled() => false,
        }
    }

    fn too_old(&self) -> ApiError {
        ApiError::expired(format!(
            "too old resource version: the watch of {} fell behind the window of events",
            self.filter.row
        ))
    }
}

fn visible(filter: &Filter, event: Arc<Event>) -> Option<WatchEvent> {
    visible_event(event, |version| filter.matches(version))
}

/// What the event is to a client that sees only what matches.
fn visible_event(event: Arc<Event>, matches: impl Fn(&Version) -> bool) -> Option<WatchEvent> {
    let before = event.old.as_deref().is_some_and(&matches);
    let after = event.new.as_deref().is_some_and(&matches);
    let change = match (before, after) {
        (false, true) => Change::Added,
        (true, true) => Change::Modified,
        (true, false) => Change::Deleted,
        (false, false) => return None,
    };
    Some(WatchEvent::Changed(change, event))
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::cache::ResourceCache;

    /// A watch for which there is always another event when it has sent one.
    struct Behind {
        resource: ResourceCache,
        watcher: Watcher,
        shutdown: CancellationToken,
        revision: u64,
    }

    impl Behind {
        fn new(settings: WatchSettings) -> Self {
            let resource = ResourceCache::new(ConfigMap::ROW);
            let filter = Filter::everything(ConfigMap::ROW, "");
            let start = resource.start(&filter, Some(0)).unwrap();
            let (_, progress) = watch::channel(1_000_000);
            let shutdown = CancellationToken::new();
            let watcher = Watcher::new(filter, start, settings, progress, shutdown.clone());
            Self { resource, watcher, shutdown, revision: 0 }
        }

        /// A second later, with a new event.
        async fn next(&mut self) -> Option<Vec<WatchEvent>> {
            self.revision += 1;
            let json = br#"{"metadata":{"name":"n","namespace":"d"}}"#;
            let version = Version::from_stored(ConfigMap::ROW, "d/n", json, self.revision).unwrap();
            self.resource.apply("d/n", self.revision, Some(Arc::new(version)));
            tokio::time::advance(Duration::from_secs(1)).await;
            self.watcher.next().await.map(|events| events.unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_always_behind_ends_in_time() {
        let timeout = Some(Duration::from_secs(5));
        let mut behind = Behind::new(WatchSettings { timeout, ..WatchSettings::default() });
        for second in 1..5 {
            assert_eq!(behind.next().await.unwrap().len(), 1, "{second}");
        }
        assert!(behind.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_always_behind_gets_bookmarks_of_what_it_has_seen() {
        let mut behind = Behind::new(WatchSettings { bookmarks: true, ..WatchSettings::default() });
        let mut bookmarks = Vec::new();
        for _ in 0..150 {
            let mut seen = 0;
            for event in behind.next().await.unwrap() {
                match event {
                    WatchEvent::Changed(_, event) => seen = event.revision,
                    WatchEvent::Bookmark { revision, .. } => {
                        assert_eq!(revision, seen);
                        bookmarks.push(revision);
                    }
                    WatchEvent::Initial(_) => panic!("no initial state was requested"),
                }
            }
        }
        assert_eq!(bookmarks, [60, 120]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_always_behind_ends_with_the_server() {
        let mut behind = Behind::new(WatchSettings::default());
        assert!(behind.next().await.is_some());
        behind.shutdown.cancel();
        assert!(behind.next().await.is_none());
    }

    /// However large the objects, what is sent at once is bounded, and everything is sent.
    #[tokio::test(start_paused = true)]
    async fn batches_are_bounded_in_bytes() {
        let mut behind = Behind::new(WatchSettings::default());
        let value = "x".repeat(BATCH_BYTES / 3);
        for revision in 1..=10 {
            let json = format!(
                r#"{{"metadata":{{"name":"n","namespace":"d"}},"data":{{"k":"{value}"}}}}"#
            );
            let version =
                Version::from_stored(ConfigMap::ROW, "d/n", json.as_bytes(), revision).unwrap();
            behind.resource.apply("d/n", revision, Some(Arc::new(version)));
        }
        let mut total = 0;
        while total < 10 {
            let events = behind.watcher.next().await.unwrap().unwrap();
            assert!(events.len() <= 3, "{}", events.len());
            total += events.len();
        }
    }
}
