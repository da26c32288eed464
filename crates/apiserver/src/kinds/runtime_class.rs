//! RuntimeClasses.

use api::names;
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde::Serialize;

use super::columns::text;
use super::pod_spec::resources::{self, Owner};
use super::table::{Check, Fixed, Rows, age, name};
use super::{fill, pod_spec};

pub static RULES: Rows<RuntimeClass> = Rows {
    default: |class| {
        class.overhead.iter_mut().for_each(|overhead| fill::amounts(&mut overhead.pod_fixed));
    },
    checks: &[
        ("handler", Check::Text(names::dns_label)),
        ("scheduling.nodeSelector", Check::Labels),
    ],
    judge: |class, at| {
        // What a pod of the class is given has to be valid there.
        if let Some(overhead) = &class.overhead {
            let limits = overhead.pod_fixed.clone();
            let overhead = ResourceRequirements { limits, ..ResourceRequirements::default() };
            resources::validate(Some(&overhead), Owner::Container, &at.child("overhead"));
        }
        let scheduling = class.scheduling.as_ref();
        let tolerations = scheduling.and_then(|scheduling| scheduling.tolerations.as_deref());
        let (tolerations, at) =
            (tolerations.unwrap_or_default(), at.child("scheduling.tolerations"));
        pod_spec::tolerations(tolerations, &at);
        for (index, one) in tolerations.iter().enumerate() {
            if tolerations[..index].iter().any(|earlier| key(earlier) == key(one)) {
                at.index(index).duplicate(Shown::of(one));
            }
        }
    },
    fixed: &[("handler", Fixed::Immutable)],
    columns: &[
        name(),
        text("Handler", "Name of the runtime's configuration.").at("handler"),
        age(),
    ],
    ..Rows::NEW
};

/// What makes a toleration another one.
fn key(of: &Toleration) -> [&str; 4] {
    [&of.key, &of.operator, &of.value, &of.effect].map(|text| text.as_deref().unwrap_or_default())
}

/// A toleration as upstream shows it in an error.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    key: &'a str,
    operator: &'a str,
    value: &'a str,
    effect: &'a str,
    toleration_seconds: Option<i64>,
}

impl<'a> Shown<'a> {
    fn of(one: &'a Toleration) -> Self {
        let [key, operator, value, effect] = key(one);
        Self { key, operator, value, effect, toleration_seconds: one.toleration_seconds }
    }
}
