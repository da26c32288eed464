//! Checks a policy's expressions against the types that its rules name
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/validating`, `typechecking.go`). What is found is
//! a warning in the policy's status: objects are untyped when a policy is in force.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, ValidatingAdmissionPolicySpec,
};

use super::{VARIABLES, VARIABLES_NAME, kind, problems, schema};
use crate::schema::{Ty, TypeRow};
use crate::structural::Structural;
use crate::structural::node::Node;
use crate::structural::rules::check::{Checker, Kind, Members};
use crate::structural::rules::cost::Place;
use crate::structural::rules::parse;

/// What is known of an object.
#[derive(Clone, Copy)]
pub enum Type<'a> {
    Unknown,
    BuiltIn(&'static TypeRow),
    Custom(&'a Structural),
}

impl<'a> Type<'a> {
    fn kind(self) -> Kind<'a> {
        match self {
            Self::Unknown => Kind::Any,
            Self::BuiltIn(row) => Ty::of(row).map_or(Kind::Any, Kind::BuiltIn),
            Self::Custom(schema) => Kind::Custom(&schema.root),
        }
    }
}

/// A kind that a policy is about.
pub struct Subject<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub ty: Type<'a>,
}

/// What one kind's expressions are checked in.
struct Context<'a> {
    variables: Vec<(&'static str, Kind<'a>)>,
    composed: Members,
}

impl<'a> Context<'a> {
    fn new(
        subject: Type<'a>,
        params: Option<Type<'a>>,
        spec: &ValidatingAdmissionPolicySpec,
    ) -> Self {
        let mut variables: Vec<(&'static str, Kind<'a>)> = VARIABLES
            .into_iter()
            .map(|(name, variable)| match name {
                "object" | "oldObject" => (name, subject.kind()),
                _ => (name, kind(variable)),
            })
            .collect();
        variables.extend(params.map(|params| ("params", params.kind())));
        let mut context = Self { variables, composed: Members::new() };
        for variable in spec.variables.iter().flatten() {
            // What is wrong with a variable, the policy has been refused for.
            let schema = context.schema_of(&variable.expression);
            context.composed.insert(variable.name.clone(), schema);
        }
        context
    }

    fn checker<'b>(&'b self) -> Checker<'b, 'b> {
        let mut variables: Vec<(&str, Kind<'b>)> = self.variables.clone();
        variables.push((VARIABLES_NAME, Kind::Members(&self.composed)));
        Checker::new(variables, Place::Nowhere)
    }

    fn schema_of(&self, source: &str) -> Arc<Node> {
        let Ok(program) = parse(source) else {
            return schema(None, None);
        };
        let found = self.checker().check(&program);
        schema(found.kind.name(), found.inner.name())
    }

    fn issues(&self, source: &str) -> Option<String> {
        match parse(source) {
            Err(why) => Some(why),
            Ok(program) => {
                let mut checker = self.checker();
                checker.check(&program);
                problems(source, &checker)
            }
        }
    }
}

/// What is wrong with the validations of a policy, for the kinds that it is about. `params`: the type
/// of its parameters, if it has any.
pub fn warnings(
    spec: &ValidatingAdmissionPolicySpec,
    subjects: &[Subject<'_>],
    params: Option<Type<'_>>,
) -> Vec<ExpressionWarning> {
    let contexts = subjects.iter().map(|subject| (subject, Context::new(subject.ty, params, spec)));
    let contexts: Vec<_> = contexts.collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        let message = validation.message_expression.as_deref().filter(|text| !text.is_empty());
        let expressions =
            [("expression", Some(&*validation.expression)), ("messageExpression", message)];
        for (name, source) in expressions {
            let Some(source) = source else { continue };
            let found = contexts.iter().filter_map(|(subject, context)| {
                let Subject { group, version, kind, .. } = subject;
                let issues = context.issues(source)?;
                Some(format!("{group}/{version}, Kind={kind}: {issues}\n"))
            });
            let found: Vec<String> = found.collect();
            if !found.is_empty() {
                warnings.push(ExpressionWarning {
                    field_ref: format!("spec.validations[{index}].{name}"),
                    warning: found.join("\n"),
                });
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::{Validation, Variable};
    use serde_json::json;

    use super::*;

    fn spec(expression: &str) -> ValidatingAdmissionPolicySpec {
        let variable = |name: &str, expression: &str| Variable {
            name: name.to_owned(),
            expression: expression.to_owned(),
        };
        let validation = Validation { expression: expression.to_owned(), ..Validation::default() };
        ValidatingAdmissionPolicySpec {
            validations: Some(vec![validation]),
            variables: Some(vec![
                variable("replicas", "object.spec.replicas"),
                variable("names", "object.metadata.finalizers"),
                variable("any", "object.spec"),
            ]),
            ..ValidatingAdmissionPolicySpec::default()
        }
    }

    fn found(expression: &str) -> Vec<ExpressionWarning> {
        let schema = Structural::new(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"replicas": {"type": "integer"},
                "free": {"x-kubernetes-preserve-unknown-fields": true}}}}}))
        .unwrap();
        let row = crate::schema::kind("apps", "v1", "Deployment").unwrap();
        let subject = |group, kind, ty| Subject { group, version: "v1", kind, ty };
        let subjects = [
            subject("apps", "Deployment", Type::BuiltIn(row)),
            subject("example.com", "Widget", Type::Custom(&schema)),
        ];
        let params = crate::schema::kind("", "v1", "ConfigMap").map(Type::BuiltIn);
        warnings(&spec(expression), &subjects, params)
    }

    #[test]
    fn right_expressions_give_no_warnings() {
        for expression in [
            "object.spec.replicas > 1 && oldObject.spec.replicas > 1",
            "object.metadata.labels.x == 'y' && object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')",
            "variables.replicas > 1 && variables.any.nothing == 1",
            "variables.names.all(name, name.startsWith('x'))",
            "params.data.x == 'y' && request.operation == 'CREATE'",
            "authorizer.requestResource.check('get').allowed()",
            "namespaceObject.metadata.labels.x == 'y'",
            "has(object.spec.replicas) && object.kind == 'Deployment'",
        ] {
            assert_eq!(found(expression), [], "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_for_each_kind() {
        let both = found("object.spec.replicaz > 1");
        assert_eq!(both[0].field_ref, "spec.validations[0].expression");
        let issue = "ERROR: <input>:1:12: undefined field 'replicaz'\n | object.spec.replicaz > 1\n | ...........^";
        assert_eq!(
            both[0].warning,
            format!("apps/v1, Kind=Deployment: {issue}\n\nexample.com/v1, Kind=Widget: {issue}\n")
        );
        for (expression, expected, kinds) in [
            (
                "object.spec.template.spec.containers.all(c, c.imag == '')",
                "undefined field 'imag'",
                1,
            ),
            ("object.spec.free.anything == 1", "undefined field 'free'", 1),
            (
                "object.spec.replicas == 'x'",
                "no matching overload for '_==_' applied to '(int, string)'",
                2,
            ),
            ("object.metadata.nam == ''", "undefined field 'nam'", 2),
            ("params.datas == null", "undefined field 'datas'", 2),
            ("variables.replicas == ''", "no matching overload", 2),
            ("variables.names.all(name, name > 1)", "no matching overload", 2),
            ("namespaceObject.metadata.uid == ''", "undefined field 'uid'", 2),
        ] {
            let warning = found(expression)[0].warning.clone();
            assert_eq!(warning.matches(expected).count(), kinds, "{expression}: {warning}");
        }
    }
}
