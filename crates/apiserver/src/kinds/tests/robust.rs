//! Objects of every kind with random content: whatever a client sends, no rule panics.

use api::apply::OneVersion;
use api::object::Object;
use api::schema::{Ty, TypeRow};
use futures::FutureExt;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Strategy, context};
use crate::kinds::Context;

/// Texts that rules look for, and texts that break careless rules.
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "-",
    "..",
    "../x",
    "/",
    "/a/b",
    "a/b",
    "a.b/c",
    "é",
    "%",
    "50%",
    "-1%",
    "999%",
    "None",
    "Always",
    "Never",
    "OnFailure",
    "RollingUpdate",
    "Recreate",
    "ClusterIP",
    "NodePort",
    "LoadBalancer",
    "ExternalName",
    "In",
    "Exists",
    "Gt",
    "TCP",
    "10.0.0.1",
    "::1",
    "10.0.0.0/8",
    "300.1.1.1",
    "*/5 * * * *",
    "@every x",
    "@every 5s",
    "TZ=",
    "Europe/Zurich",
    "metadata.labels['a']",
    "metadata.labels['",
    "kubernetes.io/tls",
    "Container",
    "Pod",
    "Indexed",
    "Localhost",
    "cpu",
    "memory",
    "image:latest",
    "image@sha256:0",
    ":",
    "@",
    "Ready",
    "True",
    "{}",
    "IPv4",
];
const AMOUNTS: &[&str] =
    &["", "0", "1", "-1", "1Gi", "100m", "0.0000001", "1e99", "99999999999999999999", "x", "1.5.5"];
const NUMBERS: &[i64] = &[i64::MIN, -1, 0, 1, 2, 80, 420, 70_000, 2_147_483_647, i64::MAX];
const MAX_DEPTH: usize = 12;

/// A small generator, so that one seed makes one object.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn object(&mut self, row: &TypeRow, depth: usize) -> Value {
        let mut object = Map::new();
        for field in row.fields.iter().filter(|field| !matches!(field.name, "apiVersion" | "kind"))
        {
            if field.required || self.below(3 + depth) == 0 {
                object.insert(field.name.to_owned(), self.value(field.ty, depth + 1));
            }
        }
        Value::Object(object)
    }

    fn value(&mut self, ty: Ty, depth: usize) -> Value {
        if depth > MAX_DEPTH {
            return match ty {
                Ty::Array(_) => json!([]),
                Ty::Ref(_) | Ty::Map(_) | Ty::Any => json!({}),
                _ => self.scalar(ty),
            };
        }
        match ty {
            Ty::Ref(_) => self.object(ty.definition().unwrap(), depth),
            Ty::Array(element) => (0..self.below(3)).map(|_| self.value(*element, depth)).collect(),
            Ty::Map(value) => (0..self.below(3))
                .map(|_| (self.of(TEXTS).to_owned(), self.value(*value, depth)))
                .collect::<Map<_, _>>()
                .into(),
            scalar => self.scalar(scalar),
        }
    }

    fn scalar(&mut self, ty: Ty) -> Value {
        match ty {
            Ty::String => self.of(TEXTS).into(),
            Ty::Bytes => self.of(&["", "e30=", "AAAA"]).into(),
            Ty::Time => "2026-01-02T03:04:05Z".into(),
            Ty::MicroTime => "2026-01-02T03:04:05.000001Z".into(),
            Ty::Int32 => i32::try_from(self.of(NUMBERS)).unwrap_or(-7).into(),
            Ty::Int64 | Ty::Number => self.of(NUMBERS).into(),
            Ty::Boolean => (self.below(2) == 0).into(),
            Ty::Quantity => self.of(AMOUNTS).into(),
            Ty::IntOrString if self.below(2) == 0 => self.of(TEXTS).into(),
            Ty::IntOrString => i32::try_from(self.of(NUMBERS)).unwrap_or(0).into(),
            _ => json!({}),
        }
    }
}

fn decoded(row: &'static api::KindRow, json: &Value) -> Option<Box<dyn Object>> {
    api::kind::decode(&row.into(), json.to_string().as_bytes()).ok()
}

/// Everything that a write and a read call on a strategy.
fn exercise(strategy: &dyn Strategy, old: &dyn Object, new: &dyn Object) {
    let now = context().now;
    let mut first = old.clone_object();
    strategy.default(&mut *first);
    strategy.prepare_create(&mut *first, &context());
    let found = strategy.validate(&*first).len();
    let mut second = new.clone_object();
    strategy.default(&mut *second);
    for subresource in ["", "status", "resize", "ephemeralcontainers", "finalize", "approval"] {
        let context = Context { subresource, ..context() };
        let mut third = second.clone_object();
        if subresource.is_empty() {
            strategy.prepare_update(&mut *third, &*first, &context);
            strategy.validate_update(&*third, &*first);
        } else {
            strategy.prepare_status_update(&mut *third, &*first, &context);
            strategy.validate_subresource_update(&*third, &*first, &context);
        }
        strategy.generation_changes(&*third, &*first);
        assert_eq!(strategy.cells(&*third, now).len(), strategy.columns().len());
    }
    strategy.default_grace_seconds(&*first);
    let mut again = first.clone_object();
    strategy.default(&mut *again);
    assert_eq!(
        strategy.validate(&*again).len(),
        found,
        "defaults change nothing once they are there"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_object_panics(seed in 1u64..) {
        let mut random = Random(seed);
        for row in api::kind::KINDS.iter().filter(|row| row.stored) {
            let schema = row.schema().unwrap();
            let (old, new) = (random.object(schema, 0), random.object(schema, 0));
            let patch = api::strategic::two_way(&old, &new, Some(schema));
            let outcome = api::strategic::apply(old.clone(), patch, Some(schema));
            prop_assert!(outcome.is_ok() || outcome.is_err());
            let writer = api::apply::Writer {
                manager: "m", api_version: "v1", subresource: "", now: context().now, force: seed.is_multiple_of(2),
            };
            let versions = OneVersion(Some(schema).into());
            let applied = api::apply::apply(Some(&old), &[], &new, &versions, &writer);
            if let Some(Ok(applied)) = applied.now_or_never() {
                api::apply::track(&old, &applied.owners, &new, "v1", &versions, &writer).now_or_never();
            }
            if let (Some(old), Some(new)) = (decoded(row, &old), decoded(row, &new)) {
                exercise(super::strategy(row), &*old, &*new);
            }
        }
    }
}
