//! The rules of a kind: its strategy, or the plain rules for a kind without one.

use std::sync::LazyLock;

use api::KindRow;
use api::object::Object;
use api::status::FieldError;
use jiff::Timestamp;

use crate::kinds::{AnyStrategy, Column, Context, age, strategy};

/// The strategy that every verb asks.
pub fn rules(row: &'static KindRow) -> &'static dyn AnyStrategy {
    static PLAIN: LazyLock<Vec<PlainRules>> =
        LazyLock::new(|| api::kind::KINDS.iter().map(|row| PlainRules(row)).collect());
    strategy(row).unwrap_or_else(|| {
        PLAIN
            .iter()
            .find(|plain| plain.0 == row)
            .expect("every row that is routed to is in the kind table")
    })
}

/// A kind without a strategy: stored as it comes.
struct PlainRules(&'static KindRow);

static COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        priority: 0,
        description: "Name must be unique within a namespace.",
    },
    Column {
        name: "Age",
        kind: "string",
        format: "",
        priority: 0,
        description: "Age of the object.",
    },
];

impl AnyStrategy for PlainRules {
    fn row(&self) -> &'static KindRow {
        self.0
    }
    fn default(&self, _: &mut dyn Object) {}
    fn prepare_create(&self, _: &mut dyn Object, _: &Context<'_>) {}
    fn prepare_update(&self, _: &mut dyn Object, _: &dyn Object, _: &Context<'_>) {}
    fn prepare_status_update(&self, _: &mut dyn Object, _: &dyn Object, _: &Context<'_>) {}
    fn validate(&self, _: &dyn Object) -> Vec<FieldError> {
        Vec::new()
    }
    fn validate_create(&self, _: &dyn Object) -> Vec<FieldError> {
        Vec::new()
    }
    fn validate_update(&self, _: &dyn Object, _: &dyn Object) -> Vec<FieldError> {
        Vec::new()
    }
    fn validate_status_update(&self, _: &dyn Object, _: &dyn Object) -> Vec<FieldError> {
        Vec::new()
    }
    fn warnings(&self, _: &dyn Object, _: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
    }
    fn generation_changes(&self, _: &dyn Object, _: &dyn Object) -> Option<bool> {
        None
    }
    fn validate_name(&self, name: &str) -> Vec<String> {
        // RBAC's names are path segments, such as `system:discovery`.
        if self.0.group == "rbac.authorization.k8s.io" {
            return api::names::path_segment(name);
        }
        api::names::dns_subdomain(name)
    }
    fn default_grace_seconds(&self, _: &dyn Object) -> Option<i64> {
        None
    }
    fn allow_create_on_update(&self) -> bool {
        false
    }
    fn allow_unconditional_update(&self) -> bool {
        true
    }
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<serde_json::Value> {
        let metadata = object.metadata();
        vec![metadata.name.clone().unwrap_or_default().into(), age(metadata, now).into()]
    }
}
