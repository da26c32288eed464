//! RuntimeClasses.

use api::names;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::columns::text;
use super::fill;
use super::table::{Check, Fixed, Rows, age, name};

pub static RULES: Rows<RuntimeClass> = Rows {
    default: |class| {
        class.overhead.iter_mut().for_each(|overhead| fill::amounts(&mut overhead.pod_fixed));
    },
    checks: &[
        ("handler", Check::Text(names::dns_label)),
        ("overhead.podFixed", Check::Values(&[("", Check::Amount)])),
        ("scheduling.nodeSelector", Check::Labels),
    ],
    fixed: &[("handler", Fixed::Immutable)],
    columns: &[
        name(),
        text("Handler", "Name of the runtime's configuration.").at("handler"),
        age(),
    ],
    ..Rows::NEW
};
