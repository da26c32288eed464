use serde_json::{Value, json};

use super::*;

/// Allows Ann everything that begins with `get`.
struct Ann;

impl Authorizer for Ann {
    fn decide(&self, user: &User, verb: &str, asked: &Asked) -> Decision {
        let allowed = user.name == "ann" && verb == "get" && asked.name != "secret";
        Decision { allowed, reason: format!("{}/{}{}", asked.group, asked.resource, asked.path) }
    }
}

fn judge(source: &str, budget: &mut u64) -> Result<bool, String> {
    let expression = Expression::condition(source, MATCH_VARIABLES)?;
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
    expression.holds(&variables, budget).map_err(|error| error.to_string())
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
        let why = Expression::condition(source, MATCH_VARIABLES).unwrap_err();
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
