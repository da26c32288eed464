//! Probes and lifecycle hooks.

use api::status::FieldError;
use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction,
    TCPSocketAction,
};

use crate::kinds::check::{self, Errors};
use crate::kinds::path::Path;

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

pub fn probe(probe: Option<&Probe>, kind: ProbeKind, path: &Path, errors: &mut Errors) {
    let Some(probe) = probe else { return };
    let actions = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler(&actions, None, path, errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        check::not_negative(number.unwrap_or(0), &path.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let path = path.child("terminationGracePeriodSeconds");
        if kind == ProbeKind::Readiness {
            errors.push(FieldError::invalid(path, seconds, "must not be set for readinessProbes"));
        } else if seconds <= 0 {
            errors.push(FieldError::invalid(path, seconds, "must be greater than 0"));
        }
    }
    let successes = probe.success_threshold.unwrap_or(1);
    if kind != ProbeKind::Readiness && successes != 1 {
        errors.push(FieldError::invalid(path.child("successThreshold"), successes, "must be 1"));
    }
}

/// `grace_seconds` is the pod's `terminationGracePeriodSeconds`.
pub fn lifecycle(
    lifecycle: &Lifecycle,
    grace_seconds: Option<i64>,
    path: &Path,
    errors: &mut Errors,
) {
    let hooks = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
    for (field, hook) in hooks {
        if let Some(hook) = hook {
            handler(&of_hook(hook), grace_seconds, &path.child(field), errors);
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

fn handler(actions: &Handler<'_>, grace_seconds: Option<i64>, path: &Path, errors: &mut Errors) {
    let mut count = 0;
    let mut first = |field: &str, present: bool, errors: &mut Errors| {
        count += usize::from(present);
        if present && count > 1 {
            errors.push(FieldError::forbidden(
                path.child(field),
                "may not specify more than 1 handler type",
            ));
        }
        present && count == 1
    };
    if first("exec", actions.exec.is_some(), errors)
        && actions.exec.is_some_and(|exec| exec.command.as_ref().is_none_or(Vec::is_empty))
    {
        errors.push(FieldError::required(path.child("exec").child("command"), ""));
    }
    if first("httpGet", actions.http_get.is_some(), errors)
        && let Some(http) = actions.http_get
    {
        http_get(http, &path.child("httpGet"), errors);
    }
    if first("tcpSocket", actions.tcp_socket.is_some(), errors)
        && let Some(tcp) = actions.tcp_socket
    {
        check::port(&tcp.port, &path.child("tcpSocket").child("port"), errors);
    }
    if first("grpc", actions.grpc.is_some(), errors)
        && let Some(grpc) = actions.grpc
    {
        check::port_number(grpc.port, &path.child("grpc").child("port"), errors);
    }
    if first("sleep", actions.sleep.is_some(), errors)
        && let (Some(sleep), Some(grace)) = (actions.sleep, grace_seconds)
        && (sleep.seconds < 0 || sleep.seconds > grace)
    {
        let problem =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(path.child("sleep"), sleep.seconds, problem));
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http_get(http: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    check::required(check::text(&http.path), &path.child("path"), errors);
    check::port(&http.port, &path.child("port"), errors);
    let scheme = check::text(&http.scheme);
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.push(FieldError::not_supported(path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.http_headers.iter().flatten() {
        let valid = !header.name.is_empty()
            && header.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !valid {
            let problem = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(path.child("httpHeaders"), &header.name, problem));
        }
    }
}
