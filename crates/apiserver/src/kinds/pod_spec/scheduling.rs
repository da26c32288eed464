//! Tolerations, gates, DNS settings and host aliases.

use api::names;
use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodSchedulingGate, Toleration};

use crate::kinds::at::At;
use crate::kinds::check::{self, Unique};

pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

pub fn tolerations(tolerations: &[Toleration], at: &At<'_>) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = at.index(index);
        let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            at.child("key").qualified_name(&key);
        } else if operator != "Exists" {
            at.child("operator").invalid(&operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            at.child("effect")
                .invalid(&effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.as_str() {
            "Equal" | "" => {
                let problems = names::label_value(&value);
                if !problems.is_empty() {
                    at.child("operator").invalid(&value, problems.join(";"));
                }
            }
            "Exists" if !value.is_empty() => at
                .child("operator")
                .invalid(&value, "value must be empty when `operator` is 'Exists'"),
            "Exists" => {}
            other => at.child("operator").not_supported(other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            at.child("effect").one_of(&effect, TAINT_EFFECTS);
        }
    }
}

/// An update may add tolerations and change their seconds.
pub fn only_added(new: &[Toleration], old: &[Toleration], at: &At<'_>) {
    let same = |old: &Toleration, new: &Toleration| {
        let old = Toleration { toleration_seconds: new.toleration_seconds, ..old.clone() };
        old == *new
    };
    if !old.iter().all(|old| new.iter().any(|new| same(old, new))) {
        at.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
}

pub fn gates(gates: &[PodSchedulingGate], at: &At<'_>) {
    let mut seen = Unique::default();
    for (index, gate) in gates.iter().enumerate() {
        at.index(index).qualified_name(&gate.name);
        seen.add(&gate.name, &at.index(index));
    }
}

/// An update may only remove gates.
pub fn only_deleted_gates(new: &[PodSchedulingGate], old: &[PodSchedulingGate], at: &At<'_>) {
    for (index, gate) in new.iter().enumerate() {
        if !old.contains(gate) {
            let problem =
                format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            at.index(index).child("name").forbidden(problem);
        }
    }
}

pub fn dns(config: Option<&PodDNSConfig>, policy: &str, at: &At<'_>) {
    let none = policy == "None";
    let Some(config) = config else {
        if none {
            at.required("must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let server_path = at.child("nameservers");
    if none && servers.is_empty() {
        server_path.required("must provide at least one DNS nameserver when `dnsPolicy` is None");
        return;
    }
    if servers.len() > MAX_NAMESERVERS {
        let problem = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        server_path.invalid(servers, problem);
    }
    for (index, server) in servers.iter().enumerate() {
        server_path.index(index).ip(server);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let search_path = at.child("searches");
    if searches.len() > MAX_SEARCHES {
        let problem = format!("must not have more than {MAX_SEARCHES} search paths");
        search_path.invalid(searches, problem);
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let problem = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        search_path.invalid(searches, problem);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed here: they count as letters.
        search_path.index(index).texts(names::dns_subdomain(&name.replace('_', "a")), name);
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if check::text(&option.name).is_empty() {
            at.item("options", index).required("must not be empty");
        }
    }
}

pub fn host_aliases(aliases: &[HostAlias], at: &At<'_>) {
    for (index, alias) in aliases.iter().enumerate() {
        let at = at.index(index);
        at.child("ip").ip(&alias.ip);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            at.item("hostnames", index).dns_subdomain(name);
        }
    }
}
