//! `skiff proxy`: serves the REST API on a local port, with the user's credentials.
//!
//! Requests are forwarded over the same kind of connection that gRPC uses: HTTP/2 with mutual TLS.
//! Whoever reaches the port acts as the user; so only local host names are accepted, and sessions
//! in pods are rejected.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use regex::Regex;
use tokio::net::TcpListener;
use tonic::client::GrpcService;
use tonic::transport::Channel;

use crate::request::Connection;
use crate::request::rest::credentials;

#[derive(clap::Args)]
pub struct Args {
    /// The local port; 0 for any free one
    #[arg(short, long, default_value_t = 8001)]
    port: u16,
    /// The local address
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// Serve only paths below this one
    #[arg(long, default_value = "/")]
    api_prefix: String,
    /// Host names to accept: regular expressions
    #[arg(long, value_delimiter = ',', default_value = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$")]
    accept_hosts: Vec<String>,
    /// Paths to accept: regular expressions
    #[arg(long, value_delimiter = ',', default_value = "^.*")]
    accept_paths: Vec<String>,
    /// Paths to reject: regular expressions
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach"
    )]
    reject_paths: Vec<String>,
    /// Methods to reject: regular expressions
    #[arg(long, value_delimiter = ',', default_value = "^$")]
    reject_methods: Vec<String>,
}

/// Which requests are forwarded, and where to.
struct Proxy {
    channel: Channel,
    /// Authentication and impersonation.
    headers: Vec<(&'static str, HeaderValue)>,
    prefix: String,
    hosts: Vec<Regex>,
    paths: Vec<Regex>,
    rejected_paths: Vec<Regex>,
    rejected_methods: Vec<Regex>,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let config = connection.config()?;
    let proxy = Proxy {
        channel: rpc::tls::channel(&config.dial)?,
        headers: credentials(connection)?,
        prefix: args.api_prefix.trim_end_matches('/').to_owned(),
        hosts: patterns(&args.accept_hosts)?,
        paths: patterns(&args.accept_paths)?,
        rejected_paths: patterns(&args.reject_paths)?,
        rejected_methods: patterns(&args.reject_methods)?,
    };
    let listener = TcpListener::bind((args.address.as_str(), args.port))
        .await
        .with_context(|| format!("listen tcp {}:{}", args.address, args.port))?;
    println!("Starting to serve on {}", listener.local_addr()?);
    let router = axum::Router::new().fallback(pass).with_state(Arc::new(proxy));
    axum::serve(listener, router).await?;
    bail!("the listener ended")
}

fn patterns(texts: &[String]) -> anyhow::Result<Vec<Regex>> {
    texts
        .iter()
        .map(|text| {
            Regex::new(text).with_context(|| format!("invalid regular expression {text:?}"))
        })
        .collect()
}

impl Proxy {
    fn allows_request(&self, request: &Request) -> bool {
        let host = request.headers().get(HOST).and_then(|value| value.to_str().ok());
        let (path, method) = (request.uri().path(), request.method().as_str());
        self.allows(host.unwrap_or_default(), path, method)
    }

    fn allows(&self, host: &str, path: &str, method: &str) -> bool {
        let any = |patterns: &[Regex], text: &str| patterns.iter().any(|one| one.is_match(text));
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        any(&self.hosts, name)
            && any(&self.paths, path)
            && !any(&self.rejected_paths, path)
            && !any(&self.rejected_methods, method)
            && path.starts_with(&format!("{}/", self.prefix))
    }
}

async fn pass(State(proxy): State<Arc<Proxy>>, mut request: Request) -> Response<Body> {
    if !proxy.allows_request(&request) {
        return (StatusCode::FORBIDDEN, "Forbidden").into_response();
    }
    let headers = request.headers_mut();
    // Headers of the local connection only.
    for name in ["host", "connection", "keep-alive", "upgrade", "transfer-encoding", "te"] {
        headers.remove(name);
    }
    for (name, value) in &proxy.headers {
        headers.append(*name, value.clone());
    }
    let mut channel = proxy.channel.clone();
    let ready =
        std::future::poll_fn(|context| GrpcService::poll_ready(&mut channel, context)).await;
    let answer = match ready {
        Ok(()) => GrpcService::call(&mut channel, request.map(tonic::body::Body::new)).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => answer.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_local_names_and_no_sessions() {
        let all = |texts: &[&str]| texts.iter().map(|text| Regex::new(text).unwrap()).collect();
        let proxy = Proxy {
            channel: Channel::from_static("http://127.0.0.1:1").connect_lazy(),
            headers: Vec::new(),
            prefix: String::new(),
            hosts: all(&["^localhost$", r"^127\.0\.0\.1$"]),
            paths: all(&["^.*"]),
            rejected_paths: all(&["^/api/.*/pods/.*/exec"]),
            rejected_methods: all(&["^$"]),
        };
        for (host, path, allowed) in [
            ("localhost:8001", "/api/v1/pods", true),
            ("127.0.0.1", "/version", true),
            ("evil.example", "/version", false),
            ("localhost", "/api/v1/namespaces/a/pods/b/exec", false),
        ] {
            assert_eq!(proxy.allows(host, path, "GET"), allowed, "{host} {path}");
        }
    }
}
