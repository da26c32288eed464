//! Non-resource paths: health, version, discovery, OpenAPI, metrics, token keys.

pub mod discovery;
mod probe;
mod profiling;
mod zpages;

use api::{ApiError, Kind};
use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

use crate::core::Core;
use crate::flowcontrol::dump;
use crate::openapi::{self, Sources};
use crate::registry::Kinds;
use crate::request::{Request, Subject};
use crate::response::Response;
use crate::rest::negotiate;

pub use probe::StoreProbe;
pub use profiling::profile;

/// The Kubernetes version that is served.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "37";
/// The same, as one text.
const EMULATED: &str = "1.37";
/// Kubernetes' version and our own.
const VERSION: &str = concat!("v1.37.0+skiff.", env!("CARGO_PKG_VERSION"));

/// What `/` lists, beside the parts of the health checks.
const PATHS: [&str; 14] = [
    "/api",
    "/api/v1",
    "/apis",
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/statusz",
    "/version",
    "/.well-known/openid-configuration",
];

/// Whether a path is one of the profiles of this process, which take the time they are told.
pub fn is_profiling(path: &str) -> bool {
    path.strip_prefix(profiling::PREFIX)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether there is such a path.
fn is_known(core: &Core, path: &str) -> bool {
    let below = ["/healthz/", "/livez/", "/readyz/", "/openapi/v3/", dump::PREFIX];
    path.is_empty()
        || PATHS.contains(&path)
        || below.iter().any(|prefix| path.starts_with(prefix))
        || (core.profiling && is_profiling(path))
        || {
            let (kinds, snapshot) = (core.cache.registry.kinds(), core.aggregator.snapshot());
            discovery::group_or_version(&kinds, &snapshot, path).is_some()
        }
}

/// Answers a path.
///
/// # Errors
/// 404 for an unknown path.
pub async fn answer(
    core: &Core,
    path: &str,
    accept: &str,
    request: &Request,
) -> Result<Response, ApiError> {
    let trimmed = path.trim_end_matches('/');
    if let Subject::Path { method, .. } = &request.subject
        && !matches!(*method, "get" | "head")
    {
        return Err(match is_known(core, trimmed) {
            true => ApiError::unknown_method(),
            false => ApiError::no_such_resource(),
        });
    }
    let json = |value: serde_json::Value| {
        Ok(Response::Json { code: 200, json: Bytes::from(value.to_string()), warnings: Vec::new() })
    };
    let kinds = core.cache.registry.kinds();
    match trimmed {
        "/healthz" | "/livez" | "/readyz" => health(core, trimmed, request).await,
        "/version" => json(version()),
        "/metrics" => {
            let forms = ["application/openmetrics-text", "text/plain"];
            let content_type = if negotiate::first_of(accept, &forms) == Some(0) {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            } else {
                "text/plain; version=0.0.4; charset=utf-8"
            };
            Ok(Response::Raw {
                code: 200,
                content_type: content_type.to_owned(),
                body: core.metrics.encode(core).into(),
            })
        }
        "/api" | "/apis" => {
            Ok(discovery::root(&kinds, &core.aggregator, trimmed, accept, core.advertised))
        }
        "/openapi/v2" | "/openapi/v3" => openapi_document(core, &kinds, trimmed, accept),
        _ if trimmed.starts_with("/openapi/v3/") => openapi_document(core, &kinds, trimmed, accept),
        "/openid/v1/jwks" | "/.well-known/openid-configuration" => openid(core, trimmed),
        "" => json(json!({"paths": index(core)})),
        "/statusz" => {
            zpages::status(accept, runtime::flags::started().at, core.clock.now(), &PATHS)
        }
        "/flagz" => zpages::flags(accept, &runtime::flags::started().flags),
        _ if trimmed.starts_with(dump::PREFIX) => {
            let name = &trimmed[dump::PREFIX.len()..];
            let details = request.options.parameter("includeRequestDetails");
            let details = details.is_some_and(|details| !details.is_empty());
            let control = core.flow_control.as_ref();
            let page = control.and_then(|control| dump::page(control, name, details));
            Ok(Response::Raw {
                code: 200,
                content_type: "text/plain; charset=utf-8".to_owned(),
                body: page.ok_or_else(ApiError::no_such_resource)?.into(),
            })
        }
        _ if core.profiling && is_profiling(trimmed) => {
            let seconds = request.options.parameter("seconds");
            Ok(Response::Http(Box::new(profiling::answer(trimmed, seconds).await)))
        }
        _ if trimmed.starts_with("/healthz/")
            || trimmed.starts_with("/livez/")
            || trimmed.starts_with("/readyz/") =>
        {
            health(core, trimmed, request).await
        }
        _ => discovery::group_or_version(&kinds, &core.aggregator.snapshot(), trimmed)
            .ok_or_else(ApiError::no_such_resource),
    }
}

/// OpenAPI v2 as protobuf. kubectl's media type has an `@` before the version, which is not valid
/// syntax.
const SWAGGER_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// OpenAPI as JSON; v2 as protobuf too. A client that accepts only the protobuf format of v3 gets
/// 406 and falls back.
fn openapi_document(
    core: &Core,
    kinds: &Kinds,
    path: &str,
    accept: &str,
) -> Result<Response, ApiError> {
    let definitions =
        |name: &str| match core.cache.resource(CustomResourceDefinition::ROW).get(name) {
            Some(found) => serde_json::from_slice(&found.json).ok(),
            None => api::metrics::definition(name),
        };
    let generation = core.aggregator.generation();
    let snapshot = core.aggregator.snapshot();
    let others: Vec<_> = snapshot.remotes().iter().map(|one| one.openapi()).collect();
    let built = |took| core.aggregator.metrics.regenerated(took);
    let sources =
        Sources { kinds, definitions: &definitions, others: &others, generation, built: &built };
    let takes_json = accept.is_empty() || accept.contains("json") || accept.contains("*/*");
    let forms = ["com.github.proto-openapi.spec.v2", "json", "*/*"];
    if path == "/openapi/v2" && negotiate::first_of(accept, &forms) == Some(0) {
        return Ok(Response::Raw {
            code: 200,
            content_type: SWAGGER_PROTOBUF.to_owned(),
            body: openapi::swagger_protobuf(sources),
        });
    }
    if accept.contains("proto-openapi") && !takes_json {
        return Err(ApiError::not_acceptable(
            "only the following media types are accepted: application/json",
        ));
    }
    let body = match path.strip_prefix("/openapi/v3/") {
        None if path == "/openapi/v2" => openapi::swagger(sources),
        None => openapi::index(sources),
        Some(rest) => {
            let (group, version) = match rest.strip_prefix("apis/") {
                Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
                None => ("", rest.strip_prefix("api/").unwrap_or_default()),
            };
            openapi::document(sources, group, version).ok_or_else(ApiError::no_such_resource)?
        }
    };
    Ok(Response::Raw { code: 200, content_type: "application/json".to_owned(), body })
}

fn version() -> serde_json::Value {
    json!({
        "major": MAJOR, "minor": MINOR,
        "emulationMajor": MAJOR, "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR, "minCompatibilityMinor": MINOR,
        "gitVersion": VERSION,
        "gitCommit": env!("SKIFF_COMMIT"),
        "gitTreeState": env!("SKIFF_TREE_STATE"),
        "buildDate": env!("SKIFF_BUILD_DATE"),
        "goVersion": "none (Rust)", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
    })
}

const ENDPOINTS: &[&str] = &["healthz", "livez", "readyz"];

/// The check of plugins with keys, which is there only where there may be some.
const KMS: &str = "kms-providers";
/// How the checks of priority and fairness begin, which are there only where it is on.
const FAIRNESS: &str = "poststarthook/priority-and-fairness-";

/// The checks of an endpoint, in their order. An apiserver without its store can do nothing, so
/// that even `/livez` asks it, as upstream; that the caches follow concerns only readiness. What
/// upstream does after the start is done here before the port answers, so that it always holds.
const CHECKS: [(&str, &[&str]); 16] = [
    ("ping", ENDPOINTS),
    ("etcd", ENDPOINTS),
    // A restart would not mend a plugin.
    (KMS, &["healthz", "readyz"]),
    ("watch-cache", &["readyz"]),
    ("poststarthook/priority-and-fairness-config-consumer", ENDPOINTS),
    ("poststarthook/priority-and-fairness-filter", ENDPOINTS),
    ("poststarthook/crd-informer-synced", ENDPOINTS),
    ("poststarthook/start-system-namespaces-controller", ENDPOINTS),
    ("poststarthook/start-cluster-authentication-info-controller", ENDPOINTS),
    ("poststarthook/start-service-ip-repair-controllers", ENDPOINTS),
    ("poststarthook/rbac/bootstrap-roles", ENDPOINTS),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", ENDPOINTS),
    ("poststarthook/priority-and-fairness-config-producer", ENDPOINTS),
    ("poststarthook/apiservice-registration-controller", ENDPOINTS),
    ("poststarthook/kube-apiserver-autoregistration", ENDPOINTS),
    ("autoregister-completion", ENDPOINTS),
];

/// All paths that are no part of the API, with the single health checks.
fn index(core: &Core) -> Vec<String> {
    let mut all: Vec<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
    for (name, endpoints) in CHECKS.into_iter().filter(|(name, _)| is_there(core, name)) {
        all.extend(endpoints.iter().map(|endpoint| format!("/{endpoint}/{name}")));
    }
    all.sort();
    all
}

/// Whether there is a check of this name.
fn is_there(core: &Core, name: &str) -> bool {
    match name {
        KMS => core.encryption.as_ref().is_some_and(|encryption| encryption.is_checked()),
        name if name.starts_with(FAIRNESS) => core.flow_control.is_some(),
        _ => true,
    }
}

async fn health(core: &Core, path: &str, request: &Request) -> Result<Response, ApiError> {
    let (endpoint, only) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let mut excluded: Vec<&str> = request.options.values("exclude").collect();
    let skipped = excluded.clone();
    let skips = |name: &str| only.is_empty() && skipped.contains(&name);
    let mut relevant: Vec<(&str, bool)> = Vec::new();
    for (name, endpoints) in CHECKS {
        if !is_there(core, name)
            || !endpoints.contains(&endpoint)
            || (!only.is_empty() && name != only)
        {
            continue;
        }
        let holds = match name {
            _ if skips(name) => true,
            "etcd" => core.probe.answers(&core.store).await,
            KMS => match &core.encryption {
                Some(encryption) => encryption.is_healthy().await,
                None => true,
            },
            "watch-cache" => core.cache.is_following(),
            _ => true,
        };
        relevant.push((name, holds));
    }
    if relevant.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    let good = relevant.iter().all(|(name, holds)| *holds || skips(name));
    let body = if good && (!only.is_empty() || request.options.parameter("verbose").is_none()) {
        "ok".to_owned()
    } else {
        let lines: String = relevant
            .iter()
            .map(|(name, holds)| {
                if skips(name) {
                    format!("[+]{name} excluded: ok\n")
                } else if *holds {
                    format!("[+]{name} ok\n")
                } else {
                    format!("[-]{name} failed: reason withheld\n")
                }
            })
            .collect();
        let verdict = if good { "passed" } else { "failed" };
        excluded.retain(|name| relevant.iter().all(|(known, _)| known != name));
        let unknown: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let warning = if unknown.is_empty() || !only.is_empty() {
            String::new()
        } else {
            let unknown = unknown.join(", ");
            format!("warn: some health checks cannot be excluded: no matches for {unknown}\n")
        };
        format!("{lines}{warning}{endpoint} check {verdict}\n")
    };
    Ok(Response::Raw {
        code: if good { 200 } else { 500 },
        content_type: "text/plain; charset=utf-8".to_owned(),
        body: body.into(),
    })
}

fn openid(core: &Core, path: &str) -> Result<Response, ApiError> {
    let tokens = core.tokens.as_ref().ok_or_else(ApiError::no_such_resource)?;
    let (content_type, value) = if path == "/openid/v1/jwks" {
        ("application/jwk-set+json", tokens.key_set())
    } else {
        let issuer = tokens.issuer();
        (
            "application/json",
            json!({
                "issuer": issuer,
                "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        )
    };
    Ok(Response::Raw {
        code: 200,
        content_type: content_type.to_owned(),
        body: value.to_string().into(),
    })
}
