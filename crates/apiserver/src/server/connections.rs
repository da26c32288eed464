//! The open connections: how many there may be, and when one that does nothing is closed.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::shares::{self, Shares};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections of the port.
const CONNECTIONS: usize = 10_000;
/// Connections of clients that have not shown valid credentials. When there are more, the oldest is
/// closed: a client that has some shows them at once.
const UNPROVEN: usize = 1_000;
/// Connections of one user that do not have to make room for others.
const SHARE: usize = 4_000;
/// How long the head of a request may take to arrive, from its first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The open connections.
pub struct Connections {
    places: Arc<Semaphore>,
    unproven: Mutex<Unproven>,
    users: Shares<String>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            unproven: Mutex::default(),
            users: Shares::new(CONNECTIONS, SHARE),
        }
    }
}

#[derive(Default)]
struct Unproven {
    /// Number of the next connection.
    next: u64,
    /// From the oldest to the newest.
    open: BTreeMap<u64, CancellationToken>,
}

/// One connection among the others.
pub struct Place {
    all: Arc<Connections>,
    number: u64,
    /// Cancelled when the connection has to make room.
    pub evicted: CancellationToken,
    /// In the share of the user whom the connection has been proven to be of.
    user: OnceLock<shares::Place<String>>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    /// A place for a new connection; `None` when there are too many.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let evicted = CancellationToken::new();
        let mut unproven = self.unproven.lock();
        let number = unproven.next;
        unproven.next += 1;
        unproven.open.insert(number, evicted.clone());
        if unproven.open.len() > UNPROVEN
            && let Some((_, oldest)) = unproven.open.pop_first()
        {
            oldest.cancel();
        }
        drop(unproven);
        Some(Place { all: self.clone(), number, evicted, user: OnceLock::new(), _place: place })
    }
}

impl Place {
    /// The client has a user's valid credentials: the connection does not have to make room any more,
    /// unless the user has enough that do not. False: it has.
    pub fn prove(&self, user: &str) -> bool {
        let Ok(place) = self.all.users.take(user.to_owned()) else { return false };
        if self.user.set(place).is_ok() {
            self.leave();
        }
        true
    }

    fn leave(&self) {
        self.all.unproven.lock().open.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What happens on a connection.
pub struct Activity {
    pub place: Place,
    /// Requests that are being answered.
    requests: AtomicUsize,
    /// Whether there has been a request, and whether that was HTTP/1.
    spoken: AtomicBool,
    http1: AtomicBool,
    proven: AtomicBool,
    /// Since when the head of the next request has been arriving.
    head: Mutex<Option<Instant>>,
    begun: Notify,
}

/// A request that is being answered, until this is dropped.
pub struct Ongoing(Arc<Activity>);

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    pub fn new(place: Place) -> Arc<Self> {
        Arc::new(Self {
            place,
            requests: AtomicUsize::new(0),
            spoken: AtomicBool::new(false),
            http1: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            head: Mutex::new(None),
            begun: Notify::new(),
        })
    }

    /// The head of a request has arrived.
    pub fn request(self: &Arc<Self>, version: http::Version) -> Ongoing {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.spoken.store(true, Ordering::Relaxed);
        self.http1.store(version < http::Version::HTTP_2, Ordering::Relaxed);
        *self.head.lock() = None;
        Ongoing(self.clone())
    }

    /// Whether there has been a request.
    pub fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// The client has shown a user's valid credentials.
    pub fn prove(&self, user: &str) {
        if !self.proven.load(Ordering::Relaxed) && self.place.prove(user) {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    fn received(&self) {
        // Between the requests of HTTP/2 there are other frames, and its heads come in one piece.
        if self.http1.load(Ordering::Relaxed) && self.requests.load(Ordering::Relaxed) == 0 {
            let mut head = self.head.lock();
            if head.is_none() {
                *head = Some(clock::instant());
                self.begun.notify_one();
            }
        }
    }

    /// Returns when the head of a request has not arrived in time.
    pub async fn late(&self) {
        loop {
            let begun = *self.head.lock();
            let Some(begun) = begun else {
                self.begun.notified().await;
                continue;
            };
            tokio::time::sleep_until(begun + HEAD_TIME).await;
            if *self.head.lock() == Some(begun) {
                return;
            }
        }
    }
}

/// A connection's stream, which reports what arrives. It holds the connection's place also after an
/// upgrade.
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn the_oldest_connection_without_credentials_makes_room() {
        let all = Arc::new(Connections::default());
        let proven = all.enter().unwrap();
        assert!(proven.prove("bob"));
        let mut open: Vec<_> = (0..UNPROVEN).map(|_| all.enter().unwrap()).collect();
        assert!(!open[0].evicted.is_cancelled());
        let newest = all.enter().unwrap();
        assert!(open[0].evicted.is_cancelled());
        assert!(!open[1].evicted.is_cancelled() && !newest.evicted.is_cancelled());
        // Those that have ended count no more.
        open.truncate(UNPROVEN / 2);
        let more: Vec<_> = (0..UNPROVEN / 2).map(|_| all.enter().unwrap()).collect();
        assert!(!open[1].evicted.is_cancelled());
        assert!(!proven.evicted.is_cancelled());
        drop((open, more, newest));
        assert!(all.unproven.lock().open.is_empty());
    }

    #[test]
    fn connections_are_bounded_also_with_credentials() {
        let all = Arc::new(Connections::default());
        let places: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                let place = all.enter().unwrap();
                assert!(place.prove(["a", "b", "c"][index % 3]));
                place
            })
            .collect();
        assert!(all.enter().is_none());
        drop(places);
        assert!(all.enter().is_some());
    }

    #[test]
    fn one_user_cannot_keep_all_connections() {
        let all = Arc::new(Connections::default());
        let share: Vec<_> = (0..SHARE)
            .map(|_| {
                let place = all.enter().unwrap();
                assert!(place.prove("bob"));
                place
            })
            .collect();
        let more: Vec<_> = (0..=UNPROVEN)
            .map(|_| {
                let place = all.enter().unwrap();
                assert!(!place.prove("bob"));
                place
            })
            .collect();
        assert!(more[0].evicted.is_cancelled() && !more[1].evicted.is_cancelled());
        assert!(share.iter().all(|place| !place.evicted.is_cancelled()));
        drop(share);
        assert!(more[1].prove("bob"));
    }

    /// The time of a head counts from its first byte: neither a client that waits between requests
    /// nor a long answer is late.
    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_late_and_idleness_is_not() {
        let activity = Activity::new(Arc::new(Connections::default()).enter().unwrap());
        let (mut client, server) = tokio::io::duplex(64);
        let mut stream = Watched::new(server, activity.clone());
        let late = std::pin::pin!(activity.late());
        let mut late: Pin<&mut dyn Future<Output = ()>> = late;
        async fn waits(late: &mut Pin<&mut dyn Future<Output = ()>>, seconds: u64) -> bool {
            tokio::time::timeout(Duration::from_secs(seconds), late.as_mut()).await.is_err()
        }
        let request = activity.request(http::Version::HTTP_11);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"body").await.unwrap();
        stream.read_u32().await.unwrap();
        assert!(waits(&mut late, 1_000).await, "a body does not count as a head");
        drop(request);
        assert!(waits(&mut late, 1_000).await, "idle");
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET ").await.unwrap();
        stream.read_u32().await.unwrap();
        assert!(waits(&mut late, HEAD_TIME.as_secs() - 1).await);
        assert!(!waits(&mut late, 2).await, "the rest never came");
    }
}
