pub(crate) mod bounds;

use serde_json::{Value, json};

use crate::structural::{Structural, definition};

fn schema(rule: Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
        "s": {"type": "string"}, "n": {"type": "integer"}, "f": {"type": "number"}, "b": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "strings": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "a-b": {"type": "string"}, "namespace": {"type": "string"},
        "time": {"type": "string", "format": "date-time"}, "wait": {"type": "string", "format": "duration"},
        "port": {"x-kubernetes-int-or-string": true},
    }})
}

fn errors(rule: Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let structural = Structural::new(&schema(rule)).unwrap();
    structural.validate(new, old).iter().map(ToString::to_string).collect()
}

fn object() -> Value {
    json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "s": "héllo", "n": 3, "f": 2, "b": true,
        "list": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "keyed": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "strings": ["a", "b", "a"], "set": ["x", "y"],
        "map": {"k.1": "v"}, "a-b": "dash", "namespace": "ns", "time": "2026-11-30T12:30:00Z", "wait": "1h30m", "port": "http"})
}

#[test]
fn expressions_are_true() {
    for rule in [
        "self.s == 'héllo' && size(self.s) == 5 && self.s.size() == 5",
        "self.n + 1 == 4 && self.n * 2 - 1 == 5 && 7 / 2 == 3 && 7 % 2 == 1 && -self.n == -3",
        "self.f == 2.0 && self.f / 4.0 == 0.5 && type(self.f) == double && type(self.n) == int",
        "self.list.all(x, x.v > 0) && self.list.exists(x, x.name == 'b') && self.list.exists_one(x, x.v == 2)",
        "self.list.map(x, x.v) == [1, 2] && self.list.filter(x, x.v > 1).size() == 1",
        "self.list.map(x, x.v > 1, x.name) == ['b']",
        "self.list.all(i, x, x.v == i + 1) && self.map.exists(k, v, k == 'k.1' && v == 'v')",
        "has(self.s) && !has(self.list[0].name) == false && 'k.1' in self.map && self.map['k.1'] == 'v'",
        "self.set == ['y', 'x'] || sets.equivalent(self.set, ['y', 'x'])",
        "self.set + ['y', 'z'] == ['x', 'y', 'z'] && self.strings + ['a'] == ['a', 'b', 'a', 'a']",
        "self.keyed + [{'k': 'a', 'v': 9}, {'k': 'c', 'v': 3}] == [{'k': 'a', 'v': 9}, {'k': 'b', 'v': 2}, {'k': 'c', 'v': 3}]",
        "self.strings.isSorted() == false && [1, 2].sum() == 3 && [3, 1].min() == 1 && self.strings.lastIndexOf('a') == 2",
        "self.a__dash__b == 'dash' && self.__namespace__ == 'ns'",
        "self.metadata.name == 'x' && self.kind == 'A'",
        "self.s.startsWith('h') && self.s.endsWith('o') && self.s.contains('éll') && self.s.matches('^h.*o$')",
        "self.s.charAt(1) == 'é' && self.s.indexOf('l') == 2 && self.s.substring(1, 3) == 'él' && self.s.upperAscii() == 'HéLLO'",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && ' x '.trim() == 'x' && 'aba'.replace('a', 'c') == 'cbc'",
        "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "'%s-%d-%.2f'.format(['x', 5, 1.5]) == 'x-5-1.50'",
        "url('https://u@h.io:80/p?q=1').getHostname() == 'h.io' && url('https://h.io:80/p').getPort() == '80' && isURL('x') == false",
        "url('https://h/p?q=1&q=2').getQuery()['q'] == ['1', '2']",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1500m').asApproximateFloat() == 1.5 && !isQuantity('x')",
        "quantity('1').add(quantity('500m')).compareTo(quantity('1.5')) == 0",
        "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && isIP('::1') && !isCIDR('10.0.0.0/33') && ip('::1').isLoopback()",
        "!format.dns1123Label().validate('Bad').orValue([]).size() == false || format.named('dns1123Label').hasValue()",
        "format.dns1123Label().validate('good') == optional.none()",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0')) && isSemver('1.2') == false",
        "self.time < timestamp('2027-01-01T00:00:00Z') && self.time.getHours() == 12 && self.wait == duration('90m')",
        "self.?s.orValue('') == 'héllo' && self.?missing.orValue('d') == 'd' || true",
        "cel.bind(x, self.n + 1, x * x == 16)",
        "optional.of(1).optMap(x, x + 1).value() == 2 && self.map[?'none'].hasValue() == false",
        "self.port == 'http' && (type(self.port) == string ? true : false)",
        "1 == 1.0 && 2 > 1.5 && string(5) == '5' && int('7') == 7 && double('1.5') == 1.5 && [1, 2] + [3] == [1, 2, 3]",
        "self.missing == 1 || true",
        "b'abc' == bytes('abc') && {'a': 1}.a == 1 && !(2 in [1, 3]) && [1, 2].reverse() == [2, 1]",
        "lists.range(3) == [0, 1, 2] && [3, 1, 2].sort() == [1, 2, 3] && [1, 1].distinct() == [1] && [[1], [2]].flatten() == [1, 2]",
        "[1, [2, [3, [4]]]].flatten(2) == [1, 2, 3, [4]] && [[1]].flatten(0) == [[1]]",
        "[1, 2].transformList(i, v, i + v) == [1, 3] && [1, 2].transformList(i, v, v > 1, v) == [2]",
        "self.map.transformList(k, v, k + v) == ['k.1v'] && {'a': 1, 'b': 2}.transformMap(k, v, v < 2, v + 1) == {'a': 2}",
        "{'a': 1, 'b': 2}.transformMapEntry(k, v, {string(v): k}) == {'1': 'a', '2': 'b'}",
        "['x', 'y'].transformMap(i, v, v) == {0: 'x', 1: 'y'}",
        "self.list.sortBy(x, -x.v).map(x, x.name) == ['b', 'a'] && ['bb', 'a'].sortBy(s, size(s)) == ['a', 'bb']",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && !self.list.filter(x, x.v > 9).first().hasValue()",
        "[1, 2].includes(2) && ![1, 2].includes(4) && self.s.includes('héllo') && !self.s.includes('h')",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(2)].unwrapOpt() == [2]",
    ] {
        assert_eq!(errors(json!({"rule": rule}), &object(), None), Vec::<String>::new(), "{rule}");
    }
}

