//! The expressions that every policy has: its conditions and variables.

use api::cel::{Environment, RESERVED};
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, Variable};

use crate::kinds::at::At;
use crate::kinds::webhook_configuration::match_conditions;

/// Checks the conditions (`None`: they are those of the policy before) and the variables of a policy;
/// returns what its other expressions are compiled in.
pub fn environment(
    has_params: bool,
    conditions: Option<&[MatchCondition]>,
    variables: Option<&Vec<Variable>>,
    at: &At<'_>,
) -> Environment {
    let mut environment = Environment::new(has_params);
    let all = conditions.unwrap_or_default();
    match_conditions(all, &environment, &at.child("matchConditions"));
    for (index, variable) in variables.into_iter().flatten().enumerate() {
        compose(variable, &mut environment, &at.item("variables", index));
    }
    environment
}

fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let all = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    starts && all && !RESERVED.contains(&name)
}

fn compose(variable: &Variable, environment: &mut Environment, at: &At<'_>) {
    let name = at.child("name");
    if variable.name.trim().is_empty() {
        name.required("name is not specified");
    } else if !is_identifier(&variable.name) {
        name.invalid(&variable.name, "name is not a valid CEL identifier");
    }
    let at = at.child("expression");
    let expression = if variable.expression.trim().is_empty() {
        at.required("expression is not specified");
        None
    } else {
        let compiled = environment.compile(&variable.expression, &[]);
        compiled.map_err(|why| at.invalid(&variable.expression, why)).ok()
    };
    environment.compose(&variable.name, expression.as_ref());
}
