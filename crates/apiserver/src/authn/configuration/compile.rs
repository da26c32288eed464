//! What an issuer's section says about claims, compiled.

use api::cel::{Environment, Expression};
use api::status::FieldError;

use super::{Authenticator, Mappings, Prefixed};
use crate::authn::claims::{ClaimRule, Mapping, Source, UserRule};

const BOTH: &str = "claim and expression can't both be set";

struct Compiler<'a> {
    claims: Environment,
    user: Environment,
    errors: &'a mut Vec<FieldError>,
    verifies_email: bool,
}

/// The mapping; `None` if there are errors.
pub fn mapping(
    authenticator: &Authenticator,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Option<Mapping> {
    let known = errors.len();
    let mut compiler = Compiler {
        claims: Environment::of(&["claims"]),
        user: Environment::of(&["user"]),
        errors,
        verifies_email: false,
    };
    let claim_rules = compiler.claim_rules(authenticator, &format!("{path}.claimValidationRules"));
    let mappings = &authenticator.claim_mappings;
    let (username, groups, uid, extra) =
        compiler.mappings(mappings, &format!("{path}.claimMappings"));
    let user_rules = compiler.user_rules(authenticator, &format!("{path}.userValidationRules"));
    let good = compiler.errors.len() == known;
    good.then_some(Mapping { username, groups, uid, extra, claim_rules, user_rules })
}

impl Compiler<'_> {
    fn claim_rules(&mut self, authenticator: &Authenticator, path: &str) -> Vec<ClaimRule> {
        let rules = &authenticator.claim_validation_rules;
        let mut all = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let invalid = |name: &str, value: &str, problem: &str| {
                FieldError::invalid(format!("{path}{name}"), value, problem)
            };
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => {
                    self.errors
                        .push(FieldError::required(&path, "claim or expression is required"));
                }
                (claim, "") => {
                    if !rule.message.is_empty() {
                        let problem = "may not be specified when claim is set";
                        self.errors.push(invalid(".message", &rule.message, problem));
                    }
                    if rules[..index].iter().any(|other| other.claim == claim) {
                        self.errors.push(FieldError::duplicate(format!("{path}.claim"), claim));
                    }
                    let value = rule.required_value.clone();
                    all.push(ClaimRule::Value { claim: claim.to_owned(), value });
                }
                ("", expression) => {
                    if !rule.required_value.is_empty() {
                        let problem = "may not be specified when expression is set";
                        self.errors.push(invalid(".requiredValue", &rule.required_value, problem));
                    }
                    let field = format!("{path}.expression");
                    if rules[..index].iter().any(|other| other.expression == expression) {
                        self.errors.push(FieldError::duplicate(field, expression));
                        continue;
                    }
                    let Some(rule_compiled) = self.compile(expression, &field, true) else {
                        continue;
                    };
                    all.push(ClaimRule::Expression {
                        rule: rule_compiled,
                        source: expression.to_owned(),
                        message: rule.message.clone(),
                    });
                }
                (claim, _) => self.errors.push(invalid("", claim, BOTH)),
            }
        }
        all
    }

    fn mappings(
        &mut self,
        mappings: &Mappings,
        path: &str,
    ) -> (Source, Source, Source, Vec<(String, Expression)>) {
        let verified_elsewhere = self.verifies_email;
        let username = self.prefixed(&mappings.username, &format!("{path}.username"), true);
        let in_username = self.verifies_email;
        let groups = self.prefixed(&mappings.groups, &format!("{path}.groups"), false);
        let uid = match (mappings.uid.claim.as_str(), mappings.uid.expression.as_str()) {
            ("", "") => Source::Nothing,
            (claim, "") => Source::Claim { claim: claim.to_owned(), prefix: String::new() },
            ("", expression) => self
                .compile(expression, &format!("{path}.uid.expression"), false)
                .map_or(Source::Nothing, Source::Expression),
            _ => {
                self.errors.push(FieldError::invalid(format!("{path}.uid"), "", BOTH));
                Source::Nothing
            }
        };
        self.verifies_email = verified_elsewhere || in_username;
        let extra = self.extra(mappings, &format!("{path}.extra"));
        if let Source::Expression(expression) = &username
            && expression.selects("claims", "email")
            && !self.verifies_email
        {
            let problem = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
            let shown = &mappings.username.expression;
            self.errors.push(FieldError::invalid(
                format!("{path}.username.expression"),
                shown,
                problem,
            ));
        }
        (username, groups, uid, extra)
    }

    fn extra(&mut self, mappings: &Mappings, path: &str) -> Vec<(String, Expression)> {
        let mut all = Vec::new();
        for (index, extra) in mappings.extra.iter().enumerate() {
            let field = |name: &str| format!("{path}[{index}].{name}");
            self.check_key(&extra.key, &field("key"));
            if mappings.extra[..index].iter().any(|other| other.key == extra.key) {
                self.errors.push(FieldError::duplicate(field("key"), &extra.key));
                continue;
            }
            if extra.value_expression.is_empty() {
                self.errors.push(FieldError::required(field("valueExpression"), ""));
                continue;
            }
            let compiled = self.compile(&extra.value_expression, &field("valueExpression"), false);
            all.extend(compiled.map(|compiled| (extra.key.clone(), compiled)));
        }
        all
    }

    /// Keys are a domain and a path (`IsDomainPrefixedPath`).
    fn check_key(&mut self, key: &str, field: &str) {
        let mut refuse = |problem: &str| self.errors.push(FieldError::invalid(field, key, problem));
        let (domain, path) = key.split_once('/').unwrap_or(("", key));
        if key.is_empty() {
            self.errors.push(FieldError::required(field, ""));
            return;
        }
        if domain.is_empty() || path.is_empty() {
            refuse("must be a domain-prefixed path (such as \"acme.io/foo\")");
        } else {
            for problem in api::names::dns_subdomain(domain) {
                refuse(&problem);
            }
        }
        if key.to_lowercase() != key {
            refuse("must be lowercase");
        }
        let reserved = |own: &str| domain == own || domain.ends_with(&format!(".{own}"));
        if reserved("k8s.io") || reserved("kubernetes.io") {
            refuse("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
        }
    }

    fn prefixed(&mut self, mapping: &Prefixed, path: &str, required: bool) -> Source {
        match (mapping.claim.as_str(), mapping.expression.as_str()) {
            ("", "") => {
                if required {
                    self.errors.push(FieldError::required(path, "claim or expression is required"));
                }
                Source::Nothing
            }
            (claim, "") => {
                let Some(prefix) = mapping.prefix.clone() else {
                    let problem = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(FieldError::required(format!("{path}.prefix"), problem));
                    return Source::Nothing;
                };
                Source::Claim { claim: claim.to_owned(), prefix }
            }
            ("", expression) => {
                if let Some(prefix) = &mapping.prefix {
                    let problem = "may not be specified when expression is set";
                    self.errors.push(FieldError::invalid(
                        format!("{path}.prefix"),
                        prefix,
                        problem,
                    ));
                }
                self.compile(expression, &format!("{path}.expression"), false)
                    .map_or(Source::Nothing, Source::Expression)
            }
            _ => {
                self.errors.push(FieldError::invalid(path, "", BOTH));
                Source::Nothing
            }
        }
    }

    /// An expression about claims; a condition must be a truth value.
    fn compile(&mut self, source: &str, field: &str, condition: bool) -> Option<Expression> {
        let wanted: &[&str] = if condition { &["bool"] } else { &[] };
        match self.claims.compile(source, wanted) {
            Ok(expression) => {
                self.verifies_email |= expression.selects("claims", "email_verified");
                Some(expression)
            }
            Err(problem) => {
                self.errors.push(FieldError::invalid(field, source, problem));
                None
            }
        }
    }

    fn user_rules(&mut self, authenticator: &Authenticator, path: &str) -> Vec<UserRule> {
        let rules = &authenticator.user_validation_rules;
        let mut all = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let (field, source) = (format!("{path}[{index}].expression"), &rule.expression);
            if source.is_empty() {
                self.errors.push(FieldError::required(field, ""));
            } else if rules[..index].iter().any(|other| other.expression == *source) {
                self.errors.push(FieldError::duplicate(field, source));
            } else {
                match self.user.condition(source) {
                    Ok(compiled) => all.push(UserRule {
                        rule: compiled,
                        source: source.clone(),
                        message: rule.message.clone(),
                    }),
                    Err(problem) => {
                        self.errors.push(FieldError::invalid(field, source, problem));
                    }
                }
            }
        }
        all
    }
}
