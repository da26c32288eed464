//! The client: single requests, and load at a steady rate. Every request has a connection of
//! its own, so that each is load-balanced separately.

use super::number;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How many different failures are reported.
const FAILURES_SHOWN: usize = 5;
/// Maximum number of requests in one run.
const REQUESTS_MAX: u64 = 1_000_000;

/// A response.
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Requests one page over `http://`.
pub fn get(url: &str) -> Result<Response, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} is not http://"))?;
    let (host, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    };
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let wrong = |error: std::io::Error| format!("{host}: {error}");
    let address = with_port.to_socket_addrs().map_err(wrong)?.next();
    let address = address.ok_or_else(|| format!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT).map_err(wrong)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT)).map_err(wrong)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .map_err(wrong)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(wrong)?;
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status =
        status.ok_or_else(|| format!("{host}: the connection closed without a response"))?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Response { status, body })
}

/// Sends requests at a steady rate, for `--seconds`, or with `--until eof` until the standard input
/// ends; prints how many were sent, how many failed, why, and how often each body was received.
pub fn run(flags: &HashMap<String, String>) -> Result<(), String> {
    let url = flags.get("url").ok_or("--url is missing")?.clone();
    let rate = number(flags, "rps", 50)?.max(1);
    let total = (rate * number(flags, "seconds", 10)?).min(REQUESTS_MAX);
    let (results, received) = mpsc::sync_channel(1024);
    let interval = Duration::from_nanos(1_000_000_000 / rate);
    let stopped = Arc::new(AtomicBool::new(false));
    if flags.get("until").is_some_and(|until| until == "eof") {
        let stopped = stopped.clone();
        std::thread::spawn(move || {
            // An error counts as the end, too.
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
            stopped.store(true, Ordering::SeqCst);
        });
    }
    std::thread::spawn(move || {
        for _ in 0..total {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            let (url, results) = (url.clone(), results.clone());
            // The receiver stays until every request has reported its result.
            std::thread::spawn(move || results.send(get(&url)).ok());
            std::thread::sleep(interval);
        }
    });
    let (mut sent, mut failed) = (0u64, 0u64);
    let mut bodies: BTreeMap<String, u64> = BTreeMap::new();
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for result in received {
        sent += 1;
        let failure = match result {
            Ok(Response { status: 200, body }) => {
                *bodies.entry(body.trim().to_owned()).or_default() += 1;
                continue;
            }
            Ok(response) => format!("status {}", response.status),
            Err(message) => message,
        };
        failed += 1;
        *failures.entry(failure).or_default() += 1;
    }
    println!(
        "{{\"sent\":{sent},\"failed\":{failed},\"bodies\":{},\"failures\":{}}}",
        object(bodies.iter()),
        object(failures.iter().take(FAILURES_SHOWN)),
    );
    Ok(())
}

fn object<'a>(counts: impl Iterator<Item = (&'a String, &'a u64)>) -> String {
    let escape = |text: &str| {
        text.chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                c if c.is_control() => " ".to_owned(),
                c => c.to_string(),
            })
            .collect::<String>()
    };
    let pairs: Vec<String> =
        counts.map(|(key, count)| format!("\"{}\":{count}", escape(key))).collect();
    format!("{{{}}}", pairs.join(","))
}
