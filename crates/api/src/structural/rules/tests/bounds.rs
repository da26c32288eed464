//! What is cheap by upstream's figures and yet much to do.

use serde_json::{Map, Value, json};

use crate::structural::Structural;
use crate::structural::rules::eval::{COST_MAX, Evaluation, Failure};
use crate::structural::rules::parse;
use crate::structural::rules::value::Val;

/// An expression about `u`, a list of lists of lists, each of which is in the next one ten times.
pub(crate) fn nested(body: &str) -> String {
    let mut names = vec!["a".to_owned()];
    let mut text = format!("cel.bind(a, [{}], ", ["0"; 10].join(", "));
    for level in 1..20 {
        let inner = [names[level - 1].as_str(); 10].join(", ");
        let name = if level == 19 { "u".to_owned() } else { format!("a{level}") };
        text.push_str(&format!("cel.bind({name}, [{inner}], "));
        names.push(name);
    }
    text + body + &")".repeat(20)
}

fn structural(rules: Value) -> Structural {
    let schema = json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "text": {"type": "string"}, "template": {"type": "string"}, "url": {"type": "string"},
        "raw": {"type": "string", "format": "byte"},
        "raws": {"type": "array", "items": {"type": "string", "format": "byte"}},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    }});
    Structural::new(&schema).unwrap()
}

fn object() -> Value {
    let pairs: Vec<String> = (0..50_000).map(|n| format!("k{n}=v")).collect();
    json!({
        "text": "x".repeat(1 << 20), "template": "%s".repeat(1000), "list": vec![1; 1000],
        "url": format!("https://h/p?{}", pairs.join("&")), "raw": "YWFh".repeat(1 << 17),
        "raws": vec!["YWFh".repeat(1 << 10); 100],
        "set": [format!("{}1", "x".repeat(1 << 20)), format!("{}2", "x".repeat(1 << 20))],
    })
}

#[test]
fn work_is_bounded_by_cost() {
    let object = object();
    let rules = [
        nested("u == u"),
        nested("'%s'.format([u]) == ''"),
        nested("'%s'.format([{'a': u}]) == ''"),
        nested("u in [u]"),
        nested("[u].includes(u)"),
        nested("[u].indexOf(u) == 0"),
        nested("[u].lastIndexOf(u) == 0"),
        nested("[u, u].distinct().size() == 1"),
        nested("sets.contains([u], [u])"),
        nested("sets.equivalent([u], [u])"),
        nested("sets.intersects([u], [u])"),
        nested("self.set + [u] == []"),
        nested("self.set + [optional.of(u)] == []"),
        nested("optional.of(u) == optional.of(u)"),
        nested("{'a': u} == {'a': u}"),
        nested("u.flatten(20).size() == 0"),
        "self.template.format(self.list.map(x, self.text)) == ''".to_owned(),
        "self.list.map(x, self.text).join('') == ''".to_owned(),
        "self.list.map(x, self.text).join(self.text) == ''".to_owned(),
        "self.list.map(x, self.raw).size() == 0".to_owned(),
        "self.list.map(x, self.?raw).size() == 0".to_owned(),
        "self.list.map(x, self['raw']).size() == 0".to_owned(),
        "self.list.map(x, self.raws.slice(0, 100)).size() == 0".to_owned(),
        "self.list.map(x, self.raws + self.raws).size() == 0".to_owned(),
        "self.list.map(x, self.raws.exists(y, y == b'')).size() == 0".to_owned(),
        "self.list.all(x, self.text <= self.text)".to_owned(),
        "self.list.all(x, !self.text.matches('y(x|y){1,100}$'))".to_owned(),
        "self.list.map(x, self.text.split('')).size() == 0".to_owned(),
        "self.list.map(x, self.text.findAll('')).size() == 0".to_owned(),
        "self.list.all(x, url(self.url).getQuery().size() > 0)".to_owned(),
        "self.list.all(x, url(self.url).getHost() == 'h')".to_owned(),
        "self.list.map(x, strings.quote(self.text)).size() == 0".to_owned(),
        "self.list.map(x, self.list.map(y, self.text)).map(z, z.sort()).size() == 0".to_owned(),
        "self.list.all(x, self.set == self.set)".to_owned(),
        format!("lists.range(100000).map(x, b'{}').size() == 0", "a".repeat(10_000)),
    ];
    let structural = structural(json!([]));
    for rule in rules {
        let program = parse(&rule).unwrap();
        let variables = vec![("self", Val::of(&object, Some(&structural.root)))];
        // A tenth of what there is, since these do all the work that it pays for.
        let outcome = Evaluation::new(variables, COST_MAX / 10).eval(&program);
        assert!(matches!(outcome, Err(Failure::Limit)), "{rule}: {outcome:?}");
    }
}

/// Nothing is looked up in a way that takes as long as there is much.
#[test]
fn much_is_possible() {
    let mut object = object();
    let map: Map<String, Value> = (0..250_000).map(|n| (n.to_string(), 1.into())).collect();
    object["map"] = map.into();
    for rule in [
        "'%s'.format([self.map]).size() > 1000",
        "url(self.url).getQuery()['k49999'] == ['v']",
        "cel.bind(m, lists.range(50000).transformMap(i, v, v), lists.range(50000).all(i, m[49999 - i] == 49999 - i))",
        "cel.bind(m, lists.range(50000).transformMapEntry(i, v, {v: i}), m.all(k, v, v == k))",
        "self.map == self.map",
        "self.text in ['x', 'y'] || true",
        "{1: 'a', 1u: 'b', 2.0: 'c'} == {1: 'b', 2: 'c'}",
    ] {
        let structural = structural(json!([{"rule": rule}]));
        assert_eq!(structural.validate(&object, None), [], "{rule}");
    }
}

/// A rule that fails for many elements compares the old list with the new one once.
#[test]
fn ratcheting_compares_once() {
    let schema = json!({"type": "object", "properties": {"list": {"type": "array", "items": {
        "type": "object", "properties": {"v": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.v < 0"}]}}}});
    let structural = Structural::new(&schema).unwrap();
    let elements = |last: i64| {
        let mut list = vec![json!({"v": 1}); 50_000];
        list.push(json!({"v": last}));
        json!({ "list": list })
    };
    assert_eq!(structural.validate(&elements(1), Some(&elements(1))), []);
    assert_eq!(structural.validate(&elements(1), Some(&elements(2))).len(), 50_001);
}

/// Messages are bounded, too: those that many elements repeat.
#[test]
fn messages_are_bounded() {
    let schema = json!({"type": "object", "properties": {"list": {"type": "array", "items": {
        "type": "integer",
        "x-kubernetes-validations": [{"rule": "self < 0", "message": "m".repeat(2000)}]}}}});
    let structural = Structural::new(&schema).unwrap();
    let found = structural.validate(&json!({"list": vec![1; 100_000]}), None);
    assert!(found.len() < 60_000, "{}", found.len());
    assert!(found.last().unwrap().detail.contains("out of cost budget"));
}

/// A schema knows whether it has rules, however many schemas are below it.
#[test]
fn schemas_know_of_their_rules() {
    let rules = json!([{"rule": "true"}]);
    for (schema, expected) in [
        (json!({"type": "object"}), false),
        (json!({"type": "object", "x-kubernetes-validations": rules}), true),
        (
            json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": rules}}),
            true,
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object",
            "additionalProperties": {"type": "string", "x-kubernetes-validations": rules}}}}),
            true,
        ),
    ] {
        assert_eq!(Structural::new(&schema).unwrap().root.has_rules, expected, "{schema}");
    }
}
