use super::*;

const OWN: &str = "https://kubernetes.default.svc";

/// The problem with a configuration, in YAML's flow form.
fn problem(fields: &str) -> Option<String> {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    parse(&format!("{head}{fields}"), OWN).err().map(|error| error.to_string())
}

fn issuer(issuer: &str, rest: &str) -> String {
    format!("jwt: [{{issuer: {{{issuer}}}, {rest}}}]")
}

#[test]
fn what_upstream_refuses_is_refused() {
    let good = "url: 'https://a', audiences: [x]";
    let name = "claimMappings: {username: {claim: sub, prefix: ''}}";
    for (fields, expected) in [
        (
            issuer("", name),
            "[jwt[0].issuer.url: Required value, jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required]",
        ),
        (
            issuer("url: 'http://a', audiences: [x]", name),
            "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https",
        ),
        (
            issuer("url: 'https://u:p@a', audiences: [x]", name),
            "jwt[0].issuer.url: Invalid value: \"https://u:p@a\": URL must not contain a username or password",
        ),
        (
            issuer("url: 'https://a?b=c', audiences: [x]", name),
            "jwt[0].issuer.url: Invalid value: \"https://a?b=c\": URL must not contain a query",
        ),
        (
            issuer("url: 'https://a#b', audiences: [x]", name),
            "jwt[0].issuer.url: Invalid value: \"https://a#b\": URL must not contain a fragment",
        ),
        (
            issuer(&format!("url: '{OWN}', audiences: [x]"), name),
            "jwt[0].issuer.url: Invalid value: \"https://kubernetes.default.svc\": URL must not overlap with disallowed issuers: [https://kubernetes.default.svc]",
        ),
        (
            issuer("url: 'https://a', discoveryURL: 'https://a/', audiences: [x]", name),
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://a/\": discoveryURL must be different from URL",
        ),
        (
            issuer("url: 'https://a', audiences: [x, z]", name),
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (
            issuer("url: 'https://a', audiences: [x], certificateAuthority: 'no'", name),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
        ),
        (
            issuer(good, "claimMappings: {}"),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        (
            issuer(good, "claimMappings: {username: {claim: sub}}"),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ),
        (
            issuer(good, "claimMappings: {username: {claim: sub, expression: claims.sub}}"),
            "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set",
        ),
        (
            issuer(good, "claimMappings: {username: {expression: claims.email}}"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        ),
        (
            issuer(
                good,
                "claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: a.k8s.io/b, valueExpression: claims.a}]}",
            ),
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"a.k8s.io/b\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ),
        (
            issuer(
                good,
                &format!("{name}, claimValidationRules: [{{claim: a, expression: 'true'}}]"),
            ),
            "jwt[0].claimValidationRules[0]: Invalid value: \"a\": claim and expression can't both be set",
        ),
        (
            issuer(good, &format!("{name}, userValidationRules: [{{}}]")),
            "jwt[0].userValidationRules[0].expression: Required value",
        ),
        (
            "anonymous: {enabled: false, conditions: [{path: /livez}]}".to_owned(),
            "anonymous.conditions: Invalid value: [{\"path\":\"/livez\"}]: enabled should be set to true when conditions are defined",
        ),
        ("jwt: [{other: 1}]".to_owned(), "strict decoding error: unknown field \"other\""),
    ] {
        assert_eq!(problem(&fields).as_deref(), Some(expected), "{fields}");
    }
    let wrong = issuer(good, &format!("{name}, userValidationRules: [{{expression: '1'}}]"));
    assert!(problem(&wrong).unwrap().contains("must evaluate to bool"));
    let email = "claimMappings: {username: {expression: 'claims.email_verified ? claims.email : claims.sub'}}";
    assert_eq!(problem(&issuer(good, email)), None);
    assert_eq!(problem("anonymous: {enabled: true}"), None);
    let twice = format!("jwt: [{{issuer: {{{good}}}, {name}}}, {{issuer: {{{good}}}, {name}}}]");
    assert_eq!(
        problem(&twice).as_deref(),
        Some("jwt[1].issuer.url: Duplicate value: \"https://a\"")
    );
}
