//! Secrets.

use api::names;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::at::At;
use super::columns::{integer, text};
use super::config_map::{MAX_BYTES, immutable};
use super::table::{Parts, Rows, age, name};
use super::{check, fill};

/// Annotation that names the account of a token.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

pub static RULES: Rows<Secret> = Rows {
    // `stringData` is a write-only way to set `data`: it takes precedence and is never stored.
    default: |secret| {
        fill::text(&mut secret.type_, "Opaque");
        for (key, text) in secret.string_data.take().into_iter().flatten() {
            let value = k8s_openapi::ByteString(text.into_bytes());
            secret.data.get_or_insert_default().insert(key, value);
        }
    },
    parts: Parts {
        // Leaving the type out does not remove it.
        update: |new, old, _| {
            if check::text(&new.type_).is_empty() {
                new.type_.clone_from(&old.type_);
            }
        },
        ..Rows::NEW.parts
    },
    judge: |secret, at| {
        let mut size = 0;
        for (key, value) in secret.data.iter().flatten() {
            at.entry("data", key).texts(names::config_map_key(key), key);
            size += value.0.len();
        }
        at.child("data").max_bytes(size, MAX_BYTES);
        judge_type(secret, at);
    },
    update: |new, old, at| {
        if new.type_ != old.type_ {
            at.child("type").invalid(&new.type_, check::IMMUTABLE);
        }
        if old.immutable == Some(true) {
            immutable("immutable", new.immutable != Some(true), at);
            immutable("data", new.data != old.data, at);
        }
    },
    columns: &[
        name(),
        text("Type", "Used to facilitate programmatic handling of secret data.")
            .of(|secret| secret.type_.clone().unwrap_or_default().into()),
        integer("Data", "Number of entries.")
            .of(|secret| secret.data.as_ref().map_or(0, |data| data.len()).into()),
        age(),
    ],
    ..Rows::NEW
};

/// The keys that a secret of a type must have.
fn judge_type(secret: &Secret, at: &At<'_>) {
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let needs = |keys: &[&str]| {
        for key in keys.iter().filter(|key| !has(key)) {
            at.entry("data", key).required("");
        }
    };
    match check::text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            if annotations.and_then(|all| all.get(ACCOUNT)).is_none_or(|name| name.is_empty()) {
                at.entry("metadata.annotations", ACCOUNT).required("");
            }
        }
        "kubernetes.io/dockercfg" => needs_json(secret, ".dockercfg", at),
        "kubernetes.io/dockerconfigjson" => needs_json(secret, ".dockerconfigjson", at),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            needs(&["username", "password"])
        }
        "kubernetes.io/ssh-auth" => needs(&["ssh-privatekey"]),
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn needs_json(secret: &Secret, key: &str, at: &At<'_>) {
    let at = at.entry("data", key);
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        None => at.required(""),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<Value>(&bytes.0) {
                at.invalid("<secret contents redacted>", error.to_string());
            }
        }
    }
}
