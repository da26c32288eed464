//! The figures are those that upstream's tests expect (`schema/cel/compilation_test.go`).

use serde_json::{Value, json};

use super::{Place, RULE_MAX};
use crate::structural::Structural;
use crate::structural::rules::check::{Checker, Kind};
use crate::structural::rules::parse;

/// A value of a type; `limit`: its longest length, where the type can have one.
fn of_type(name: &str, limit: Option<i64>) -> Value {
    match name {
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "byte" | "duration" | "date" | "date-time" => json!({"type": "string", "format": name}),
        _ => json!({"type": name, "maxLength": limit}),
    }
}

fn list(items: Value, limit: Option<i64>) -> Value {
    json!({"type": "array", "items": items, "maxItems": limit})
}

fn map(values: Value, limit: Option<i64>) -> Value {
    json!({"type": "object", "additionalProperties": values, "maxProperties": limit})
}

/// With an optional and a required field.
fn object() -> Value {
    json!({"type": "object", "required": ["required"],
        "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}})
}

/// Removes the limits that are not set.
fn without_null(schema: &mut Value) {
    if let Value::Object(map) = schema {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(without_null);
    }
}

fn cost(mut schema: Value, rule: &str) -> u64 {
    without_null(&mut schema);
    let structural = Structural::new(&schema).unwrap();
    let program = parse(rule).unwrap();
    let (kind, place) = (Kind::of(&structural.root, false), Place::Node(&structural.root, false));
    let mut checker = Checker::new(vec![("self", kind), ("oldSelf", kind)], place);
    let known = checker.check(&program);
    let errors: Vec<_> = checker.errors.iter().map(|error| &error.text).collect();
    assert!(errors.is_empty(), "{rule}: {errors:?}");
    known.cost
}

/// A schema, a rule, what it costs without a limit of the lengths, a limit, and what it costs then.
type Case<'a> = (&'a dyn Fn(Option<i64>) -> Value, &'a str, u64, i64, u64);

#[test]
fn estimates_are_those_of_upstream() {
    let lists = |name: &'static str| move |limit| list(of_type(name, None), limit);
    let maps = |name: &'static str| move |limit| map(of_type(name, None), limit);
    let string = |limit| of_type("string", limit);
    let bytes = |limit| json!({"type": "string", "format": "byte", "maxLength": limit});
    let nested = |limit| list(list(of_type("number", None), None), limit);
    let objects = |limit| list(object(), limit);
    let number_maps = |limit| list(map(of_type("number", None), None), limit);
    let limited = |limit| list(map(object(), limit), limit);
    let half_limited = |limit| list(map(object(), limit), None);
    let strings = |limit| list(of_type("string", limit), limit);
    let parts = |limit| {
        json!({"type": "object", "properties": {"str": of_type("string", limit),
            "before": of_type("string", Some(2)), "after": of_type("string", Some(4)),
            "separator": of_type("string", limit)}})
    };
    let values =
        |limit| json!({"type": "string", "enum": ["A", "B", "C", "LongValue"], "maxLength": limit});
    let limited_values = |limit| map(of_type("string", limit), limit);
    let all = "self.all(x, true)";
    let cases: &[Case<'_>] = &[
        (&lists("number"), all, 4_718_591, 10, 32),
        (&lists("string"), all, 3_145_727, 20, 62),
        (&lists("boolean"), all, 1_887_437, 5, 17),
        (&lists("int-or-string"), all, 4_718_591, 10, 32),
        (&lists("duration"), all, 2_359_295, 5, 17),
        (&lists("date"), all, 725_936, 15, 47),
        (&lists("date-time"), all, 428_963, 25, 77),
        (&nested, all, 3_145_727, 100, 302),
        (&objects, all, 555_128, 50, 152),
        (&maps("number"), all, 1_348_169, 10, 32),
        (&maps("string"), all, 1_179_647, 3, 11),
        (&maps("boolean"), all, 943_718, 100, 302),
        (&maps("int-or-string"), all, 1_348_169, 15, 47),
        (&maps("duration"), all, 1_048_577, 5, 17),
        (&maps("date"), all, 524_288, 10, 32),
        (&maps("date-time"), all, 349_526, 25, 77),
        (&|limit| map(object(), limit), all, 428_963, 20, 62),
        (&|limit| map(map(of_type("number", None), None), limit), all, 1_179_647, 10, 32),
        (&|limit| map(list(of_type("number", None), None), limit), all, 1_179_647, 25, 77),
        (&string, "self.contains('test')", 314_574, 10, 5),
        (&string, "self.startsWith('test')", 2, 15, 2),
        (&string, "self.endsWith('test')", 2, 30, 2),
        (&string, "size(self + 'hello') > size('hello')", 314_578, 4, 7),
        (&string, "self.matches('x')", 314_574, 50, 22),
        (&string, "''.matches('(((((((((())))))))))[0-9]')", 7, 10, 7),
        (&string, "self.matches('')", 1, 100, 1),
        (&string, "self == 'x'", 2, 0, 1),
        (&bytes, "self == b'x'", 2, 0, 1),
        (&lists("number"), "self[1] == 0.0", 2, 5000, 2),
        (&lists("number"), "self[3] == 0.0", 2, 0, 2),
        (&maps("number"), "self['x'] == 0.0", 2, 0, 2),
        (&lists("string"), "self[1] == self[1]", 314_577, 8, 314_577),
        (&lists("number"), "self.all(x, x == 0.0)", 6_291_454, 3 * 1024 * 2048, 25_165_826),
        (&limited_values, "self.all(x, x.contains(self[x]))", 2_752_507, 10, 72),
        (&limited, "self.all(x, x['y'].required == 'z')", 7_340_027, 10, 72),
        (&half_limited, "self.all(x, x['y'].required == 'z')", 7_340_027, 10, 7_340_027),
        (&lists("int-or-string"), "self[0] == 5", 3, 10, 3),
        (&lists("boolean"), "self[0] == false", 2, 25, 2),
        (&objects, "self[0] == null", 2, 422, 2),
        (&nested, "self[0][0] == -1.0", 3, 51, 3),
        (&number_maps, "self.all(x, x.y == 25.2)", 6_291_452, 12, 74),
        (&number_maps, "self[0].x > 2.0", 4, 3000, 4),
        (&lists("duration"), "self[0].getHours() == 2", 4, 525, 4),
        (&lists("date"), "self[2].getDayOfMonth() == 13", 4, 42, 4),
        (&lists("date-time"), "self[2].getMinutes() == 45", 4, 99, 4),
        (&string, "self.find('[0-9]+') == ''", 629_147, 10, 11),
        (&strings, "self.join(' ') == 'aa bb'", 329_853_068_905, 10, 43),
        (&strings, "self.isSorted() == true", 329_854_432_052, 10, 52),
        (&parts, "self.str.replace(self.before, self.after) == 'does not matter'", 629_154, 4, 12),
        (&parts, "self.str.split(self.separator) == []", 629_160, 10, 22),
        (&string, "self.lowerAscii() == 'lower!'", 314_575, 10, 6),
        (&maps("integer"), "oldSelf.size() == self.size()", 5, 10, 5),
        (&maps("date-time"), "self['a'] == self['b']", 8, 7, 8),
        (&maps("duration"), "self['c'] == self['d']", 8, 42, 8),
        (&values, "self.contains('A')", 2, 1000, 401),
    ];
    for (schema, rule, unlimited, limit, limited) in cases {
        assert_eq!(cost(schema(None), rule), *unlimited, "{rule} of {}", schema(None));
        assert_eq!(cost(schema(Some(*limit)), rule), *limited, "{rule}, at most {limit}");
    }
    let quadratic = "self.all(x, self.all(y, true))";
    let cubic = "self.all(x, self.all(y, self.all(z, true)))";
    for (rule, limited) in [(quadratic, 352), (cubic, 3552)] {
        assert!(cost(lists("number")(None), rule) > RULE_MAX, "{rule}");
        assert_eq!(cost(lists("number")(Some(10)), rule), limited, "{rule}");
    }
}

/// What a call returns has a known size, and keeps the type that it was made from.
#[test]
fn results_have_types() {
    let text = of_type("string", None);
    let object = || {
        json!({"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "integer"},
            "list": list(json!({"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}}}), Some(10))}})
    };
    for (schema, rule, expected) in [
        (&text, "duration(self) < duration('1s') || duration(self) == duration('1h')", 8),
        (&text, "timestamp(self) - timestamp('2020-01-01T00:00:00Z') < duration('1h')", 6),
        (&text, "cidr(self) == cidr(self).masked()", 2 * 314_574 + 2),
        (&text, "quantity(self) == quantity('1')", 314_574 + 2),
        (&text, "url(self).getHost() == 'a'", 314_574 + 2),
        (&object(), "self.?n.orValue(0) == self.?m.orValue(1)", 7),
        (&object(), "self.?n.optMap(x, x + 1).orValue(0) == 1", 21),
        (&object(), "self.list.filter(x, x.n > 1).all(y, y.n == y.m)", 13 + 10 * 16 + 10 * 7 + 1),
        (&object(), "self.list.map(x, x.n).sum() == 3", 13 + 10 * 14 + 10 + 1),
        (&object(), "(self.n > 1 ? self.n : self.m) == 3", 3 + 2),
    ] {
        assert_eq!(cost(schema.clone(), rule), expected, "{rule}");
    }
}

/// The figures of upstream's `TestTwoVariableComprehensionCost`.
#[test]
fn macros_of_two_variables_cost_as_upstream() {
    for (rule, expected) in [
        ("{'a': 1, 'b': 2}.all(k, v, v > 0)", 41),
        ("{'a': 1, 'b': 2}.exists(k, v, v > 0)", 43),
        ("{'a': 1, 'b': 2}.existsOne(k, v, v > 0)", 40),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", 71),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v < 5, v + 1)", 75),
        ("{'a': 1, 'b': 2}.transformMapEntry(k, v, {k: v + 1})", 131),
        ("{'a': 1, 'b': 2}.transformMapEntry(k, v, v < 5, {k: v + 1})", 135),
        ("[1, 2].all(i, v, v > 0)", 21),
        ("[1, 2].exists(i, v, v > 0)", 23),
        ("[1, 2].existsOne(i, v, v > 0)", 20),
        ("[1, 2].transformList(i, v, v + 1)", 49),
        ("[1, 2].transformList(i, v, v < 5, v + 1)", 53),
    ] {
        assert_eq!(cost(of_type("string", None), rule), expected, "{rule}");
    }
}
