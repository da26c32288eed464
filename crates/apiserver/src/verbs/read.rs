//! Get, list and watch, answered from the cache.

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use api::ApiError;
use api::status::FieldError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use store::{ListOptions, Revision};

use super::answer;
use crate::cache::{Filter, WatchSettings};
use crate::core::{Call, version_of};
use crate::error::store_error;
use crate::keys;
use crate::options::refuse;
use crate::request::{Options, Verb, VersionMatch};
use crate::response::{ListAnswer, Response};

/// Entries read from the store at once for a page at a revision.
const PAGE: usize = 1_000;

/// Gets the target.
///
/// # Errors
/// 404.
pub async fn get(call: Call<'_>) -> Result<Response, ApiError> {
    let cache = &call.core.cache;
    match requested(&call.options.resource_version)? {
        None => {
            cache.fresh().await?;
        }
        Some(0) => {}
        Some(revision) => {
            cache.reach(revision).await?;
        }
    }
    let resource = cache.resource(call.row());
    let version = match resource.get(&call.target.key()) {
        Some(version) => version,
        // The store says why it cannot be read, or the key has come in the meantime.
        None if resource.unreadable_count() > 0 => call.stored().await?,
        None => return Err(call.not_found()),
    };
    let version = call.core.converted(call.row(), &version).await?;
    Ok(Response::Object(answer(call.row(), 200, version)))
}

/// The number in a resource version; `None` if unset.
fn requested(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::new(
            400,
            "BadRequest",
            format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"),
        )
    })
}

/// What the request selects.
///
/// # Errors
/// 400 for a field that the kind does not support in selectors.
pub fn filter(call: Call<'_>) -> Result<Filter, ApiError> {
    let row = call.row();
    call.options.fields.check(row).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut filter = Filter::everything(row, &call.target.namespace);
    filter.labels.clone_from(&call.options.labels);
    filter.fields.clone_from(&call.options.fields);
    if !call.target.name.is_empty() {
        filter.fields.0.push(api::fields::Requirement {
            field: "metadata.name".to_owned(),
            value: call.target.name.clone(),
            equal: true,
        });
    }
    Ok(filter.converting())
}

/// Lists the objects that the request selects.
///
/// # Errors
/// 400, 410 and 504 as Kubernetes.
pub async fn list(call: Call<'_>) -> Result<ListAnswer, ApiError> {
    let mut answer = find(call).await?;
    let items = std::mem::take(&mut answer.items);
    answer.items = call.core.converted_list(call.row(), items).await?;
    Ok(answer)
}

async fn find(call: Call<'_>) -> Result<ListAnswer, ApiError> {
    let filter = filter(call)?;
    let options = call.options;
    let cache = &call.core.cache;
    check_list(options)?;
    if !options.continue_token.is_empty() {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return continued(call, &filter).await;
    }
    let version = requested(&options.resource_version)?;
    match (options.version_match, version) {
        (Some(VersionMatch::Exact), Some(revision)) => {
            return at_revision(call, &filter, revision, None).await;
        }
        // As upstream has it for clients older than `resourceVersionMatch`.
        (None, Some(revision @ 1..)) if options.limit > 0 => {
            return at_revision(call, &filter, revision, None).await;
        }
        (_, None) => cache.fresh().await?,
        (_, Some(0)) => cache.revision(),
        (_, Some(revision)) => cache.reach(revision).await?,
    };
    if cache.resource(&filter.row).unreadable(&filter).is_some() {
        return at_revision(call, &filter, cache.revision(), None).await;
    }
    from_cache(call, &filter).await
}

