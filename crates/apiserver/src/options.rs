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
pub fn of_verb(verb: Verb, options: &mut Options) -> Result<(), ApiError> {
    // Before anything that may be wrong, since the right to one object is a right to select it.
    let fields = match verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection => select_fields(options),
        _ => Ok(()),
    };
    if !matches!(verb, Verb::Watch | Verb::Connect { .. }) {
        limit_time(options)?;
    }
    match verb {
        Verb::Get => options.resource_version = options.text("resourceVersion"),
        Verb::List | Verb::Watch => fields.and_then(|()| of_list(options))?,
        Verb::DeleteCollection => {
            fields.and_then(|()| of_list(options))?;
            write(verb, options)?;
        }
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => write(verb, options)?,
        Verb::Connect { .. } => {}
    }
    Ok(())
}

fn selector_error(error: labels::SelectorError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn select_fields(options: &mut Options) -> Result<(), ApiError> {
    let text = options.text("fieldSelector");
    options.fields = fields::Selector::parse(&text).map_err(selector_error)?;
    Ok(())
}

fn of_list(options: &mut Options) -> Result<(), ApiError> {
    let seconds = number(options, "timeoutSeconds")?;
    options.timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
    options.labels =
        labels::Selector::parse(&options.text("labelSelector")).map_err(selector_error)?;
    options.resource_version = options.text("resourceVersion");
    options.version_match = version_match(&options.text("resourceVersionMatch"))?;
    options.limit = number(options, "limit")?;
    options.continue_token = options.text("continue");
    options.allow_bookmarks = options.flag("allowWatchBookmarks");
    let initial = options.parameter("sendInitialEvents").is_some();
    options.send_initial_events = initial.then(|| options.flag("sendInitialEvents"));
    Ok(())
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
pub fn limit_time(options: &mut Options) -> Result<(), ApiError> {
    let text = options.parameter("timeout").unwrap_or_default();
    if !text.is_empty() {
        let limit = api::duration::parse(text).map_err(|error| {
            ApiError::bad_request(format!("invalid timeout specified in the request URL - {error}"))
        })?;
        options.time_limit = Some(limit);
    }
    Ok(())
}

fn write(verb: Verb, options: &mut Options) -> Result<(), ApiError> {
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
    (options.dry_run, options.force) = (dry_run, force);
    (options.field_validation, options.field_manager) = (field_validation, manager);
    Ok(())
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
