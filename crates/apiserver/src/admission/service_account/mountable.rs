//! The secrets that the pods of an account may refer to: those that it names itself, if it says so.
//! Deprecated upstream, where other references than these are not looked at either.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PodSpec, ServiceAccount};

/// Annotation of an account that says so.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// What Go reads as true.
const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];

/// Whether an account limits its pods.
pub fn is_enforced(account: &ServiceAccount) -> bool {
    let annotations = account.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ENFORCE)).is_some_and(|value| TRUE.contains(&&**value))
}

/// Checks a pod that is created.
///
/// # Errors
/// The reference that is not allowed.
pub fn check(spec: &PodSpec, account: &ServiceAccount) -> Result<(), String> {
    let (own, named) = (mountable(account), name(account));
    for volume in spec.volumes.iter().flatten() {
        let Some(secret) = &volume.secret else { continue };
        let secret = secret.secret_name.as_deref().unwrap_or_default();
        if !own.contains(secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {named} does not reference that secret"
            ));
        }
    }
    for one in spec.init_containers.iter().flatten() {
        container("init container", (&one.name, &one.env, &one.env_from), &own, named)?;
    }
    for one in &spec.containers {
        container("container", (&one.name, &one.env, &one.env_from), &own, named)?;
    }
    let pull = account.image_pull_secrets.iter().flatten();
    let pull: HashSet<&str> = pull.map(|secret| secret.name.as_str()).collect();
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let secret = &secret.name;
        if !pull.contains(secret.as_str()) {
            return Err(format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {named} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// Checks the ephemeral containers of a pod.
///
/// # Errors
/// The reference that is not allowed.
pub fn check_ephemeral(spec: &PodSpec, account: &ServiceAccount) -> Result<(), String> {
    let (own, named) = (mountable(account), name(account));
    for one in spec.ephemeral_containers.iter().flatten() {
        container("ephemeral container", (&one.name, &one.env, &one.env_from), &own, named)?;
    }
    Ok(())
}

fn mountable(account: &ServiceAccount) -> HashSet<&str> {
    account.secrets.iter().flatten().filter_map(|secret| secret.name.as_deref()).collect()
}

fn name(account: &ServiceAccount) -> &str {
    account.metadata.name.as_deref().unwrap_or_default()
}

/// A container by its name, its variables, and where it has others from.
type Read<'a> = (&'a str, &'a Option<Vec<EnvVar>>, &'a Option<Vec<EnvFromSource>>);

fn container(
    what: &str,
    (name, env, env_from): Read<'_>,
    own: &HashSet<&str>,
    account: &str,
) -> Result<(), String> {
    for variable in env.iter().flatten() {
        let secret = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
        if let Some(secret) = secret.filter(|secret| !own.contains(secret.name.as_str())) {
            return Err(format!(
                "{what} {name} with envVar {} referencing secret.secretName=\"{}\" is not allowed because service account {account} does not reference that secret",
                variable.name, secret.name
            ));
        }
    }
    for source in env_from.iter().flatten() {
        let secret = source.secret_ref.as_ref();
        if let Some(secret) = secret.filter(|secret| !own.contains(secret.name.as_str())) {
            return Err(format!(
                "{what} {name} with envFrom referencing secret.secretName=\"{}\" is not allowed because service account {account} does not reference that secret",
                secret.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn accounts_say_so() {
        let account = |value: &str| -> ServiceAccount {
            serde_json::from_value(json!({"metadata": {"annotations": {ENFORCE: value}}})).unwrap()
        };
        for (value, expected) in [("true", true), ("T", true), ("1", true), ("yes", false)] {
            assert_eq!(is_enforced(&account(value)), expected, "{value}");
        }
        assert!(!is_enforced(&ServiceAccount::default()));
    }

    #[test]
    fn references_to_other_secrets_are_refused() {
        let account = json!({"metadata": {"name": "a"}, "secrets": [{"name": "own"}],
            "imagePullSecrets": [{"name": "pull"}]});
        let account: ServiceAccount = serde_json::from_value(account).unwrap();
        let variable = |secret: &str| json!([{"name": "v", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]);
        let from = |secret: &str| json!([{"secretRef": {"name": secret}}]);
        let because = "is not allowed because service account a does not reference that";
        let table: [(&str, Value, String); 9] = [
            ("volumes", json!([{"name": "v", "secret": {"secretName": "own"}}]), String::new()),
            (
                "volumes",
                json!([{"name": "v", "secret": {"secretName": "other"}}]),
                format!("volume with secret.secretName=\"other\" {because} secret"),
            ),
            (
                "containers",
                json!([{"name": "c", "env": variable("own"), "envFrom": from("own")}]),
                String::new(),
            ),
            (
                "containers",
                json!([{"name": "c", "env": variable("other")}]),
                format!(
                    "container c with envVar v referencing secret.secretName=\"other\" {because} secret"
                ),
            ),
            (
                "initContainers",
                json!([{"name": "c", "envFrom": from("other")}]),
                format!(
                    "init container c with envFrom referencing secret.secretName=\"other\" {because} secret"
                ),
            ),
            ("imagePullSecrets", json!([{"name": "pull"}]), String::new()),
            (
                "imagePullSecrets",
                json!([{"name": "pull"}, {"name": "own"}]),
                format!("imagePullSecrets[1].name=\"own\" {because} imagePullSecret"),
            ),
            (
                "ephemeralContainers",
                json!([{"name": "e", "env": variable("other")}]),
                format!(
                    "ephemeral container e with envVar v referencing secret.secretName=\"other\" {because} secret"
                ),
            ),
            ("ephemeralContainers", json!([{"name": "e", "env": variable("own")}]), String::new()),
        ];
        for (field, value, expected) in table {
            let mut spec = json!({"containers": []});
            spec[field] = value;
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let checked = match field {
                "ephemeralContainers" => check_ephemeral(&spec, &account),
                _ => check(&spec, &account),
            };
            assert_eq!(checked.err().unwrap_or_default(), expected, "{field}");
        }
    }
}
