//! The parameters of operations: one row for each, whatever operations have it.

use serde_json::{Map, Value, json};

use super::schemas::Dialect;

/// A parameter of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: &'static str,
    ty: &'static str,
    description: &'static str,
}

const fn row(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter { name, ty, description }
}

pub const PRETTY: Parameter = row(
    "pretty",
    "string",
    "Whether JSON is indented: 'true' or 'false'; by default for browsers and curl.",
);
const DRY_RUN: Parameter =
    row("dryRun", "string", "All: process the request in every stage, but store nothing.");
const FIELD_MANAGER: Parameter = row(
    "fieldManager",
    "string",
    "Name of the actor who is recorded as the owner of the fields; required for apply.",
);
const FIELD_VALIDATION: Parameter = row(
    "fieldValidation",
    "string",
    "What happens to unknown and duplicate fields: Ignore them, Warn about them, or refuse the request (Strict).",
);
const FORCE: Parameter =
    row("force", "boolean", "Whether an apply takes over fields that others own.");
const RESOURCE_VERSION: Parameter =
    row("resourceVersion", "string", "How old the answer may be; unset: as new as possible.");
const TIMEOUT: Parameter =
    row("timeoutSeconds", "integer", "After how many seconds a watch ends, whatever happens.");
const WATCH: Parameter = row("watch", "boolean", "Stream the changes instead of returning a list.");

/// Of lists and watches.
pub const LIST: &[Parameter] = &[
    row(
        "allowWatchBookmarks",
        "boolean",
        "Whether a watch may send bookmarks, which only have a resource version.",
    ),
    row("continue", "string", "Where the next part of a list begins, from the part before it."),
    row("fieldSelector", "string", "Restricts the objects by their fields."),
    row("labelSelector", "string", "Restricts the objects by their labels."),
    row(
        "limit",
        "integer",
        "How many objects a list has at most; the rest follows with `continue`.",
    ),
    RESOURCE_VERSION,
    row(
        "resourceVersionMatch",
        "string",
        "How `resourceVersion` restricts a list: Exact or NotOlderThan.",
    ),
    row(
        "sendInitialEvents",
        "boolean",
        "Whether a watch begins with the present objects and a bookmark.",
    ),
    TIMEOUT,
    WATCH,
];
pub const CREATE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
pub const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
pub const DELETE: &[Parameter] = &[
    DRY_RUN,
    row("gracePeriodSeconds", "integer", "How many seconds the object has to end; zero: at once."),
    row("orphanDependents", "boolean", "Deprecated: see `propagationPolicy`."),
    row(
        "propagationPolicy",
        "string",
        "What happens to dependents: Orphan, Background or Foreground.",
    ),
];
/// Of a whole collection: which objects, and how.
pub const DELETE_COLLECTION: &[Parameter] = &[
    LIST[1], DELETE[0], LIST[2], DELETE[1], LIST[3], LIST[4], DELETE[2], DELETE[3], LIST[5],
    LIST[6], LIST[7], TIMEOUT,
];

const CONTAINER: Parameter = row(
    "container",
    "string",
    "Name of the container; by default that of the annotation, or the only one.",
);
const STDERR: Parameter = row("stderr", "boolean", "Whether standard error is connected.");
const STDIN: Parameter = row("stdin", "boolean", "Whether standard input is connected.");
const STDOUT: Parameter = row("stdout", "boolean", "Whether standard output is connected.");
const TTY: Parameter = row("tty", "boolean", "Whether the process has a terminal.");
const PATH: Parameter = row("path", "string", "Path and query of the proxied request.");

/// Of the streaming subresources.
pub fn of_stream(subresource: &str) -> &'static [Parameter] {
    match subresource {
        "log" => {
            const {
                &[
                    CONTAINER,
                    row("follow", "boolean", "Stream what is logged from now on."),
                    row(
                        "insecureSkipTLSVerifyBackend",
                        "boolean",
                        "Whether the kubelet's certificate may be invalid.",
                    ),
                    row("limitBytes", "integer", "After how many bytes the log is cut off."),
                    PRETTY,
                    row("previous", "boolean", "The log of the container's previous run."),
                    row("sinceSeconds", "integer", "How many seconds ago the log begins."),
                    row(
                        "stream",
                        "string",
                        "Which of the container's streams: All, Stdout or Stderr.",
                    ),
                    row("tailLines", "integer", "How many lines from the end."),
                    row("timestamps", "boolean", "Begin each line with its time."),
                ]
            }
        }
        "exec" => {
            const {
                &[
                    row(
                        "command",
                        "string",
                        "The program and its arguments, each a parameter; not run by a shell.",
                    ),
                    CONTAINER,
                    STDERR,
                    STDIN,
                    STDOUT,
                    TTY,
                ]
            }
        }
        "attach" => &[CONTAINER, STDERR, STDIN, STDOUT, TTY],
        "portforward" => {
            const { &[row("ports", "integer", "The ports to forward, over WebSockets.")] }
        }
        "proxy" => &[PATH],
        _ => &[],
    }
}

impl Parameter {
    /// As an operation or a path item has it: in v2 a link to the [shared](shared) row.
    pub fn of(self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::V2 => json!({"$ref": format!("#/parameters/{}", self.name)}),
            Dialect::V3 => {
                json!({"name": self.name, "in": "query", "description": self.description,
                "schema": {"type": self.ty, "uniqueItems": true}})
            }
        }
    }
}

/// A part of the path.
pub fn in_path(dialect: Dialect, name: &str, description: String) -> Value {
    let mut parameter =
        json!({"name": name, "in": "path", "required": true, "description": description});
    match dialect {
        Dialect::V2 => {
            parameter["type"] = "string".into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": "string", "uniqueItems": true}),
    }
    parameter
}

/// Every parameter of the query, by name, for a document of v2.
pub fn shared() -> Map<String, Value> {
    let streams = ["log", "exec", "attach", "portforward", "proxy"].map(of_stream);
    let all = [&[PRETTY][..], LIST, PATCH, DELETE].into_iter().chain(streams).flatten();
    all.map(|Parameter { name, ty, description }| {
        let parameter = json!({"name": name, "in": "query", "type": ty, "uniqueItems": true,
            "description": description});
        ((*name).to_owned(), parameter)
    })
    .collect()
}
