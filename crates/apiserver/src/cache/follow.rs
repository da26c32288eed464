//! Acting on changes of objects, for the parts of the apiserver that keep what follows from them.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, KindRow};
use futures::FutureExt;
use futures::future::select_all;
use tokio_util::sync::CancellationToken;

use super::{Cache, Filter, WatchSettings, Watcher};
use crate::core::Core;

/// How long a watch that has ended waits before it is opened again.
const RETRY: Duration = Duration::from_millis(200);

/// That something has changed, but not what.
pub struct Changes(Vec<Watcher>);

impl Cache {
    /// Watches what the filters select, from now on.
    ///
    /// # Errors
    /// 410 when the cache has just been reset.
    pub fn changes(&self, filters: &[Filter]) -> Result<Changes, ApiError> {
        let after = self.revision();
        let watch = |filter: &Filter| {
            let settings = WatchSettings { after, ..WatchSettings::default() };
            self.watch(filter.clone(), Some(after), settings)
        };
        filters.iter().map(watch).collect::<Result<_, _>>().map(Changes)
    }
}

impl Changes {
    /// Waits for changes; those that have been made already are one.
    ///
    /// # Errors
    /// When a watch has ended.
    pub async fn next(&mut self) -> Result<(), ApiError> {
        let mut changed = self.any().await;
        while changed.is_ok()
            && let Some(more) = self.any().now_or_never()
        {
            changed = more;
        }
        changed
    }

    async fn any(&mut self) -> Result<(), ApiError> {
        let next = self.0.iter_mut().map(|watcher| Box::pin(watcher.next()));
        let ended = || ApiError::service_unavailable("the watch has ended");
        select_all(next).await.0.ok_or_else(ended)?.map(drop)
    }
}

/// Says when there is something to do for whoever follows some objects.
pub struct Follower {
    core: Arc<Core>,
    filters: Vec<Filter>,
    changes: Option<Changes>,
}

impl Follower {
    pub fn new(core: &Arc<Core>, filters: impl IntoIterator<Item = Filter>) -> Self {
        Self { core: core.clone(), filters: filters.into_iter().collect(), changes: None }
    }

    /// Follows all objects of some kinds.
    pub fn of(core: &Arc<Core>, rows: &[&'static KindRow]) -> Self {
        Self::new(core, rows.iter().map(|row| Filter::everything(*row, "")))
    }

    /// Returns once the watches are open, then when something has changed since the last time, and
    /// after `later` at the latest. Watches that have ended are opened again first.
    pub async fn next(&mut self, later: Option<Duration>) {
        if let Some(changes) = &mut self.changes {
            let ended = match later {
                Some(time) => tokio::time::timeout(time, changes.next()).await.unwrap_or(Ok(())),
                None => changes.next().await,
            };
            let Err(error) = ended else { return };
            self.failed(&error).await;
        }
        while self.changes.is_none() {
            match self.core.cache.changes(&self.filters) {
                Ok(changes) => self.changes = Some(changes),
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn failed(&mut self, error: &ApiError) {
        self.changes = None;
        let of = self.filters.first().map(|filter| &filter.row);
        tracing::debug!(?of, %error, "a watch ended");
        tokio::time::sleep(RETRY).await;
    }
}

/// Brings what follows from the objects of some kinds up to date: at once, and after their changes
/// until `shutdown`.
pub fn derive(
    core: &Arc<Core>,
    rows: &[&'static KindRow],
    shutdown: &CancellationToken,
    mut refresh: impl FnMut(&Core) + Send + 'static,
) {
    refresh(core);
    let (core, shutdown, mut changes) = (core.clone(), shutdown.clone(), Follower::of(core, rows));
    let following = async move {
        loop {
            changes.next(None).await;
            refresh(&core);
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(following).await });
}
