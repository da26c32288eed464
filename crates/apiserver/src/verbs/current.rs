//! The version of its target that a write starts from, and when a decision about it is final.
//!
//! A write starts from the cache, which may be behind the store. What it stores is safe all the
//! same, because the store compares revisions. But what it decides without storing anything
//! (nothing changes, a precondition fails, the object is terminating already, a dry run) holds only
//! while the store has that very version, so [`Current::settle`] asks the store before it lets such
//! a decision pass. No verb answers a write from the cache alone.

use std::sync::Arc;

use api::ApiError;
use store::Revision;

use crate::cache::Version;
use crate::core::{Call, version_of};
use crate::error::{WriteError, store_error};
use crate::keys;

/// How often a write is attempted before it gives up against faster writers.
pub const ATTEMPTS: usize = 256;

/// What an attempt to write has led to.
pub enum Attempt<T> {
    /// The store has applied it.
    Written(T),
    /// There is nothing to write, judging by the version that the attempt was given.
    Decided(T),
    /// Somebody else wrote first: the version they left, if any.
    Lost(Option<Arc<Version>>),
}

impl<T> Attempt<T> {
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Attempt<U> {
        match self {
            Self::Written(value) => Attempt::Written(convert(value)),
            Self::Decided(value) => Attempt::Decided(convert(value)),
            Self::Lost(newer) => Attempt::Lost(newer),
        }
    }
}

/// The version that the next attempt starts from.
pub struct Current {
    pub version: Arc<Version>,
    /// Whether the store had it after the request arrived.
    fresh: bool,
}

impl Current {
    /// The target's version in the cache, or in the store when the cache lacks it.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn of(call: Call<'_>) -> Result<Self, ApiError> {
        match call.core.cache.resource(call.row()).get(&call.target.key()) {
            Some(version) => Ok(Self { version, fresh: false }),
            None => Ok(Self { version: call.stored().await?, fresh: true }),
        }
    }

    /// The final result of an attempt that started from this version; `None`: it has to be
    /// repeated, from the version that this is now.
    ///
    /// # Errors
    /// 404 when the object has gone; the attempt's own error.
    pub async fn settle<T>(
        &mut self,
        call: Call<'_>,
        attempt: Result<Attempt<T>, WriteError>,
    ) -> Result<Option<T>, ApiError> {
        let decided = match attempt {
            Ok(Attempt::Written(done)) => return Ok(Some(done)),
            Ok(Attempt::Lost(newer)) => {
                self.replace(call, newer)?;
                return Ok(None);
            }
            Err(failed) if failed.ambiguous => return Err(failed.error),
            Ok(Attempt::Decided(done)) => Ok(done),
            Err(failed) => Err(failed.error),
        };
        if !self.fresh {
            let key = call.target.key();
            let known = Revision::new(self.version.revision);
            let asked = call.core.store.get_if_changed(keys::object(call.row(), &key), known).await;
            if let Some(changed) = asked.map_err(|error| store_error(&error))? {
                let newer = changed.entry.map(|entry| version_of(call.row(), &key, &entry));
                self.replace(call, newer.transpose()?)?;
                return Ok(None);
            }
        }
        decided.map(Some)
    }

    fn replace(&mut self, call: Call<'_>, newer: Option<Arc<Version>>) -> Result<(), ApiError> {
        self.version = newer.ok_or_else(|| call.not_found())?;
        self.fresh = true;
        Ok(())
    }
}
