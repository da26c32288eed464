//! Options with unsupported or malformed values, or that exclude each other.

use serde_json::json;

use super::ask::Case;

const MAPS: &str = "v1/configmaps";
const BAD: (u16, &str) = (400, "BadRequest");
const INVALID: (u16, &str) = (422, "Invalid");

pub fn cases() -> Vec<Case> {
    [reads(), writes(), parsed()].concat()
}

/// Parameters that Go parses, by verb: what cannot be parsed is refused, on every verb that has
/// the parameter.
fn parsed() -> Vec<Case> {
    let body = json!({"metadata": {"name": "x"}}).to_string();
    let ask = |verb: &'static str, name: &'static str, query: &'static str, message: String| {
        let body = if verb == "create" { body.clone() } else { String::new() };
        let body = if verb == "merge" { "{}".to_owned() } else { body };
        Case::new((verb, MAPS, name), body, BAD, message).query(query)
    };
    let mut cases = Vec::new();
    let all = [
        ("get", "plain"),
        ("list", ""),
        ("create", ""),
        ("update", "plain"),
        ("merge", "plain"),
        ("delete", "plain"),
    ];
    for (verb, name) in all {
        for (query, error) in [
            ("timeout=x", "time: invalid duration \"x\""),
            ("timeout=5", "time: missing unit in duration \"5\""),
            ("timeout=5d", "time: unknown unit \"d\" in duration \"5d\""),
        ] {
            let message = format!("invalid timeout specified in the request URL - {error}");
            cases.push(ask(verb, name, query, message));
        }
    }
    let number = |text: &str, why: &str| format!("strconv.ParseInt: parsing {text:?}: {why}");
    for (verb, name, query, text, why) in [
        ("list", "", "limit=", "", "invalid syntax"),
        ("list", "", "limit=0x1", "0x1", "invalid syntax"),
        ("list", "", "timeoutSeconds=1s", "1s", "invalid syntax"),
        ("list", "", "watch=1&timeoutSeconds=x", "x", "invalid syntax"),
        ("delete", "plain", "gracePeriodSeconds=", "", "invalid syntax"),
        ("delete", "plain", "gracePeriodSeconds=1.0", "1.0", "invalid syntax"),
        (
            "delete",
            "plain",
            "gracePeriodSeconds=9999999999999999999",
            "9999999999999999999",
            "value out of range",
        ),
    ] {
        cases.push(ask(verb, name, query, number(text, why)));
    }
    cases
}

