//! How errors are printed: kubectl's messages, on standard error, with exit code 1.

use std::fmt;
use std::process::ExitCode;

use api::ApiError;

use crate::request::Connection;

/// Several errors, each printed on lines of its own.
#[derive(Debug, Default)]
pub struct Failures(Vec<anyhow::Error>);

impl Failures {
    pub fn push(&mut self, error: anyhow::Error) {
        self.0.push(error);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Prints every error; returns success if there was none, else exit code 1.
    pub fn finish(self) -> ExitCode {
        let several = self.0.len() > 1;
        for error in &self.0 {
            let text = message(error);
            // kubectl prefixes client-side errors only when there is a single one.
            let shown = text.strip_prefix("error: ").filter(|_| several);
            eprintln!("{}", shown.unwrap_or(&text));
        }
        if self.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A usage error: what is wrong, and where to read more.
pub fn usage(verb: &str, what: impl fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{what}\nSee 'skiff {verb} -h' for help and examples")
}

/// Prints an error as kubectl prints it.
pub fn report(error: &anyhow::Error) {
    eprintln!("{}", message(error));
}

/// kubectl's message for an error.
pub fn message(error: &anyhow::Error) -> String {
    // Context goes before the server's own message.
    let mut before = String::new();
    for cause in error.chain() {
        match cause.downcast_ref::<client::Error>() {
            Some(client::Error::Api(status)) => return server_error(status, &before),
            Some(client::Error::Transport(status)) => {
                return format!("error: {before}{}", unreachable(status));
            }
            Some(client::Error::Config(what)) => return format!("error: {before}{what}"),
            Some(other) => return format!("error: {before}{other}"),
            None => {}
        }
        if let Some(status) = cause.downcast_ref::<ApiError>() {
            return server_error(status, &before);
        }
        before.push_str(&format!("{cause}: "));
    }
    let text = before.trim_end_matches(": ");
    if text.starts_with("error: ") { text.to_owned() } else { format!("error: {text}") }
}

/// As [`report`], with the server's address when the connection was refused.
pub fn report_connection(error: &anyhow::Error, connection: &Connection) {
    let text = message(error);
    let server = connection.config().map(|config| config.dial.url);
    match server {
        Ok(server) if text.contains("Connection refused") => {
            let host = server.split_once("://").map_or(server.as_str(), |(_, host)| host);
            eprintln!(
                "The connection to the server {host} was refused - did you specify the right host or port?"
            );
        }
        _ => eprintln!("{text}"),
    }
}

fn unreachable(status: &tonic::Status) -> String {
    let text = match std::error::Error::source(status) {
        Some(cause) => runtime::errors::root_cause(cause).to_string(),
        None => status.message().to_owned(),
    };
    format!("the server cannot be reached: {text}")
}

fn server_error(status: &ApiError, before: &str) -> String {
    match status.reason() {
        "Invalid" => invalid(status),
        "Unauthorized" => format!("error: You must be logged in to the server ({before}{status})"),
        "" => format!("Error from server: {before}{status}"),
        reason => format!("Error from server ({reason}): {before}{status}"),
    }
}

/// `The Pod "x" is invalid: ...`, one line per cause when there are several.
fn invalid(status: &ApiError) -> String {
    let Some(details) = &status.status().details else {
        return format!("The request is invalid: {status}");
    };
    let mut causes: Vec<String> = Vec::new();
    for cause in details.causes.iter().flatten() {
        let field = cause.field.as_deref().unwrap_or_default();
        let message = cause.message.as_deref().unwrap_or_default();
        let line =
            if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") };
        if !causes.contains(&line) {
            causes.push(line);
        }
    }
    let kind = details.kind.as_deref().unwrap_or_default();
    let name = details.name.as_deref().unwrap_or_default();
    let what = if kind.is_empty() && name.is_empty() {
        "The request is invalid".to_owned()
    } else {
        format!("The {kind} {name:?} is invalid")
    };
    match causes.as_slice() {
        [] if kind.is_empty() => format!("{what}: {status}"),
        [] => what,
        [only] => format!("{what}: {only}"),
        several => format!("{what}: \n* {}", several.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::status::FieldError;

    #[test]
    fn errors_are_kubectls_messages() {
        let row = <k8s_openapi::api::core::v1::Pod as api::Kind>::ROW;
        let missing = || anyhow::Error::new(client::Error::Api(ApiError::not_found(row, "x")));
        assert_eq!(message(&missing()), "Error from server (NotFound): pods \"x\" not found");
        assert_eq!(
            message(&missing().context("error when creating \"a.yaml\"")),
            "Error from server (NotFound): error when creating \"a.yaml\": pods \"x\" not found"
        );
        assert_eq!(message(&anyhow::anyhow!("no").context("why")), "error: why: no");
        let one = [FieldError::required("spec.a", "")];
        let error = client::Error::Api(ApiError::invalid(row, "x", &one));
        assert_eq!(message(&error.into()), "The Pod \"x\" is invalid: spec.a: Required value");
        let two = [FieldError::required("a", ""), FieldError::required("b", "")];
        let error = client::Error::Api(ApiError::invalid(row, "x", &two));
        assert_eq!(
            message(&error.into()),
            "The Pod \"x\" is invalid: \n* a: Required value\n* b: Required value"
        );
    }
}
