//! Kubernetes' options from query parameters. A verb only reads its own: those of a proxied server
//! are not ours to judge, and unknown ones are ignored, as Kubernetes does.

use std::time::Duration;

use api::status::FieldError;
use api::{ApiError, fields, labels};

use crate::request::{FieldValidation, Options, Verb, VersionMatch};

/// Longest name of a field manager, in bytes.
const MANAGER_MAX: usize = 128;

/// Parses a verb's options from `options.parameters`.
///
/// # Errors
/// 400 for what cannot be parsed, 422 for unsupported values.
pub fn of_verb(verb: Verb, options: Options) -> Result<Options, ApiError> {
    let time_limit = match verb {
        Verb::Watch | Verb::Connect { .. } => None,
        _ => time_limit(&options)?,
    };
    let options = Options { time_limit, ..options };
    match verb {
        Verb::Get => Ok(Options { resource_version: options.text("resourceVersion"), ..options }),
        Verb::List | Verb::Watch => of_list(options),
        Verb::DeleteCollection => write(verb, of_list(options)?),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => write(verb, options),
        Verb::Connect { .. } => Ok(options),
    }
}

fn of_list(options: Options) -> Result<Options, ApiError> {
    let selector = |error: labels::SelectorError| ApiError::bad_request(error.to_string());
    let seconds = number(&options, "timeoutSeconds")?;
    Ok(Options {
        labels: labels::Selector::parse(&options.text("labelSelector")).map_err(selector)?,
        fields: fields::Selector::parse(&options.text("fieldSelector")).map_err(selector)?,
        resource_version: options.text("resourceVersion"),
        version_match: version_match(&options.text("resourceVersionMatch"))?,
        limit: number(&options, "limit")?,
        continue_token: options.text("continue"),
        allow_bookmarks: options.flag("allowWatchBookmarks"),
        send_initial_events: options
            .parameter("sendInitialEvents")
            .map(|_| options.flag("sendInitialEvents")),
        timeout: (seconds > 0).then(|| Duration::from_secs(seconds)),
        ..options
    })
}

/// A number; a negative one counts as unset.
fn number(options: &Options, name: &str) -> Result<u64, ApiError> {
    match options.parameter(name) {
        None => Ok(0),
        Some(text) => Ok(u64::try_from(integer(text)?).unwrap_or(0)),
    }
}

/// A parameter that Go parses as an int64.
///
/// # Errors
/// 400 in Go's words.
pub fn integer(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

/// Parses `timeout`, which any request that is not a stream may have.
///
/// # Errors
/// 400 for what is not a duration.
pub fn time_limit(options: &Options) -> Result<Option<Duration>, ApiError> {
    let text = options.parameter("timeout").unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    api::duration::parse(text).map(Some).map_err(|error| {
        ApiError::bad_request(format!("invalid timeout specified in the request URL - {error}"))
    })
}

fn write(verb: Verb, options: Options) -> Result<Options, ApiError> {
    let values: Vec<&str> = options.values("dryRun").collect();
    let mut errors = Vec::new();
    let dry_run = dry_run(&values, &mut errors);
    let (validation, manager) = (options.text("fieldValidation"), options.text("fieldManager"));
    // A deletion has neither.
    let whole = !matches!(verb, Verb::Delete | Verb::DeleteCollection);
    let field_validation = match whole {
        true => field_validation(&validation, &mut errors),
        false => FieldValidation::default(),
    };
    if whole {
        field_manager(&manager, &mut errors);
    }
    let force = options.flag("force");
    let apply = options.patch_type == Some(crate::request::PatchType::Apply);
    if verb == Verb::Patch && !apply && options.parameter("force").is_some() {
        let problem = "may not be specified for non-apply patch";
        errors.push(FieldError::forbidden("force", problem));
    }
    refuse(verb, &errors)?;
    Ok(Options { dry_run, field_validation, field_manager: manager, force, ..options })
}

/// The name of a verb's options in Kubernetes' errors.
fn kind(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        _ => "ListOptions",
    }
}

/// Refuses the options of a verb if there are errors.
///
/// # Errors
/// 422 with the errors.
pub fn refuse(verb: Verb, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid_options(kind(verb), errors))
}

/// Parses `resourceVersionMatch`.
///
/// # Errors
/// 422 for an unsupported value.
pub fn version_match(text: &str) -> Result<Option<VersionMatch>, ApiError> {
    match text {
        "" => Ok(None),
        "Exact" => Ok(Some(VersionMatch::Exact)),
        "NotOlderThan" => Ok(Some(VersionMatch::NotOlderThan)),
        other => {
            let supported = ["Exact", "NotOlderThan", ""];
            let error = FieldError::not_supported("resourceVersionMatch", other, &supported);
            refuse(Verb::List, &[error]).map(|()| None)
        }
    }
}

/// Parses `fieldValidation`.
pub fn field_validation(text: &str, errors: &mut Vec<FieldError>) -> FieldValidation {
    match text {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["Ignore", "Strict", "Warn"];
            errors.push(FieldError::not_supported("fieldValidation", other, &supported));
            FieldValidation::default()
        }
    }
}

/// Checks the name of a field manager.
pub fn field_manager(name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > MANAGER_MAX {
        errors.push(FieldError::too_long("fieldManager", MANAGER_MAX));
    }
    if name.chars().any(char::is_control) {
        let problem = "should only contain printable characters";
        errors.push(FieldError::invalid("fieldManager", name, problem));
    }
}

/// Parses the values of `dryRun`.
pub fn dry_run(values: &[&str], errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.iter().copied().filter(|v| !v.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported("dryRun", &values, &["All"]));
    }
    !values.is_empty()
}
