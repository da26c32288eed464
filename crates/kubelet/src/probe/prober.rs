//! Executes one check of a probe: exec, httpGet, tcpSocket or grpc.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::errors::root_cause;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::containers::{ContainerId, Runtime, RuntimeError};

/// Maximum bytes of output or body in a message.
const MESSAGE_BYTES: usize = 10 * 1024;
/// Maximum redirects that an HTTP check follows.
const REDIRECTS_MAX: usize = 10;

/// Why a check did not pass, for the Unhealthy event. Only a failure counts, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It could not be executed (no such command, no such port): the result is unknown.
    #[error("{0}")]
    Unknown(String),
}

/// The container to check.
#[derive(Clone, Debug)]
pub struct Target {
    pub id: ContainerId,
    pub container: Container,
    /// The pod's address, or the node's with `hostNetwork`.
    pub ip: Option<IpAddr>,
}

/// Executes checks. Cheap to clone.
#[derive(Clone)]
pub struct Prober {
    runtime: Runtime,
    http: reqwest::Client,
}

impl Prober {
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(runtime: &Runtime) -> Result<Self, reqwest::Error> {
        let redirects = reqwest::redirect::Policy::custom(|attempt| {
            let first =
                attempt.previous().first().and_then(|url| url.host_str().map(str::to_owned));
            let elsewhere = attempt.url().host_str().map(str::to_owned) != first;
            if elsewhere || attempt.previous().len() > REDIRECTS_MAX {
                attempt.stop()
            } else {
                attempt.follow()
            }
        });
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_danger_accept_invalid_certs(true)
            .pool_max_idle_per_host(0)
            .redirect(redirects)
            .build()?;
        Ok(Self { runtime: runtime.clone(), http })
    }

    /// Executes a check within `timeout`.
    pub async fn check(
        &self,
        target: &Target,
        probe: &Probe,
        timeout: Duration,
    ) -> Result<(), CheckError> {
        let late = || CheckError::Failed(format!("probe timed out after {}s", timeout.as_secs()));
        if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return self.exec(&target.id, &command, timeout).await;
        }
        let network = async {
            if let Some(http) = &probe.http_get {
                self.http_get(target, http).await
            } else if let Some(tcp) = &probe.tcp_socket {
                tcp_socket(target, tcp).await
            } else if let Some(grpc) = &probe.grpc {
                grpc_health(target, grpc).await
            } else {
                Err(CheckError::Unknown("missing probe handler".to_owned()))
            }
        };
        tokio::time::timeout(timeout, network).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<(), CheckError> {
        match self.runtime.exec_sync(id, command, Some(timeout), MESSAGE_BYTES).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let mut text = output.stdout;
                text.extend(output.stderr);
                Err(CheckError::Failed(String::from_utf8_lossy(&text).into_owned()))
            }
            Err(RuntimeError::ExecTimeout { command, timeout }) => Err(CheckError::Failed(
                format!("command {command:?} timed out after {}s", timeout.as_secs()),
            )),
            Err(error) => Err(CheckError::Unknown(error.to_string())),
        }
    }

    /// A GET that must be answered with a status of 200 to 399. Also for lifecycle hooks.
    pub async fn http_get(&self, target: &Target, http: &HTTPGetAction) -> Result<(), CheckError> {
        let (host, port) = address(target, http.host.as_deref(), &http.port)?;
        let scheme = http.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let path = http.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("{scheme}://{host}:{port}{slash}{path}");
        let mut request = self
            .http
            .get(&url)
            .header("User-Agent", "kube-probe/1.37")
            .header("Accept", "*/*")
            .header("Connection", "close");
        for header in http.http_headers.iter().flatten() {
            request = match header.name.to_ascii_lowercase().as_str() {
                "host" | "user-agent" | "accept" => {
                    let request = request.build().map_err(failed("Get", &url))?;
                    replace_header(&self.http, request, &header.name, &header.value)?
                }
                _ => request.header(&header.name, &header.value),
            };
        }
        let response = request.send().await.map_err(failed("Get", &url))?;
        let code = response.status().as_u16();
        if (200..400).contains(&code) {
            Ok(())
        } else {
            Err(CheckError::Failed(format!("HTTP probe failed with statuscode: {code}")))
        }
    }
}

fn replace_header(
    client: &reqwest::Client,
    mut request: reqwest::Request,
    name: &str,
    value: &str,
) -> Result<reqwest::RequestBuilder, CheckError> {
    let bad = |_| CheckError::Unknown(format!("header {name:?} is not valid"));
    let value = http::HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
    let name =
        http::HeaderName::from_bytes(name.as_bytes()).map_err(|error| bad(error.to_string()))?;
    request.headers_mut().insert(name, value);
    Ok(reqwest::RequestBuilder::from_parts(client.clone(), request))
}

fn failed<'a>(verb: &'a str, url: &'a str) -> impl FnOnce(reqwest::Error) -> CheckError + 'a {
    move |error| CheckError::Failed(format!("{verb} {url:?}: {}", root_cause(&error)))
}

/// Host (the pod's own unless `host` says otherwise) and port.
fn address(
    target: &Target,
    host: Option<&str>,
    port: &IntOrString,
) -> Result<(String, u16), CheckError> {
    let host = match host.filter(|host| !host.is_empty()) {
        Some(host) => host.to_owned(),
        None => target
            .ip
            .map(|ip| ip.to_string())
            .ok_or_else(|| CheckError::Unknown("the pod has no address".to_owned()))?,
    };
    let ports = || target.container.ports.iter().flatten();
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => ports()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    let number = number.ok_or_else(|| {
        let port = match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        CheckError::Unknown(format!("couldn't find port: {port}"))
    })?;
    Ok((host, number))
}

async fn tcp_socket(target: &Target, tcp: &TCPSocketAction) -> Result<(), CheckError> {
    let (host, port) = address(target, tcp.host.as_deref(), &tcp.port)?;
    let connected = tokio::net::TcpStream::connect((host.as_str(), port)).await;
    connected
        .map(drop)
        .map_err(|error| CheckError::Failed(format!("dial tcp {host}:{port}: {error}")))
}

async fn grpc_health(target: &Target, grpc: &GRPCAction) -> Result<(), CheckError> {
    let (host, port) = address(target, None, &IntOrString::Int(grpc.port))?;
    let ip: IpAddr =
        host.parse().map_err(|_| CheckError::Unknown(format!("{host} is not an address")))?;
    let url = format!("http://{}", SocketAddr::new(ip, port));
    let text = |error: &dyn std::fmt::Display| {
        CheckError::Failed(format!("failed to connect service {url:?}: {error}"))
    };
    let channel = tonic::transport::Endpoint::from_shared(url.clone())
        .map_err(|error| text(&error))?
        .connect()
        .await
        .map_err(|error| text(&error))?;
    let request = HealthCheckRequest { service: grpc.service.clone().unwrap_or_default() };
    let answer =
        HealthClient::new(channel).check(request).await.map_err(|status| match status.code() {
            tonic::Code::Unimplemented => CheckError::Failed(
                "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .to_owned(),
            ),
            code => CheckError::Failed(format!("health rpc failed: {code:?} {}", status.message())),
        })?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(CheckError::Failed(format!(
            "service unhealthy (responded with {:?})",
            other.as_str_name()
        ))),
    }
}
