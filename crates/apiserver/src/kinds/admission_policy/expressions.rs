//! The expressions that every policy has: its conditions and variables.

use api::cel::{Environment, RESERVED};
use api::status::FieldError;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, Variable};

use crate::kinds::check::Errors;
use crate::kinds::path::Path;
use crate::kinds::webhook_configuration::match_conditions;

/// Checks the conditions (`None`: they are those of the policy before) and the variables of a policy;
/// returns what its other expressions are compiled in.
pub fn environment(
    has_params: bool,
    conditions: Option<&[MatchCondition]>,
    variables: &[Variable],
    path: &Path,
    errors: &mut Errors,
) -> Environment {
    let mut environment = Environment::new(has_params);
    let all = conditions.unwrap_or_default();
    match_conditions(all, &environment, &path.child("matchConditions"), errors);
    for (index, variable) in variables.iter().enumerate() {
        let path = path.child("variables").index(index);
        compose(variable, &mut environment, &path, errors);
    }
    environment
}

fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let all = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    starts && all && !RESERVED.contains(&name)
}

fn compose(variable: &Variable, environment: &mut Environment, path: &Path, errors: &mut Errors) {
    let name = path.child("name");
    if variable.name.trim().is_empty() {
        errors.push(FieldError::required(name, "name is not specified"));
    } else if !is_identifier(&variable.name) {
        let why = "name is not a valid CEL identifier";
        errors.push(FieldError::invalid(name, &variable.name, why));
    }
    let at = path.child("expression");
    let expression = if variable.expression.trim().is_empty() {
        errors.push(FieldError::required(at, "expression is not specified"));
        None
    } else {
        match environment.compile(&variable.expression, &[]) {
            Ok(expression) => Some(expression),
            Err(why) => {
                errors.push(FieldError::invalid(at, &variable.expression, why));
                None
            }
        }
    };
    environment.compose(&variable.name, expression.as_ref());
}
