//! Tolerations, gates, DNS settings and host aliases.

use api::names;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodSchedulingGate, Toleration};

use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;

pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

pub fn tolerations(tolerations: &[Toleration], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            check::qualified_name(&key, &path.child("key"), errors);
        } else if operator != "Exists" {
            let problem = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(path.child("operator"), &operator, problem));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let problem = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(path.child("effect"), &effect, problem));
        }
        match operator.as_str() {
            "Equal" | "" => {
                let problems = names::label_value(&value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(
                        path.child("operator"),
                        &value,
                        problems.join(";"),
                    ));
                }
            }
            "Exists" if !value.is_empty() => {
                let problem = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(path.child("operator"), &value, problem));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(
                path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() {
            check::one_of(&effect, TAINT_EFFECTS, &path.child("effect"), errors);
        }
    }
}

/// An update may add tolerations and change their seconds.
pub fn only_added(new: &[Toleration], old: &[Toleration], path: &Path, errors: &mut Errors) {
    let same = |old: &Toleration, new: &Toleration| {
        let old = Toleration { toleration_seconds: new.toleration_seconds, ..old.clone() };
        old == *new
    };
    if !old.iter().all(|old| new.iter().any(|new| same(old, new))) {
        let problem = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, problem));
    }
}

pub fn gates(gates: &[PodSchedulingGate], path: &Path, errors: &mut Errors) {
    let mut seen = Unique::default();
    for (index, gate) in gates.iter().enumerate() {
        check::qualified_name(&gate.name, &path.index(index), errors);
        seen.insert(&gate.name, &path.index(index), errors);
    }
}

/// An update may only remove gates.
pub fn only_deleted_gates(
    new: &[PodSchedulingGate],
    old: &[PodSchedulingGate],
    path: &Path,
    errors: &mut Errors,
) {
    for (index, gate) in new.iter().enumerate() {
        if !old.contains(gate) {
            let problem =
                format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(FieldError::forbidden(path.index(index).child("name"), problem));
        }
    }
}

pub fn dns(config: Option<&PodDNSConfig>, policy: &str, path: &Path, errors: &mut Errors) {
    let none = policy == "None";
    let Some(config) = config else {
        if none {
            errors.push(FieldError::required(
                path,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let server_path = path.child("nameservers");
    if none && servers.is_empty() {
        let problem = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&server_path, problem));
        return;
    }
    if servers.len() > MAX_NAMESERVERS {
        let problem = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(&server_path, servers, problem));
    }
    for (index, server) in servers.iter().enumerate() {
        check::ip(server, &server_path.index(index), errors);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let search_path = path.child("searches");
    if searches.len() > MAX_SEARCHES {
        let problem = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(&search_path, searches, problem));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let problem = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        errors.push(FieldError::invalid(&search_path, searches, problem));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed here: they count as letters.
        check::invalid(
            names::dns_subdomain(&name.replace('_', "a")),
            name,
            &search_path.index(index),
            errors,
        );
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if check::text(&option.name).is_empty() {
            errors.push(FieldError::required(
                path.child("options").index(index),
                "must not be empty",
            ));
        }
    }
}

pub fn host_aliases(aliases: &[HostAlias], path: &Path, errors: &mut Errors) {
    for (index, alias) in aliases.iter().enumerate() {
        let path = path.index(index);
        check::ip(&alias.ip, &path.child("ip"), errors);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            check::dns_subdomain(name, &path.child("hostnames").index(index), errors);
        }
    }
}
