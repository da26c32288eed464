use super::*;

/// The problem with rows of `resources`, in YAML's flow form.
fn problem(rows: &str, reload: bool) -> Option<String> {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    let text = format!("{head}resources: {rows}");
    parse(Path::new("/c"), &text, reload).err().map(|error| error.to_string())
}

fn row(resources: &str, providers: &str) -> String {
    format!("[{{resources: [{resources}], providers: [{providers}]}}]")
}

#[test]
fn what_upstream_refuses_is_refused() {
    let at = "resources[0].providers[0]";
    let kms = |fields: &str| {
        row(
            "secrets",
            &format!("{{kms: {{apiVersion: v2, name: k, endpoint: 'unix:///s'{fields}}}}}"),
        )
    };
    let short = "{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}";
    let twice = "{kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}, {kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}";
    let overlap = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
    for (rows, expected) in [
        ("[]".to_owned(), "resources: Required value: at least one resources is required".to_owned()),
        (row("", "{identity: {}}"), "resources[0].resources: Required value: at least one resources[0].resources is required".to_owned()),
        (row("secrets", ""), "resources[0].providers: Required value: at least one resources[0].providers is required".to_owned()),
        (row("secrets", "{}"), format!("{at}: Invalid value: \"REDACTED\": {NO_PROVIDER}")),
        (row("secrets", "{identity: {}, aescbc: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}"), format!("{at}: Invalid value: \"REDACTED\": {SEVERAL_PROVIDERS}")),
        (row("secrets", short), format!("{at}.aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]")),
        (row("secrets", "{secretbox: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}"), format!("{at}.secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 16, expected one of [32]")),
        (row("secrets", "{aescbc: {keys: [{name: a, secret: '!'}]}}"), format!("{at}.aescbc.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")),
        (row("secrets", "{aescbc: {keys: []}}"), format!("{at}.aescbc.keys: Required value: at least one keys is required")),
        (row("secrets", "{aescbc: {keys: [{}]}}"), format!("[{at}.aescbc.keys[0].name: Required value: name is a mandatory field for a key, {at}.aescbc.keys[0].secret: Required value: secret is a mandatory field for a key]")),
        (row("secrets, secrets", "{identity: {}}"), "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified multiple times".to_owned()),
        (row("secrets, '*.'", "{identity: {}}"), format!("resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: {overlap}")),
        (row("jobs.batch, '*.*'", "{identity: {}}"), format!("resources[0].resources: Invalid value: [\"jobs.batch\",\"*.*\"]: {overlap}")),
        (row("Secrets", "{identity: {}}"), "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters".to_owned()),
        (row("'*'", "{identity: {}}"), "resources[0].resources[0]: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources".to_owned()),
        (row("serviceipallocations", "{identity: {}}"), "resources[0].resources[0]: Invalid value: \"serviceipallocations\": resources which do not have REST API/s cannot be encrypted".to_owned()),
        (row("jobs.*", "{identity: {}}"), "resources[0].resources[0]: Invalid value: \"jobs.*\": encrypting the same resource across groups is not supported".to_owned()),
        (kms(", timeout: 0s"), format!("{at}.kms.timeout: Invalid value: \"0s\": timeout should be a positive value")),
        (kms(", cachesize: 5"), format!("{at}.kms.cachesize: Invalid value: 5: cachesize is not supported in v2")),
        (row("secrets", "{kms: {apiVersion: v2, name: 'a:b', endpoint: 'unix:///s'}}"), format!("{at}.kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'")),
        (row("secrets", "{kms: {apiVersion: v2, name: k, endpoint: 'tcp://s'}}"), format!("{at}.kms.endpoint: Invalid value: \"tcp://s\": unsupported scheme \"tcp\" for KMS provider, only unix is supported")),
        (row("secrets", twice), "resources[0].providers[1].kms.name: Invalid value: \"k\": duplicate KMS provider name k, names must be unique".to_owned()),
        ("[{other: 1}]".to_owned(), "error decoding encryption provider configuration file \"/c\": strict decoding error: unknown field \"other\"".to_owned()),
    ] {
        assert_eq!(problem(&rows, false).as_deref(), Some(expected.as_str()), "{rows}");
    }
    assert_eq!(problem(&kms(", timeout: 5s"), true), None);
    assert_eq!(problem(&row("secrets, configmaps, '*.apps'", "{identity: {}}"), true), None);
}

#[test]
fn empty_files_are_named() {
    let error = parse(Path::new("/c"), "", false).err().unwrap().to_string();
    assert!(error.ends_with("encryption provider configuration file \"/c\" is empty"), "{error}");
}
