use serde_json::{Value, json};

use super::*;
use crate::structural::rules::tests::bounds::nested;

/// Allows Ann everything that begins with `get`.
struct Ann;

impl Authorizer for Ann {
    fn decide(&self, user: &User, verb: &str, asked: &Asked) -> Decision {
        let allowed = user.name == "ann" && verb == "get" && asked.name != "secret";
        let error = if verb == "fail" { "no answer".to_owned() } else { String::new() };
        let Asked { group, resource, path, field_selector, label_selector, .. } = asked;
        let reason = format!("{group}/{resource}{path}{field_selector}{label_selector}");
        Decision { allowed, reason, error }
    }
}

fn judge(source: &str, budget: &mut u64) -> Result<bool, String> {
    let expression = Environment::new(false).condition(source)?;
    let object = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"n": 3}});
    let request = json!({"operation": "CREATE", "namespace": "ns", "name": "x", "dryRun": false,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": "ann", "groups": ["g"], "extra": {"k": ["v"]}}, "options": null});
    let user = User { name: "ann".to_owned(), ..User::default() };
    let own = Asked { group: "apps".to_owned(), resource: "pods".to_owned(), ..Asked::default() };
    let null = Value::Null;
    let variables = [
        ("object", Binding::Json(&object)),
        ("oldObject", Binding::Json(&null)),
        ("namespaceObject", Binding::Json(&null)),
        ("request", Binding::Json(&request)),
        ("authorizer", Binding::Authorizer(&Ann, &user, &own)),
    ];
    let mut session = Session::new(&variables, &[], *budget);
    let output = session.eval(&expression).map_err(|error| error.to_string());
    *budget = session.budget;
    Ok(output? == Output::Bool(true))
}

fn holds(source: &str) -> Result<bool, String> {
    judge(source, &mut MATCH_BUDGET.clone())
}

#[test]
fn conditions_are_judged() {
    for source in [
        "true",
        "object.metadata.name == 'x' && object.spec.n == 3 && oldObject == null",
        "object.metadata.?labels.?a.orValue('') == 'b' && !has(object.spec.missing)",
        "request.operation == 'CREATE' && request.userInfo.username == 'ann' && !request.dryRun",
        "request.namespace == 'ns' && request.kind.kind == 'Pod' && 'g' in request.userInfo.groups",
        "request.userInfo.extra['k'][0] == 'v'",
        "authorizer.group('').resource('pods').namespace('ns').name('x').check('get').allowed()",
        "!authorizer.group('').resource('pods').name('secret').check('get').allowed()",
        "authorizer.requestResource.check('get').reason() == 'apps/pods'",
        "authorizer.path('/healthz').check('get').reason() == '//healthz'",
        "!authorizer.serviceAccount('ns', 'a').requestResource.check('get').allowed()",
        "authorizer.group('a').resource('b').fieldSelector('x=y').check('get').error() == ''",
        "authorizer.group('a').resource('b').fieldSelector('x=y').check('get').reason() == 'a/bx=y'",
        "authorizer.group('a').resource('b').labelSelector('!l').check('get').reason() == 'a/b!l'",
        "!authorizer.requestResource.check('get').errored()",
        "authorizer.requestResource.check('fail').errored()",
        "authorizer.requestResource.check('fail').error() == 'no answer'",
    ] {
        assert_eq!(holds(source), Ok(true), "{source}");
    }
    assert_eq!(holds("object.spec.n > 3"), Ok(false));
}

#[test]
fn wrong_conditions_are_refused() {
    for (source, expected) in [
        ("object.", "Syntax error"),
        ("nothing == 1", "undeclared reference to 'nothing'"),
        ("request.nothing == ''", "undefined field 'nothing'"),
        ("params.x == 1", "undeclared reference to 'params'"),
        ("1", "must evaluate to bool but got int"),
        ("object.spec", "must evaluate to bool but got dyn"),
        ("request.name", "must evaluate to bool but got string"),
        ("authorizer.requestResource.check('get')", "but got kubernetes.authorization.Decision"),
        ("object.foo()", "undeclared reference to 'foo'"),
    ] {
        let why = Environment::new(false).condition(source).unwrap_err();
        assert!(why.contains(expected), "{source}: {why}");
    }
}

#[test]
fn evaluation_has_limits() {
    assert_eq!(
        holds("object.spec.missing == 1").unwrap_err(),
        "expression 'object.spec.missing == 1' resulted in error: no such key: missing"
    );
    let check = "authorizer.requestResource.check('get').allowed()";
    let many = [check; 3].join(" && ");
    assert!(holds(&many).unwrap_err().contains("cost limit exceeded"));
    let mut budget = 600_000;
    assert_eq!(judge(check, &mut budget), Ok(true));
    let error = judge(check, &mut budget).unwrap_err();
    assert!(error.contains("running out of cost budget"), "{error}");
    let loops = "[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, a+b+c+d+e+f > 0))))))";
    assert!(holds(loops).unwrap_err().contains("cost limit exceeded"));
}

#[test]
fn policies_compose_variables() {
    let mut environment = Environment::new(true);
    let mut composed = Vec::new();
    for (name, source) in [
        ("labels", "object.metadata.?labels.orValue({})"),
        ("isMarked", "'a' in variables.labels"),
        ("broken", "object.spec.missing"),
    ] {
        let expression = environment.compile(source, &[]).unwrap();
        environment.compose(name, Some(&expression));
        composed.push((name.to_owned(), expression));
    }
    let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": {}});
    let params = json!({"max": 3});
    let variables = [("object", Binding::Json(&object)), ("params", Binding::Json(&params))];
    let compile = |source: &str| environment.compile(source, &["bool"]);
    let right = [
        "variables.isMarked && variables.labels.a == 'b' && params.max == 3",
        "variables.isMarked",
        "[1, 2].all(labels, variables.isMarked)",
    ]
    .map(|source| compile(source).unwrap());
    let broken = compile("variables.broken == 1").unwrap();
    let mut session = Session::new(&variables, &composed, POLICY_BUDGET);
    for expression in &right {
        assert_eq!(session.eval(expression), Ok(Output::Bool(true)), "{}", expression.source);
    }
    let error = session.eval(&broken).unwrap_err().to_string();
    let expected = "composited variable \"broken\" fails to evaluate: no such key: missing";
    assert!(error.ends_with(expected), "{error}");
    let why = compile("variables.other").unwrap_err();
    assert!(why.contains("undefined field 'other'"), "{why}");
    let why = environment.without_authorizer().compile("authorizer.path('/')", &[]).unwrap_err();
    assert!(why.contains("undeclared reference to 'authorizer'"), "{why}");
    let why = environment.compile("1", &["string", "null_type"]).unwrap_err();
    assert_eq!(why, "must evaluate to one of [string null_type] but got int");
}

fn patching(source: &str) -> Result<Value, String> {
    let text = "t".repeat(1000);
    let object = json!({"metadata": {"name": "n"}, "spec": {"list": [1, 2], "text": text}});
    let environment = Environment::new(false).with_patches();
    let variables = [("object", Binding::Json(&object))];
    if source.starts_with('[') || source.starts_with("object") {
        let expression = environment.json_patch(source)?;
        let mut session = Session::new(&variables, &[], POLICY_BUDGET);
        return session.operations(&expression).map(Value::Array).map_err(|why| why.to_string());
    }
    let expression = environment.apply_configuration(source)?;
    let mut session = Session::new(&variables, &[], POLICY_BUDGET);
    session.object(&expression).map_err(|why| why.to_string())
}

#[test]
fn policies_make_objects_and_patches() {
    for (source, expected) in [
        ("Object{}", json!({})),
        (
            "Object{metadata: Object.metadata{labels: {'a': object.metadata.name}}, spec: Object.spec{on: true, n: 1, f: 1.5, none: null, list: object.spec.list}}",
            json!({"metadata": {"labels": {"a": "n"}}, "spec": {"on": true, "n": 1, "f": 1.5,
                "none": null, "list": [1, 2]}}),
        ),
        (
            "Object{spec: Object.spec{items: [Object.spec.items{a: b'x'}], ?no: optional.none(), ?yes: optional.of(1)}}",
            json!({"spec": {"items": [{"a": "eA=="}], "yes": 1}}),
        ),
        ("true ? Object{a: 1} : Object{}", json!({"a": 1})),
        (
            "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c~d'), value: Object.a{x: 1}}, JSONPatch{op: 'move', from: '/x', path: '/y'}]",
            json!([{"op": "add", "path": "/a/b~1c~0d", "value": {"x": 1}},
                {"op": "move", "from": "/x", "path": "/y"}]),
        ),
        (
            "object.spec.list.filter(n, n > 1).map(n, JSONPatch{op: 'remove', path: '/' + string(n)})",
            json!([{"op": "remove", "path": "/2"}]),
        ),
        (
            "[JSONPatch{op: JSONPatch{op: 'x'}.op}] + (has(object.none) ? [JSONPatch{}] : [])",
            json!([{"op": "x", "path": ""}]),
        ),
    ] {
        assert_eq!(patching(source), Ok(expected), "{source}");
    }
    let names = "type mismatch: unexpected type name \"Object.specx\", expected \"Object.spec\", which matches field name path from root Object type";
    for (source, expected) in [
        ("Object{spec: Object.specx{}}", names),
        ("Object{spec: [{'a': Object.specx{}}]}", names),
        ("Object{spec: duration}", "undeclared reference to 'duration'"),
        ("Object{spec: type(1)}", "invalid return type: *dynamic.ObjectVal"),
        ("Object{spec: {1: 2}}", "invalid return type: *dynamic.ObjectVal"),
        ("Object{a: object.none}", "resulted in error: no such key: none"),
        ("'x'", "must evaluate to Object but got string"),
        ("{'a': 1}", "must evaluate to Object but got map(string, int)"),
        ("[1]", "must evaluate to list(JSONPatch) but got list(int)"),
        ("[object.a]", "must evaluate to list(JSONPatch) but got list(dyn)"),
        ("object.spec", "must evaluate to list(JSONPatch) but got dyn"),
        (
            "[JSONPatch{value: {1: 2}}]",
            "JSONPath valueExpression evaluated to a type that could not marshal to JSON: map key is of type int64, not string",
        ),
        ("[JSONPatch{op: dyn(1)}]", "unexpected type int64 for JSONPatchType 'op' field"),
    ] {
        let why = patching(source).unwrap_err();
        assert!(why.contains(expected), "{source}: {why}");
    }
    // A small expression must not make a large object.
    let ten = "[1,2,3,4,5,6,7,8,9,10]";
    let large = format!(
        "cel.bind(a, {ten}.map(x, object), cel.bind(b, {ten}.map(x, a), cel.bind(c, {ten}.map(x, b), cel.bind(d, {ten}.map(x, c), Object{{x: {ten}.map(x, d)}}))))"
    );
    let why = patching(&large).err().unwrap_or_default();
    assert!(why.ends_with("operation cancelled: actual cost limit exceeded"), "{why}");
}

/// What is in an object many times over is not looked through as often.
#[test]
fn what_policies_make_is_bounded() {
    for source in [
        nested("Object{spec: Object.spec{list: u}}"),
        nested("Object{spec: Object.spec{map: {'a': u}}}"),
    ] {
        let found = patching(&source).unwrap_err();
        assert!(found.ends_with("actual cost limit exceeded"), "{found}");
    }
}

#[test]
fn variables_cannot_be_nested_without_end() {
    let mut environment = Environment::new(false);
    let mut source = "1".to_owned();
    let refused = (0..1000).find_map(|number| {
        let name = format!("v{number}");
        let compiled = environment.compile(&source, &[]);
        environment.compose(&name, compiled.as_ref().ok());
        source = format!("[variables.{name}]");
        compiled.err()
    });
    assert!(refused.is_some_and(|why| why.contains("expression is nested too deeply")));
}
