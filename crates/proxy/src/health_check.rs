//! `spec.healthCheckNodePort`: reports to load balancers whether this node has endpoints of a
//! Service with `externalTrafficPolicy: Local`, so that they send its traffic only to nodes with
//! endpoints.
//!
//! Each port responds to every request with 200 or 503 and a small JSON report, as in kube-proxy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use client::mirror::Name;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The report of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Report {
    service: Name,
    local_endpoints: usize,
}

/// The server of a port. Dropping it closes the port.
struct Server {
    report: watch::Sender<Report>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The health check ports of this node.
#[derive(Default)]
pub struct HealthChecks {
    servers: BTreeMap<u16, Server>,
    ports: BTreeMap<Name, u16>,
}

impl HealthChecks {
    /// Sets the port and the number of local endpoints of a Service; `None` closes its port.
    pub async fn set(&mut self, service: &Name, wanted: Option<(u16, usize)>) {
        let port = wanted.map(|(port, _)| port);
        if let Some(before) = self.ports.get(service)
            && Some(*before) != port
        {
            self.servers.remove(before);
            self.ports.remove(service);
        }
        let Some((port, local_endpoints)) = wanted else {
            return;
        };
        let report = Report { service: service.clone(), local_endpoints };
        if let Some(server) = self.servers.get(&port) {
            server.report.send_replace(report);
            return;
        }
        match serve(port, report).await {
            Ok(server) => {
                self.servers.insert(port, server);
                self.ports.insert(service.clone(), port);
            }
            // Retried when the Service or its endpoints change.
            Err(error) => {
                tracing::warn!(%service, port, %error, "cannot open the health check port");
            }
        }
    }
}

async fn serve(port: u16, report: Report) -> std::io::Result<Server> {
    // Dual stack if available, else IPv4.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?,
    };
    let (report, watched) = watch::channel(report);
    let answer = move || {
        let report = watched.borrow().clone();
        async move { respond(&report) }
    };
    let router = Router::new().fallback(answer);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(port, %error, "the server of a health check port failed");
        }
    });
    Ok(Server { report, task })
}

fn respond(report: &Report) -> (StatusCode, Json<serde_json::Value>) {
    let code = match report.local_endpoints {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let (namespace, name) = report.service.split_once('/').unwrap_or(("", &report.service));
    let body = json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": report.local_endpoints,
        "serviceProxyHealthy": true,
    });
    (code, Json(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test]
    async fn a_port_reports_local_endpoints_until_closed() {
        let free = TcpListener::bind("[::]:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let service: Name = "default/web".into();
        let mut checks = HealthChecks::default();
        checks.set(&service, Some((port, 0))).await;
        assert!(get(port).await.unwrap().starts_with("HTTP/1.0 503"));
        checks.set(&service, Some((port, 2))).await;
        let answer = get(port).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        assert!(answer.contains(r#""localEndpoints":2"#) && answer.contains(r#""name":"web""#));
        checks.set(&service, None).await;
        tokio::task::yield_now().await;
        assert!(get(port).await.is_err());
    }
}
