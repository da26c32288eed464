//! What end-to-end tests run in their pods: a small web server, and a client that generates load
//! and counts failures.
//!
//! `testserver serve` answers `/healthz`, `/ready` (switched by `/ready/on` and `/ready/off`),
//! `/hostname`, `/version`, `/env/NAME`, `/file/PATH`, `/slow/MILLISECONDS`, `/exit/CODE`, `/echo`
//! (the request as received), `/page` (HTML with a link), `/redirect/PATH` and `/upgrade` (to a
//! protocol that echoes); with `--grpc-port`, it also serves gRPC's health service, which is as
//! ready as `/ready`. Datagrams to its port are answered with the version. On SIGTERM it keeps serving for `--drain` milliseconds, then exits when no
//! request is in progress, as a well-behaved server does. `testserver load` sends requests at a
//! steady rate and prints one line of JSON. `testserver get` prints the body of one response,
//! `testserver ask` the answer to a datagram.
//!
//! It is linked statically and has no dependency but nix (for the signal), so that it builds
//! quickly and its image is small. It must not know anything of Skiff.

mod datagrams;
mod grpc;
mod load;
mod message;
mod serve;

use std::collections::HashMap;
use std::process::ExitCode;

const USAGE: &str =
    "usage: testserver serve [--port 8080] [--drain 0] [--ready-after 0] [--grpc-port N]
       testserver load --url http://HOST:PORT/PATH [--rps 50] [--seconds 10] [--until eof]
       testserver get URL
       testserver ask HOST:PORT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((command, rest)) if command == "serve" => flags(rest).and_then(|f| serve::run(&f)),
        Some((command, rest)) if command == "load" => flags(rest).and_then(|f| load::run(&f)),
        Some((command, [url])) if command == "get" => load::get(url).map(|response| {
            println!("{}", response.body);
        }),
        Some((command, [address])) if command == "ask" => datagrams::ask(address).map(|answer| {
            println!("{answer}");
        }),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// `--name value` pairs.
fn flags(arguments: &[String]) -> Result<HashMap<String, String>, String> {
    let mut flags = HashMap::new();
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name.starts_with("--") => {
                flags.insert(name.trim_start_matches("--").to_owned(), value.clone());
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(flags)
}

/// A number among the flags, or its default.
fn number(flags: &HashMap<String, String>, name: &str, default: u64) -> Result<u64, String> {
    match flags.get(name) {
        Some(text) => text.parse().map_err(|_| format!("--{name}: {text:?} is not a number")),
        None => Ok(default),
    }
}
