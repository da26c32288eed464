//! Secrets.

use super::check::{self, Errors};
use super::columns;
use super::config_map::{MAX_BYTES, immutable};
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// Annotation that names the account of a token.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// The strategy of Secrets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Type", "Used to facilitate programmatic handling of secret data."),
    columns::integer("Data", "Number of entries."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = Secret;

    /// `stringData` is a write-only way to set `data`: it takes precedence and is never stored.
    fn default(&self, secret: &mut Secret) {
        fill::text(&mut secret.type_, "Opaque");
        for (key, text) in secret.string_data.take().into_iter().flatten() {
            let value = k8s_openapi::ByteString(text.into_bytes());
            secret.data.get_or_insert_default().insert(key, value);
        }
    }

    /// Leaving the type out does not remove it.
    fn prepare_update(&self, new: &mut Secret, old: &Secret, _: &super::Context<'_>) {
        if new.type_.as_deref().unwrap_or_default().is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn validate(&self, secret: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        for (key, value) in secret.data.iter().flatten() {
            check::invalid(
                api::names::config_map_key(key),
                key,
                &Path::new("data").key(key),
                &mut errors,
            );
            size += value.0.len();
        }
        if size > MAX_BYTES {
            errors.push(FieldError::too_long("data", MAX_BYTES));
        }
        validate_type(secret, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Secret, old: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.type_ != old.type_ {
            errors.push(FieldError::invalid("type", &new.type_, check::IMMUTABLE));
        }
        if old.immutable == Some(true) {
            let changed =
                [("immutable", new.immutable != Some(true)), ("data", new.data != old.data)];
            immutable(&changed, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&secret.metadata),
            secret.type_.clone().unwrap_or_default().into(),
            secret.data.as_ref().map_or(0, |data| data.len()).into(),
            columns::age(&secret.metadata, now),
        ]
    }
}

/// The keys that a secret of a type must have.
fn validate_type(secret: &Secret, errors: &mut Errors) {
    let data = Path::new("data");
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let mut needs = |keys: &[&str]| {
        for key in keys.iter().filter(|key| !has(key)) {
            errors.push(FieldError::required(data.key(key), ""));
        }
    };
    match check::text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            if annotations.and_then(|all| all.get(ACCOUNT)).is_none_or(|name| name.is_empty()) {
                let path = Path::new("metadata").child("annotations").key(ACCOUNT);
                errors.push(FieldError::required(path, ""));
            }
        }
        "kubernetes.io/dockercfg" => needs_json(secret, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => needs_json(secret, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            needs(&["username", "password"])
        }
        "kubernetes.io/ssh-auth" => needs(&["ssh-privatekey"]),
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn needs_json(secret: &Secret, key: &str, errors: &mut Errors) {
    let path = Path::new("data").key(key);
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        None => errors.push(FieldError::required(path, "")),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<Value>(&bytes.0) {
                errors.push(FieldError::invalid(
                    path,
                    "<secret contents redacted>",
                    error.to_string(),
                ));
            }
        }
    }
}
