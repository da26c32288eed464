//! The server: a thread for each connection, keep-alive included.

use super::message::{Request, Response};
use super::{datagrams, grpc, number};
use nix::sys::signal::{SigSet, Signal};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How often to check for requests in progress while draining.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How many times to check before giving up.
const DRAIN_POLLS_MAX: u32 = 1000;

struct Server {
    ready: AtomicBool,
    stopping: AtomicBool,
    active: AtomicUsize,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(flags: &HashMap<String, String>) -> Result<(), String> {
    let port = number(flags, "port", 8080)?;
    let drain = Duration::from_millis(number(flags, "drain", 0)?);
    let ready_after = Duration::from_millis(number(flags, "ready-after", 0)?);

    // Blocked before any thread is started, so that only the wait below receives them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;

    let port = u16::try_from(port).map_err(|_| format!("--port: {port} is not a port"))?;
    let listener = TcpListener::bind(("0.0.0.0", port))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    datagrams::serve(port, version())?;
    println!("serving on port {port}");
    let server = Arc::new(Server {
        ready: AtomicBool::new(ready_after.is_zero()),
        stopping: AtomicBool::new(false),
        active: AtomicUsize::new(0),
    });
    if !ready_after.is_zero() {
        let server = server.clone();
        std::thread::spawn(move || {
            std::thread::sleep(ready_after);
            server.ready.store(true, Ordering::SeqCst);
        });
    }
    let accepting = server.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = accepting.clone();
            std::thread::spawn(move || {
                // A client that disconnects is not an error of the server.
                server.connection(stream).ok();
            });
        }
    });
    if flags.contains_key("grpc-port") {
        let port = u16::try_from(number(flags, "grpc-port", 0)?).unwrap_or(0);
        let listener = TcpListener::bind(("0.0.0.0", port))
            .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
        let server = server.clone();
        grpc::serve(listener, move || server.ready.load(Ordering::SeqCst));
    }
    let signal = signals.wait().map_err(|error| format!("cannot wait for signals: {error}"))?;
    println!("{signal}: draining");
    std::thread::sleep(drain);
    server.stopping.store(true, Ordering::SeqCst);
    for _ in 0..DRAIN_POLLS_MAX {
        if server.active.load(Ordering::SeqCst) == 0 {
            break;
        }
        std::thread::sleep(DRAIN_POLL_INTERVAL);
    }
    println!("done");
    Ok(())
}

impl Server {
    fn connection(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            self.active.fetch_add(1, Ordering::SeqCst);
            let answered = self.request(&line, &mut reader, &mut writer);
            self.active.fetch_sub(1, Ordering::SeqCst);
            if !answered? {
                return Ok(());
            }
        }
    }

    /// Answers one request; returns whether the connection stays open.
    fn request(
        &self,
        line: &str,
        reader: &mut impl BufRead,
        writer: &mut impl Write,
    ) -> std::io::Result<bool> {
        let request = Request::read(line, reader)?;
        if request.target == "/upgrade" && request.has("connection", "upgrade") {
            echo_bytes(&request, reader, writer)?;
            return Ok(false);
        }
        let close = request.has("connection", "close") || self.stopping.load(Ordering::SeqCst);
        let response = match request.target.strip_prefix("/redirect") {
            Some(path) => Response {
                headers: vec![format!("Location: {path}")],
                ..Response::text("302 Found", "")
            },
            None if request.target == "/page" => Response {
                headers: vec!["Content-Type: text/html; charset=utf-8".to_owned()],
                ..Response::text("200 OK", "<p>At <a href=\"/hostname\">home</a></p>\n")
            },
            None if request.target.starts_with("/echo") => Response::text("200 OK", echo(&request)),
            None => {
                let (status, body) = self.answer(&request.target);
                Response::text(status, body)
            }
        };
        response.write(writer, request.method == "HEAD", close)?;
        Ok(!close)
    }

    fn answer(&self, path: &str) -> (&'static str, String) {
        let (ok, missing) = ("200 OK", "404 Not Found");
        let path = path.split('?').next().unwrap_or(path);
        match path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], "")) {
            ("", _) => (ok, format!("{} {}\n", hostname(), version())),
            ("healthz", _) => (ok, "ok".to_owned()),
            ("ready", "on") => self.switch(true),
            ("ready", "off") => self.switch(false),
            ("ready", _) if self.ready.load(Ordering::SeqCst) => (ok, "ready".to_owned()),
            ("ready", _) => ("503 Service Unavailable", "not ready".to_owned()),
            ("hostname", _) => (ok, hostname()),
            ("version", _) => (ok, version()),
            ("env", name) => std::env::var(name)
                .map_or_else(|_| (missing, format!("no variable {name}")), |value| (ok, value)),
            ("file", path) => std::fs::read_to_string(format!("/{path}"))
                .map_or_else(|error| (missing, error.to_string()), |text| (ok, text)),
            ("slow", time) => {
                std::thread::sleep(Duration::from_millis(time.parse().unwrap_or(0)));
                (ok, format!("after {time} ms"))
            }
            ("exit", code) => std::process::exit(code.parse().unwrap_or(1)),
            _ => (missing, format!("no page {path}")),
        }
    }

    fn switch(&self, ready: bool) -> (&'static str, String) {
        self.ready.store(ready, Ordering::SeqCst);
        ("200 OK", format!("ready: {ready}"))
    }
}

/// The request as received.
fn echo(request: &Request) -> Vec<u8> {
    let mut text = format!("{} {}\n", request.method, request.target);
    for header in &request.headers {
        text.push_str(header);
        text.push('\n');
    }
    text.push('\n');
    [text.as_bytes(), &request.body].concat()
}

/// Switches to whatever protocol is requested, and echoes what it receives.
fn echo_bytes(
    request: &Request,
    reader: &mut impl Read,
    writer: &mut impl Write,
) -> std::io::Result<()> {
    let protocol = request.header("upgrade").unwrap_or_default();
    write!(
        writer,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    )?;
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => writer.write_all(&buffer[..count])?,
        }
        writer.flush()?;
    }
}

fn hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_owned()
}

fn version() -> String {
    std::env::var("VERSION").unwrap_or_else(|_| "none".to_owned())
}
