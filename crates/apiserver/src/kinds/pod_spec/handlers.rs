//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction,
    TCPSocketAction,
};

use crate::kinds::at::At;
use crate::kinds::check;

/// The type of a probe: each has a rule of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    Liveness,
    Readiness,
    Startup,
}

#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

pub fn probe(probe: Option<&Probe>, kind: ProbeKind, at: &At<'_>) {
    let Some(probe) = probe else { return };
    let actions = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler(&actions, None, at);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        at.child(field).not_negative(number.unwrap_or(0));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let at = at.child("terminationGracePeriodSeconds");
        if kind == ProbeKind::Readiness {
            at.invalid(seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            at.invalid(seconds, "must be greater than 0");
        }
    }
    let successes = probe.success_threshold.unwrap_or(1);
    if kind != ProbeKind::Readiness && successes != 1 {
        at.child("successThreshold").invalid(successes, "must be 1");
    }
}

/// `grace_seconds` is the pod's `terminationGracePeriodSeconds`.
pub fn lifecycle(lifecycle: &Lifecycle, grace_seconds: Option<i64>, at: &At<'_>) {
    let hooks = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
    for (field, hook) in hooks {
        if let Some(hook) = hook {
            handler(&of_hook(hook), grace_seconds, &at.child(field));
        }
    }
}

fn of_hook(hook: &LifecycleHandler) -> Handler<'_> {
    Handler {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        tcp_socket: hook.tcp_socket.as_ref(),
        grpc: None,
        sleep: hook.sleep.as_ref(),
    }
}

fn handler(actions: &Handler<'_>, grace_seconds: Option<i64>, at: &At<'_>) {
    let mut count = 0;
    let mut first = |field: &str, present: bool| {
        count += usize::from(present);
        if present && count > 1 {
            at.child(field).forbidden("may not specify more than 1 handler type");
        }
        present && count == 1
    };
    if first("exec", actions.exec.is_some())
        && actions.exec.is_some_and(|exec| exec.command.as_ref().is_none_or(Vec::is_empty))
    {
        at.child("exec.command").required("");
    }
    if first("httpGet", actions.http_get.is_some())
        && let Some(http) = actions.http_get
    {
        http_get(http, &at.child("httpGet"));
    }
    if first("tcpSocket", actions.tcp_socket.is_some())
        && let Some(tcp) = actions.tcp_socket
    {
        at.child("tcpSocket.port").port(&tcp.port);
    }
    if first("grpc", actions.grpc.is_some())
        && let Some(grpc) = actions.grpc
    {
        at.child("grpc.port").port_number(grpc.port);
    }
    if first("sleep", actions.sleep.is_some())
        && let (Some(sleep), Some(grace)) = (actions.sleep, grace_seconds)
        && (sleep.seconds < 0 || sleep.seconds > grace)
    {
        let problem =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        at.child("sleep").invalid(sleep.seconds, problem);
    }
    if count == 0 {
        at.required("must specify a handler type");
    }
}

fn http_get(http: &HTTPGetAction, at: &At<'_>) {
    at.child("path").not_empty(check::text(&http.path));
    at.child("port").port(&http.port);
    let scheme = check::text(&http.scheme);
    if !["HTTP", "HTTPS"].contains(&scheme) {
        at.child("scheme").not_supported(scheme, &["HTTP", "HTTPS"]);
    }
    for header in http.http_headers.iter().flatten() {
        let valid = !header.name.is_empty()
            && header.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !valid {
            at.child("httpHeaders").invalid(&header.name, "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')");
        }
    }
}