/// Mutually exclusive options (`ValidateListOptions`).
fn check_list(options: &Options) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let mut forbid =
        |field: &str, problem: &str| errors.push(FieldError::forbidden(field, problem));
    if let Some(matching) = options.version_match {
        let field = "resourceVersionMatch";
        if options.resource_version.is_empty() {
            forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_token.is_empty() {
            forbid(field, "resourceVersionMatch is forbidden when continue is provided");
        }
        if matching == VersionMatch::Exact && options.resource_version == "0" {
            forbid(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if options.send_initial_events.is_some() {
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    refuse(Verb::List, &errors)
}

/// As [`check_list`], for watches.
fn check_watch(options: &Options) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let field = "resourceVersionMatch";
    let newer = options.version_match == Some(VersionMatch::NotOlderThan);
    if options.send_initial_events.is_some() && !newer {
        let problem = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(field, problem));
    }
    if options.version_match.is_some() {
        if options.send_initial_events.is_none() {
            let problem =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(field, problem));
        }
        if !newer {
            errors.push(FieldError::not_supported(field, "Exact", &["NotOlderThan"]));
        }
        if !options.continue_token.is_empty() {
            let problem = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(field, problem));
        }
    }
    refuse(Verb::Watch, &errors)
}

async fn from_cache(call: Call<'_>, filter: &Filter) -> Result<ListAnswer, ApiError> {
    let cache = &call.core.cache;
    // Read first: the list then includes at least everything up to it.
    let revision = cache.revision();
    let (mut items, changed) = cache.resource(&filter.row).list_at(filter);
    let revision = revision.max(changed);
    if filter.converts() {
        items = call.core.converted_list(&filter.row, items).await?;
        items.retain(|item| filter.matches_converted(item));
    }
    let mut answer = ListAnswer {
        row: filter.row.clone(),
        items: Vec::new(),
        revision,
        continue_token: String::new(),
        remaining: None,
    };
    // As upstream, whatever is there is shown whole (`computeListLimit`).
    let any = call.options.resource_version == "0";
    let limit = if any { 0 } else { usize::try_from(call.options.limit).unwrap_or(usize::MAX) };
    if limit > 0 && items.len() > limit {
        let remaining = items.len() - limit;
        items.truncate(limit);
        if let Some(last) = items.last() {
            answer.continue_token = ContinueToken::after(&last.key(), revision).encode();
        }
        answer.remaining = (!filter.selects()).then_some(remaining as u64);
    }
    answer.items = items;
    Ok(answer)
}

/// A continue token.
#[derive(Debug, Serialize, Deserialize)]
struct ContinueToken {
    v: String,
    /// The revision of the whole list; -1: the latest.
    rv: i64,
    /// Key within the resource to start from, inclusive.
    start: String,
}

impl ContinueToken {
    fn after(key: &str, revision: u64) -> Self {
        Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv: i64::try_from(revision).unwrap_or(i64::MAX),
            start: format!("{key}\0"),
        }
    }

    fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).expect("a token is plain data"))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| {
            ApiError::bad_request(format!("invalid continue token: continue key is not valid{why}"))
        };
        let json = BASE64.decode(text.trim_end_matches('=')).map_err(|_| {
            invalid(&format!(": illegal base64 data at input byte {}", bad_byte(text)))
        })?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| invalid(""))?;
        match &token {
            token if token.v != "meta.k8s.io/v1" => Err(invalid(&format!(
                ": server does not recognize this encoded version: {}",
                token.v
            ))),
            Self { rv: 0, .. } => {
                Err(invalid(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))
            }
            token if token.start.is_empty() => {
                Err(invalid(": encoded start key empty (version meta.k8s.io/v1)"))
            }
            token if token.start.contains("..") => Err(invalid(&format!(": {}", token.start))),
            _ => Ok(token),
        }
    }
}

/// The position of the first byte that is not base64.
fn bad_byte(text: &str) -> usize {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let bad = text.bytes().position(|byte| !fits(byte));
    bad.unwrap_or(text.len())
}

async fn continued(call: Call<'_>, filter: &Filter) -> Result<ListAnswer, ApiError> {
    let mut token = ContinueToken::decode(&call.options.continue_token)?;
    let revision = match u64::try_from(token.rv) {
        Ok(revision) => revision,
        Err(_) => call.core.cache.fresh().await?,
    };
    let page = at_revision(call, filter, revision, Some(token.start.clone())).await;
    page.map_err(|error| {
        if !error.is_expired() {
            return error;
        }
        token.rv = -1;
        let mut expired = ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        expired.status_mut().metadata.continue_ = Some(token.encode());
        expired
    })
}