fn reads() -> Vec<Case> {
    let list =
        |code, message: &str, query| Case::new(("list", MAPS, ""), "", code, message).query(query);
    let get = |code, message: &str, query| {
        Case::new(("get", MAPS, "plain"), "", code, message).query(query)
    };
    let parse = "strconv.ParseUint: parsing";
    let options = "ListOptions.meta.k8s.io \"\" is invalid:";
    vec![
        get((404, "NotFound"), "configmaps \"missing\" not found", "").named("missing"),
        get(
            BAD,
            &format!("resourceVersion: Invalid value: \"x\": {parse} \"x\": invalid syntax"),
            "resourceVersion=x",
        ),
        list(
            BAD,
            &format!("resourceVersion: Invalid value: \"-1\": {parse} \"-1\": invalid syntax"),
            "resourceVersion=-1",
        ),
        list(
            BAD,
            &format!(
                "resourceVersion: Invalid value: \"99999999999999999999\": {parse} \"99999999999999999999\": value out of range"
            ),
            "resourceVersion=99999999999999999999",
        ),
        list(
            (504, "Timeout"),
            "Timeout: Too large resource version: 999999999, current: …",
            "resourceVersion=999999999",
        ),
        list(
            INVALID,
            &format!(
                "{options} resourceVersionMatch: Unsupported value: \"Roughly\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
            "resourceVersion=1&resourceVersionMatch=Roughly",
        ),
        list(
            INVALID,
            &format!(
                "{options} resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
            ),
            "resourceVersionMatch=Exact",
        ),
        list(
            INVALID,
            &format!(
                "{options} resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
            ),
            "resourceVersion=0&resourceVersionMatch=Exact",
        ),
        list(
            INVALID,
            &format!(
                "{options} sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"
            ),
            "sendInitialEvents=true",
        ),
        list(
            INVALID,
            &format!(
                "{options} resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            ),
            "watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan&timeoutSeconds=1",
        ),
        list(
            INVALID,
            &format!(
                "{options} resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            ),
            "watch=1&sendInitialEvents=true",
        ),
        list(
            BAD,
            &format!("resourceVersion: Invalid value: \"x\": {parse} \"x\": invalid syntax"),
            "watch=1&resourceVersion=x&timeoutSeconds=1",
        ),
        list(BAD, "strconv.ParseInt: parsing \"many\": invalid syntax", "limit=many"),
        list(
            BAD,
            "strconv.ParseInt: parsing \"18446744073709551615\": value out of range",
            "limit=18446744073709551615",
        ),
        list(BAD, "strconv.ParseInt: parsing \"1.5\": invalid syntax", "timeoutSeconds=1.5"),
        list(
            BAD,
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 0",
            "continue=%25",
        ),
        list(BAD, "invalid continue token: continue key is not valid…", "continue=AAAA"),
        // {"v":"v9","rv":1,"start":"x"} {"v":"meta.k8s.io/v1","rv":0,"start":"x"}
        // {"v":"meta.k8s.io/v1","rv":1,"start":""}
        list(
            BAD,
            "invalid continue token: continue key is not valid: server does not recognize this encoded version: v9",
            "continue=eyJ2IjoidjkiLCJydiI6MSwic3RhcnQiOiJ4In0",
        ),
        list(
            BAD,
            "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJ4In0",
        ),
        list(
            BAD,
            "invalid continue token: continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIifQ",
        ),
        list(BAD, "found '', expected: identifier after ','", "labelSelector=a%3Db%2C"),
        list(
            BAD,
            "unable to parse requirement: found 'b' expected: '('",
            "labelSelector=a%20in%20b",
        ),
        list(
            BAD,
            "unable to parse requirement: <nil>: Invalid value: \"a$\": name part must consist of …",
            "labelSelector=a%24",
        ),
        list(
            BAD,
            "unable to parse requirement: values[0][a]: Invalid value: \"b$\": a valid label must be an empty string or …",
            "labelSelector=a%3Db%24",
        ),
        list(
            BAD,
            "invalid selector: 'nonsense'; can't understand 'nonsense'",
            "fieldSelector=nonsense",
        ),
        list(
            BAD,
            "\"spec.nope\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            "fieldSelector=spec.nope%3D1",
        ),
        Case::new(("list", "v1/pods", ""), "", BAD, "field label not supported: spec.nope")
            .query("fieldSelector=spec.nope%3D1"),
        Case::new(("list", "v1/nodes", ""), "", BAD, "field label not supported: spec.nope")
            .query("fieldSelector=spec.nope%3D1"),
    ]
}

fn writes() -> Vec<Case> {
    let body = json!({"metadata": {"name": "x"}}).to_string();
    let create = |message: &str, query| {
        Case::new(("create", MAPS, ""), body.clone(), INVALID, message).query(query)
    };
    let delete = |code, message: &str, query| {
        Case::new(("delete", MAPS, "plain"), "", code, message).query(query)
    };
    let long: &str = "fieldManager=mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm";
    let supported =
        "Unsupported value: \"Hard\": supported values: \"Ignore\", \"Strict\", \"Warn\"";
    let policy = "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
    vec![
        create(&format!("CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: {supported}"), "fieldValidation=Hard")
            .causes(&[("fieldValidation", "FieldValueNotSupported")]),
        Case::new(("merge", MAPS, "plain"), "{}", INVALID, format!("PatchOptions.meta.k8s.io \"\" is invalid: fieldValidation: {supported}")).query("fieldValidation=Hard"),
        Case::new(("update", MAPS, "plain"), "{}", INVALID, format!("UpdateOptions.meta.k8s.io \"\" is invalid: fieldValidation: {supported}")).query("fieldValidation=Hard"),
        create("CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"", "dryRun=Some")
            .causes(&[("dryRun", "FieldValueNotSupported")]),
        create("CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes", long),
        create("CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\u0007\": should only contain printable characters", "fieldManager=a%07"),
        Case::new(("merge", MAPS, "plain"), "{}", INVALID, "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch").query("force=true"),
        delete(INVALID, &format!("DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": {policy}"), "propagationPolicy=Sideways")
            .causes(&[("propagationPolicy", "FieldValueNotSupported")]),
        delete(INVALID, "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"", "dryRun=Some"),
        delete(INVALID, "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set", "propagationPolicy=Orphan&orphanDependents=true"),
        delete(BAD, "strconv.ParseInt: parsing \"soon\": invalid syntax", "gracePeriodSeconds=soon"),
        Case::new(("delete", MAPS, "plain"), json!({"propagationPolicy": "Sideways"}).to_string(), INVALID,
            format!("DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": {policy}")),
        Case::new(("delete", MAPS, "plain"), "{", BAD, "…"),
        Case::new(("delete", MAPS, "plain"), json!({"gracePeriodSeconds": "x"}).to_string(), BAD, "…"),
    ]
}

impl Case {
    fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}
