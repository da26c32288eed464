//! EventRateLimit: how many Events may be written, in all and by namespace, user or subject
//! (`k8s.io/kubernetes/plugin/pkg/admission/eventratelimit`).

use std::sync::Arc;
use std::time::Instant;

use api::ApiError;
use api::object::Object;
use api::status::FieldError;
use k8s_openapi::api::core::v1::Event;
use moka::sync::Cache;
use parking_lot::Mutex;
use serde::Deserialize;

use super::attributes::Attributes;
use super::configuration::decode;
use crate::configuration::{Unusable, aggregate};

const KINDS: &[(&str, &str)] = &[("eventratelimit.admission.k8s.io/v1alpha1", "Configuration")];
/// Keys that are remembered, unless the configuration says otherwise.
const CACHE_SIZE: u64 = 4_096;
const TYPES: &[&str] = &["Namespace", "Server", "SourceAndObject", "User"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    limits: Vec<Given>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Given {
    r#type: String,
    qps: i32,
    burst: i32,
    cache_size: i32,
}

/// What the plugin is told.
#[derive(Debug, Default)]
pub struct EventLimits(Vec<Limit>);

/// A limit, and the buckets of its keys.
#[derive(Debug)]
struct Limit {
    kind: &'static str,
    per_second: f64,
    burst: f64,
    buckets: Cache<String, Arc<Mutex<Bucket>>>,
}

/// How many may pass at once, as of an instant.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Decodes what the plugin is told.
///
/// # Errors
/// What is wrong with it: it cannot do without.
pub fn configured(text: Option<&str>) -> Result<EventLimits, Unusable> {
    let given: Option<Configuration> = text.map(|text| decode(text, KINDS)).transpose()?;
    let given = given.map(|given| given.limits);
    let mut errors = Vec::new();
    if given.as_ref().is_none_or(Vec::is_empty) {
        let value = given.as_ref().map(|_| Vec::<()>::new());
        errors.push(FieldError::invalid("limits", value, "must not be empty"));
    }
    let mut limits = Vec::new();
    for (index, limit) in given.into_iter().flatten().enumerate() {
        let path = format!("limits[{index}]");
        let kind = TYPES.iter().copied().find(|kind| *kind == limit.r#type);
        if kind.is_none() {
            let field = format!("{path}.type");
            errors.push(FieldError::not_supported(field, &limit.r#type, TYPES));
        }
        for (field, number) in [("burst", limit.burst), ("qps", limit.qps)] {
            if number <= 0 {
                let field = format!("{path}.{field}");
                errors.push(FieldError::invalid(field, number, "must be positive"));
            }
        }
        if kind != Some("Server") && limit.cache_size < 0 {
            let field = format!("{path}.cacheSize");
            errors.push(FieldError::invalid(field, limit.cache_size, "must not be negative"));
        }
        limits.extend(kind.map(|kind| Limit::new(kind, &limit)));
    }
    match aggregate(&errors) {
        Some(problem) => Err(Unusable(problem)),
        None => Ok(EventLimits(limits)),
    }
}

/// Takes what an Event uses of each limit. A dry run uses nothing.
///
/// # Errors
/// 429 when a limit is reached.
pub fn check(attributes: &Attributes<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let call = attributes.call;
    if call.options.dry_run {
        return Ok(());
    }
    let EventLimits(limits) = &call.core.admission.settings.event_limits;
    let now = clock::monotonic();
    let reached: Vec<String> = limits
        .iter()
        .filter_map(|limit| {
            let key = match limit.kind {
                "Namespace" => call.target.namespace.clone(),
                "User" => call.user.name.clone(),
                "SourceAndObject" => subject(object),
                _ => String::new(),
            };
            let text = format!("limit reached on type {} for key {key}", limit.kind);
            (!limit.allows(key, now)).then_some(text)
        })
        .collect();
    match &reached[..] {
        [] => Ok(()),
        [one] => Err(refusal(one)),
        many => Err(refusal(&format!("[{}]", many.join(", ")))),
    }
}

fn refusal(why: &str) -> ApiError {
    ApiError::new(429, "TooManyRequests", format!("Too many requests: {why}"))
}

/// Whose Event it is, and what it is about.
fn subject(object: &dyn Object) -> String {
    let Some(event) = object.downcast_ref::<Event>() else {
        return String::new();
    };
    let (source, about) = (event.source.as_ref(), &event.involved_object);
    [
        source.and_then(|source| source.component.as_deref()),
        source.and_then(|source| source.host.as_deref()),
        about.kind.as_deref(),
        about.namespace.as_deref(),
        about.name.as_deref(),
        about.uid.as_deref(),
        about.api_version.as_deref(),
    ]
    .map(Option::unwrap_or_default)
    .concat()
}

impl Limit {
    fn new(kind: &'static str, given: &Given) -> Self {
        let size = u64::try_from(given.cache_size).ok().filter(|size| *size > 0);
        Self {
            kind,
            per_second: f64::from(given.qps),
            burst: f64::from(given.burst),
            buckets: Cache::new(size.unwrap_or(CACHE_SIZE)),
        }
    }

    fn allows(&self, key: String, now: Instant) -> bool {
        let full = || Arc::new(Mutex::new(Bucket { tokens: self.burst, at: now }));
        let bucket = self.buckets.get_with(key, full);
        let mut bucket = bucket.lock();
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.per_second).min(self.burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_fills_again() {
        let given = Given { r#type: "User".to_owned(), qps: 2, burst: 3, cache_size: 0 };
        let limit = Limit::new("User", &given);
        let start = clock::monotonic();
        let allowed = |key: &str, millis: u64| {
            limit.allows(key.to_owned(), start + Duration::from_millis(millis))
        };
        for (key, millis, expected) in [
            ("a", 0, true),
            ("a", 0, true),
            ("a", 0, true),
            ("a", 0, false),
            ("b", 0, true),
            ("a", 400, false),
            ("a", 500, true),
            ("a", 500, false),
            ("a", 10_000, true),
            ("a", 10_000, true),
            ("a", 10_000, true),
            ("a", 10_000, false),
        ] {
            assert_eq!(allowed(key, millis), expected, "{key} after {millis} ms");
        }
    }
}
