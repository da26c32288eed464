//! How errors are told: kubectl's words, on standard error, with exit code 1.

use std::fmt;
use std::process::ExitCode;

use api::ApiError;

use crate::request::Connection;

/// Several errors, each told on lines of its own.
#[derive(Debug, Default)]
pub struct Failures(Vec<anyhow::Error>);

impl Failures {
    pub fn push(&mut self, error: anyhow::Error) {
        self.0.push(error);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Success, or the exit code 1 after every error was told.
    pub fn finish(self) -> ExitCode {
        let several = self.0.len() > 1;
        for error in &self.0 {
            let text = text(error);
            // kubectl marks what is no server's only where it is alone.
            let shown = text.strip_prefix("error: ").filter(|_| several);
            eprintln!("{}", shown.unwrap_or(&text));
        }
        if self.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The error of a command line that is wrong: what, and where to read more.
pub fn usage(verb: &str, what: impl fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{what}\nSee 'skiff {verb} -h' for help and examples")
}

/// Prints an error as kubectl prints it.
pub fn report(error: &anyhow::Error) {
    eprintln!("{}", text(error));
}

/// What kubectl says about an error.
pub fn text(error: &anyhow::Error) -> String {
    // What was added on the way stands before the server's own message.
    let mut before = String::new();
    for cause in error.chain() {
        match cause.downcast_ref::<client::Error>() {
            Some(client::Error::Api(status)) => return of_server(status, &before),
            Some(client::Error::Transport(status)) => {
                return format!("error: {before}{}", unreachable(status));
            }
            Some(client::Error::Config(what)) => return format!("error: {before}{what}"),
            Some(other) => return format!("error: {before}{other}"),
            None => {}
        }
        if let Some(status) = cause.downcast_ref::<ApiError>() {
            return of_server(status, &before);
        }
        before.push_str(&format!("{cause}: "));
    }
    let text = before.trim_end_matches(": ");
    if text.starts_with("error: ") { text.to_owned() } else { format!("error: {text}") }
}

/// As [`report`], with the server's address where that is what seems to be wrong.
pub fn report_connection(error: &anyhow::Error, connection: &Connection) {
    let text = text(error);
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

fn of_server(status: &ApiError, before: &str) -> String {
    match status.reason() {
        "Invalid" => invalid(status),
        "Unauthorized" => format!("error: You must be logged in to the server ({before}{status})"),
        "" => format!("Error from server: {before}{status}"),
        reason => format!("Error from server ({reason}): {before}{status}"),
    }
}

/// `The Pod "x" is invalid: ...`, a line for every cause when there are several.
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
    fn errors_in_kubectls_words() {
        let row = <k8s_openapi::api::core::v1::Pod as api::Kind>::ROW;
        let missing = || anyhow::Error::new(client::Error::Api(ApiError::not_found(row, "x")));
        assert_eq!(text(&missing()), "Error from server (NotFound): pods \"x\" not found");
        assert_eq!(
            text(&missing().context("error when creating \"a.yaml\"")),
            "Error from server (NotFound): error when creating \"a.yaml\": pods \"x\" not found"
        );
        assert_eq!(text(&anyhow::anyhow!("no").context("why")), "error: why: no");
        let one = [FieldError::required("spec.a", "")];
        let error = client::Error::Api(ApiError::invalid(row, "x", &one));
        assert_eq!(text(&error.into()), "The Pod \"x\" is invalid: spec.a: Required value");
        let two = [FieldError::required("a", ""), FieldError::required("b", "")];
        let error = client::Error::Api(ApiError::invalid(row, "x", &two));
        assert_eq!(
            text(&error.into()),
            "The Pod \"x\" is invalid: \n* a: Required value\n* b: Required value"
        );
    }
}