#[test]
fn failures_are_reported_as_upstream_does() {
    let s = |rule: Value, expected: &[&str]| assert_eq!(errors(rule, &object(), None), expected);
    s(json!({"rule": "self.n > 5"}), &["<nil>: Invalid value: failed rule: self.n > 5"]);
    s(json!({"rule": "self.n > 5", "message": "too few"}), &["<nil>: Invalid value: too few"]);
    s(
        json!({"rule": "self.n > 5", "message": "x", "messageExpression": "'n is ' + string(self.n)", "fieldPath": ".n"}),
        &["n: Invalid value: n is 3"],
    );
    s(
        json!({"rule": "self.n > 5", "reason": "FieldValueForbidden", "fieldPath": ".n"}),
        &["n: Forbidden: failed rule: self.n > 5"],
    );
    s(
        json!({"rule": "self.n > 5", "reason": "FieldValueRequired"}),
        &["<nil>: Required value: failed rule: self.n > 5"],
    );
    s(
        json!({"rule": "self.list[7].v == 1"}),
        &[
            r#"<nil>: Invalid value: "object": index out of bounds: 7 evaluating rule: self.list[7].v == 1"#,
        ],
    );
    s(
        json!({"rule": "self.map['x'] == 'y'"}),
        &[
            r#"<nil>: Invalid value: "object": no such key: x evaluating rule: self.map['x'] == 'y'"#,
        ],
    );
    s(
        json!({"rule": "1 / (self.n - 3) == 1"}),
        &[
            r#"<nil>: Invalid value: "object": division by zero evaluating rule: 1 / (self.n - 3) == 1"#,
        ],
    );
    let mut wrong = object();
    wrong["n"] = json!("x");
    assert_eq!(
        errors(json!({"rule": "self.n > 5"}), &wrong, None),
        [
            r#"n: Invalid value: "string": n in body must be of type integer: "string""#,
            r#"<nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"#,
        ]
    );
}