/// A page of the state at a revision, from the store's history.
async fn at_revision(
    call: Call<'_>,
    filter: &Filter,
    revision: u64,
    start: Option<String>,
) -> Result<ListAnswer, ApiError> {
    let row = &filter.row;
    let prefix = keys::prefix(row, &filter.namespace);
    let whole = keys::prefix(row, "").len();
    let from =
        start.map(|start| keys::object(row, &start)).filter(|from| from.starts_with(&prefix));
    let limit = usize::try_from(call.options.limit).unwrap_or(usize::MAX);
    let mut options = ListOptions {
        prefix,
        limit: if limit == 0 || filter.selects() { PAGE } else { limit.min(PAGE) },
        revision: Revision::new(revision),
        from,
        ..ListOptions::default()
    };
    let mut answer = ListAnswer {
        row: row.clone(),
        items: Vec::new(),
        revision,
        continue_token: String::new(),
        remaining: None,
    };
    loop {
        let page =
            call.core.store.list(options.clone()).await.map_err(|error| store_error(&error))?;
        let next = page.next_from();
        let mut read = 0;
        let versions = page
            .entries
            .iter()
            .map(|entry| version_of(row, &String::from_utf8_lossy(&entry.key[whole..]), entry));
        let mut versions: Vec<_> = versions.collect::<Result<_, _>>()?;
        if filter.converts() {
            versions = call.core.converted_list(row, versions).await?;
        }
        for version in versions {
            if limit > 0 && answer.items.len() == limit {
                break;
            }
            read += 1;
            if filter.matches_converted(&version) {
                answer.items.push(version);
            }
        }
        let full = limit > 0 && answer.items.len() == limit;
        let more = next.is_some() || read < page.entries.len();
        if full && more {
            let last = &page.entries[read - 1].key[whole..];
            answer.continue_token =
                ContinueToken::after(&String::from_utf8_lossy(last), revision).encode();
            answer.remaining = (!filter.selects()).then(|| page.count.saturating_sub(read as u64));
            return Ok(answer);
        }
        match next {
            Some(next) => options.from = Some(next),
            None => return Ok(answer),
        }
    }
}

/// Watches what the request selects.
///
/// # Errors
/// 400, 410 and 504 as Kubernetes.
pub async fn watch(call: Call<'_>) -> Result<Response, ApiError> {
    let filter = filter(call)?;
    let options = call.options;
    let cache = &call.core.cache;
    check_watch(options)?;
    let version = requested(&options.resource_version)?;
    let streaming = options.send_initial_events == Some(true);
    let since = match version {
        None => {
            cache.fresh().await?;
            (options.send_initial_events == Some(false)).then(|| cache.revision())
        }
        Some(0) => (options.send_initial_events == Some(false)).then(|| cache.revision()),
        Some(revision) => {
            cache.reach(revision).await?;
            (!streaming).then_some(revision)
        }
    };
    if since.is_none()
        && let Some(reason) = cache.resource(&filter.row).unreadable(&filter)
    {
        return Err(ApiError::internal(reason));
    }
    let settings = WatchSettings {
        bookmarks: options.allow_bookmarks,
        initial_end: streaming && options.allow_bookmarks,
        timeout: options.timeout,
        after: since.unwrap_or_else(|| cache.revision()),
    };
    let watcher = cache.watch(filter, since, settings)?;
    if call.row().custom.is_none() {
        return Ok(Response::Watch(Box::new(watcher)));
    }
    let (core, row) = (call.core.itself.clone(), call.row().clone());
    let conversion = move |versions| {
        let (core, row) = (core.clone(), row.clone());
        async move {
            let gone = || ApiError::service_unavailable("the apiserver is shutting down");
            core.upgrade().ok_or_else(gone)?.converted_list(&row, versions).await
        }
        .boxed()
    };
    Ok(Response::Watch(Box::new(watcher.converted(call.row(), Arc::new(conversion)))))
}