#[test]
fn transitions_and_ratcheting() {
    let (old, mut new) = (object(), object());
    new["n"] = json!(2);
    let grows = json!({"rule": "self.n >= oldSelf.n", "message": "shrinks"});
    assert!(errors(grows.clone(), &new, None).is_empty(), "no old object");
    assert_eq!(errors(grows.clone(), &new, Some(&old)), ["<nil>: Invalid value: shrinks"]);
    assert!(errors(grows, &old, Some(&new)).is_empty());
    let optional = json!({"rule": "oldSelf.hasValue() || self.n == 3", "optionalOldSelf": true, "message": "first"});
    assert_eq!(errors(optional.clone(), &new, None), ["<nil>: Invalid value: first"]);
    assert!(errors(optional, &new, Some(&old)).is_empty());
    // A rule on a value that does not change is not judged anew.
    let structural = Structural::new(&json!({"type": "object", "properties": {
        "a": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}, "b": {"type": "integer"}}})).unwrap();
    let (old, new) = (json!({"a": "bad"}), json!({"a": "bad", "b": 1}));
    assert!(structural.validate(&new, Some(&old)).is_empty());
    let found: Vec<String> =
        structural.validate(&new, None).iter().map(ToString::to_string).collect();
    assert_eq!(found, [r#"a: Invalid value: "bad": failed rule: self != 'bad'"#]);
}

#[test]
fn expressions_cannot_run_for_ever() {
    let long: Vec<Value> = (0..2000).map(|n| json!(n.to_string())).collect();
    let mut object = object();
    object["strings"] = json!(long);
    for rule in [
        "self.strings.all(a, self.strings.all(b, self.strings.all(c, true)))",
        "self.strings.all(a, self.strings.all(b, a + b != ''  || self.strings.exists(c, c == a)))",
        "self.strings.map(a, self.strings.map(b, a + b)).size() > 0",
        "self.strings.exists(a, self.strings.map(x, self.strings).size() == 0) || true",
    ] {
        let found = errors(json!({"rule": rule}), &object, None);
        assert!(
            found.iter().any(|error| error.contains("cost limit exceeded")),
            "{rule}: {found:?}"
        );
    }
}

#[test]
fn what_does_not_compile_is_refused() {
    let of = |rule: Value| {
        let mut crd = json!({"metadata": {"name": "as.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "as", "kind": "A"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema(rule)}}]}});
        definition::default(&mut crd);
        definition::validate(&crd, None).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (rule, part) in [
        ("self.nope == 1", "undefined field 'nope'\n | self.nope == 1\n | ....^"),
        ("self.list.all(x, x.nope)", "undefined field 'nope'"),
        ("self.metadata.labels.size() == 0", "undefined field 'labels'"),
        ("foo == 1", "undeclared reference to 'foo' (in container '')"),
        ("self.s.shout() == 'X'", "undeclared reference to 'shout' (in container '')"),
        ("self.s == 5", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.n > 'a'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("self.n +", "Syntax error"),
        ("self.s.x == 1", "type 'string' does not support field selection"),
        ("A{x: 1} == 1", "undeclared reference to 'A'"),
        ("self.s.matches(')')", ":1:16: invalid matches argument"),
        ("self.s.matches('x++')", "invalid matches argument"),
        ("duration('1d') == self.wait", ":1:10: invalid duration argument"),
        ("self.wait == duration(\"1x\")", ":1:23: invalid duration argument"),
        ("timestamp('2026') == self.time", "invalid timestamp argument"),
        (
            "[1, 'a', false].filter(x, string(x) == 'a') == []",
            ":1:5: expected type 'int' but found 'string'",
        ),
        ("['d', 3, 2].sort() == []", "expected type 'string' but found 'int'"),
        ("[1, null] == []", "expected type 'int' but found 'null'"),
        ("[[1], ['a']] == []", "expected type 'list(int)' but found 'list(string)'"),
        ("{'k1': 'a', 'k2': 1, 'k3': false} == {}", "expected type 'string' but found 'int'"),
        ("{'a': 1, 2: 1} == {}", "expected type 'string' but found 'int'"),
        ("math.greatest(1, 2) > 0", "undeclared reference to 'math' (in container '')"),
        ("math.greatest(1, 2) > 0", "undeclared reference to 'greatest' (in container '')"),
        (
            "self.s.reverse() == 'a'",
            "found no matching overload for 'reverse' applied to 'string.()'",
        ),
    ] {
        let found = of(json!({"rule": rule}));
        assert!(
            found
                .iter()
                .any(|error| error.contains("x-kubernetes-validations[0].rule: Invalid value")
                    && error.contains("compilation failed: ")
                    && error.contains(part)),
            "{rule}: {found:?}"
        );
    }
    assert!(of(json!({"rule": "self.n"}))[0].ends_with("cel expression must evaluate to a bool"));
    assert!(
        of(json!({"rule": "true", "messageExpression": "1"}))[0]
            .ends_with("messageExpression must evaluate to a string")
    );
    assert!(
        of(json!({"rule": "true", "optionalOldSelf": true}))[0]
            .ends_with("may not be set if oldSelf is not used in rule")
    );
    for rule in [
        "self.list.all(x, x.v > 0)",
        "'%d %s %f'.format([1, 'abc', 1.0]) == '' && '%s'.format([[1, 'a']]) == ''",
        "[1, self.n] == [] && [self.port, 1] == [] && [[], [1]] == [] && {'a': [], 'b': [1]} == {}",
        "duration(self.s) == self.wait && 'a'.matches('a{2}')",
        "[?optional.of(1), 2] == [1, 2]",
    ] {
        assert_eq!(of(json!({"rule": rule})), [""; 0], "{rule}");
    }
    let deep = format!("{}true{}", "(".repeat(5000), ")".repeat(5000));
    assert!(!of(json!({"rule": deep})).is_empty());
    let long = format!("true{}", " && true".repeat(1500));
    of(json!({"rule": long}));
    let chain = format!("'a'{} == ''", " + 'a'".repeat(2000));
    assert!(of(json!({"rule": chain}))[0].contains("nested too deeply"));
    for hidden in ["r'\\' == '' && ", "'''it's''' == '' && ", "// don't\n", "\"\\\"\" == '' && "] {
        let deep = format!("{hidden}{}true{}", "(".repeat(5000), ")".repeat(5000));
        assert!(!of(json!({"rule": deep, "message": "m"})).is_empty(), "{hidden}");
    }
    for deep in [
        format!("{}true{}", "(".repeat(30), ")".repeat(30)),
        format!("{}1{} == 1", "[".repeat(28), "][0]".repeat(28)),
        format!("{} == ''", vec!["'a'"; 110].join(" + ")),
        format!("{}.size() == 0", "[".repeat(110) + &"]".repeat(110)),
        format!("{}false", "true ? true : ".repeat(29)),
        format!("{}true", "!".repeat(115)),
        format!("self{} == 1", ".x".repeat(110)),
    ] {
        of(json!({"rule": deep}));
    }
}

#[test]
fn pieces_of_rules_never_panic() {
    let piece = proptest::sample::select(vec![
        "self",
        "oldSelf",
        ".s",
        ".list",
        ".map",
        "[0]",
        "['k']",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        " + ",
        " - ",
        " == ",
        " && ",
        " || ",
        " ? ",
        " : ",
        "1",
        "-1",
        "1u",
        "1.5",
        "'a'",
        "b'a'",
        "null",
        "true",
        "!",
        ".all(x, ",
        ".map(x, ",
        "x",
        ", ",
        ".size()",
        "size(",
        ".?s",
        "[?0]",
        "has(",
        "int(",
        "string(",
        "duration('1s')",
        "timestamp('x')",
        ".format([",
        "'%s'",
        ".substring(",
        "9223372036854775807",
        " * ",
        " / ",
        " % ",
        " in ",
        "cel.bind(",
        ".orValue(",
        "A{",
        ".getHours('+99:99')",
        ".split('')",
        ".replace('', 'b')",
        ".lastIndexOf('é', 1)",
        "'é'",
    ]);
    let object = object();
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&proptest::collection::vec(piece, 1..14), |pieces| {
            let rule = json!({"rule": pieces.concat()});
            let structural = Structural::new(&schema(rule)).unwrap();
            structural.validate(&object, Some(&object));
            structural.rule_errors("x", false);
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_costs_too_much_is_refused() {
    const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let texts = |schema: &Value, unchanged| -> Vec<String> {
        let structural = Structural::new(schema).unwrap();
        structural.rule_errors("root", unchanged).iter().map(ToString::to_string).collect()
    };
    let rule = |rule: &str| json!([{"rule": rule}]);
    let names = |limit: i64| {
        json!({"type": "array", "maxItems": limit, "items": {"type": "string", "maxLength": 10},
        "x-kubernetes-validations": rule("self.all(x, self.all(y, x == y))")})
    };
    // Each pair costs 9: three names, four for the comparison, two for the condition of the loop.
    let of_names = |limit: u64| 2 + limit * (5 + limit * 9);
    assert_eq!(of_names(1054), 10_003_516);
    assert_eq!(texts(&names(1053), false), [""; 0]);
    let path = "root.x-kubernetes-validations[0].rule: Forbidden:";
    assert_eq!(
        texts(&names(1054), false),
        [format!("{path} estimated rule cost exceeds budget by factor of 1.000352x {ADVICE}")]
    );
    assert_eq!(texts(&names(1054), true), [""; 0]);

    // Below a list without a limit there is one for each element that a request can hold.
    let simple = json!({"type": "string", "x-kubernetes-validations": rule("self.size() > 1")});
    let list = |limit: Option<i64>| match limit {
        Some(limit) => json!({"type": "array", "maxItems": limit, "items": simple}),
        None => json!({"type": "array", "items": simple}),
    };
    assert_eq!(texts(&list(None), false), [""; 0]);
    assert_eq!(texts(&list(Some(3_333_333)), false), [""; 0]);
    let path = "root.items.x-kubernetes-validations[0].rule: Forbidden:";
    assert_eq!(
        texts(&list(Some(300_000_000)), true),
        [
            format!(
                "{path} contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            ),
            format!(
                "root: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of 9.0x {ADVICE}"
            ),
        ]
    );
    let message = json!({"type": "string", "x-kubernetes-validations": [{"rule": "true",
        "messageExpression": "'a'.contains('b') ? self.replace('', self) : ''"}]});
    assert_eq!(texts(&message, false), [""; 0]);
    let message = json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-validations": [
        {"rule": "true", "messageExpression": "self.exists(k, self[k].matches('a long pattern of thirty chars')) ? 'a' : 'b'"}]});
    assert_eq!(
        texts(&message, false)[0],
        format!(
            "root.x-kubernetes-validations[0].messageExpression: Forbidden: estimated messageExpression cost exceeds budget by factor of more than 100x {ADVICE}"
        )
    );
}
