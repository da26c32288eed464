//! From a token's claims to a user, as the configuration of its issuer says.

use std::collections::BTreeMap;

use api::cel::{Binding, EvalError, Expression, Output, Session};
use serde_json::{Map, Value, json};

use crate::user::{CREDENTIAL_ID, User};

/// What the expressions of one token may cost together, as upstream's `RuntimeCELCostBudget`.
const BUDGET: u64 = 10_000_000;

/// Where a text comes from.
pub enum Source {
    Nothing,
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

/// What must hold of the claims.
pub enum ClaimRule {
    Value { claim: String, value: String },
    Expression { rule: Expression, source: String, message: String },
}

/// What must hold of the user.
pub struct UserRule {
    pub rule: Expression,
    pub source: String,
    pub message: String,
}

/// How an issuer's claims become users.
pub struct Mapping {
    pub username: Source,
    pub groups: Source,
    pub uid: Source,
    pub extra: Vec<(String, Expression)>,
    pub claim_rules: Vec<ClaimRule>,
    pub user_rules: Vec<UserRule>,
}

impl Mapping {
    /// The user of verified claims.
    ///
    /// # Errors
    /// Why they are of none, in upstream's words.
    pub fn user(&self, claims: Map<String, Value>) -> Result<User, String> {
        let claims = Value::Object(claims);
        let variables = [("claims", Binding::Json(&claims))];
        let mut session = Session::new(&variables, &[], BUDGET);
        let name = self.name(&claims, &mut session)?;
        if name.is_empty() {
            return Err("oidc: empty username is not allowed".to_owned());
        }
        let groups = match &self.groups {
            Source::Nothing => Vec::new(),
            Source::Claim { claim, prefix } => {
                let found = claims.get(claim).map_or(Ok(Vec::new()), |found| {
                    texts(found).ok_or_else(|| format!("oidc: parse groups claim {claim:?}"))
                })?;
                found.into_iter().map(|group| format!("{prefix}{group}")).collect()
            }
            Source::Expression(expression) => {
                let found = session.texts(expression).map_err(|error| failed("groups", &error))?;
                found.ok_or("oidc: error evaluating group claim expression: expression must return a string or a list of strings")?
            }
        };
        let uid = self.uid(&claims, &mut session)?;
        let extra = self.extra(&claims, &mut session)?;
        self.check(&claims, &mut session)?;
        let user = User { name, uid, groups, extra };
        self.check_user(&user)?;
        // The rules are about what the token says: this group is not of it.
        Ok(User { uid: user.uid, extra: user.extra, ..User::authenticated(user.name, user.groups) })
    }

    fn name<'a>(&'a self, claims: &Value, session: &mut Session<'a>) -> Result<String, String> {
        match &self.username {
            Source::Nothing => Err("oidc: no username is configured".to_owned()),
            Source::Claim { claim, prefix } => {
                let found = claims.get(claim).and_then(Value::as_str);
                let found = found.ok_or_else(|| {
                    format!("oidc: parse username claims {claim:?}: claim not present")
                })?;
                // An address proves nothing before it has been verified.
                if claim == "email"
                    && let Some(verified) = claims.get("email_verified")
                    && *verified != true
                {
                    return Err("oidc: email not verified".to_owned());
                }
                Ok(format!("{prefix}{found}"))
            }
            Source::Expression(expression) => match session.eval(expression) {
                Ok(Output::Text(text)) => Ok(text),
                Ok(_) => {
                    Err("oidc: error evaluating username claim expression: must return a string"
                        .to_owned())
                }
                Err(error) => Err(failed("username", &error)),
            },
        }
    }

    fn uid<'a>(&'a self, claims: &Value, session: &mut Session<'a>) -> Result<String, String> {
        match &self.uid {
            Source::Nothing => Ok(String::new()),
            Source::Claim { claim, .. } => {
                let found = claims.get(claim).and_then(Value::as_str).map(str::to_owned);
                found.ok_or_else(|| format!("oidc: parse uid claim {claim:?}"))
            }
            Source::Expression(expression) => match session.eval(expression) {
                Ok(Output::Text(text)) => Ok(text),
                Ok(_) => {
                    Err("oidc: error evaluating uid claim expression: must return a string"
                        .to_owned())
                }
                Err(error) => Err(failed("uid", &error)),
            },
        }
    }

    fn extra<'a>(
        &'a self,
        claims: &Value,
        session: &mut Session<'a>,
    ) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        for (key, expression) in &self.extra {
            let found = session.texts(expression).map_err(|error| failed("extra", &error))?;
            let mut found = found.ok_or("oidc: error evaluating extra claim expression: expression must return a string or a list of strings")?;
            found.retain(|text| !text.is_empty());
            if !found.is_empty() {
                extra.insert(key.clone(), found);
            }
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        Ok(extra)
    }

    fn check<'a>(&'a self, claims: &Value, session: &mut Session<'a>) -> Result<(), String> {
        for rule in &self.claim_rules {
            match rule {
                ClaimRule::Value { claim, value } => {
                    let found = claims.get(claim).ok_or_else(|| {
                        format!("oidc: required claim {claim} not present in ID token")
                    })?;
                    if found.as_str() != Some(value) {
                        return Err(format!("oidc: required claim {claim} value does not match"));
                    }
                }
                ClaimRule::Expression { rule, source, message } => {
                    holds(session.eval(rule), source, message).map_err(|why| {
                        format!("oidc: error evaluating claim validation expression: {why}")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn check_user(&self, user: &User) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        let variables = [("user", Binding::Json(&shown))];
        let mut session = Session::new(&variables, &[], BUDGET);
        for UserRule { rule, source, message } in &self.user_rules {
            holds(session.eval(rule), source, message).map_err(|why| {
                format!("oidc: error evaluating user info validation rule: {why}")
            })?;
        }
        Ok(())
    }
}

fn failed(what: &str, error: &EvalError) -> String {
    format!("oidc: error evaluating {what} claim expression: {error}")
}

fn holds(outcome: Result<Output, EvalError>, source: &str, message: &str) -> Result<(), String> {
    match outcome {
        Ok(Output::Bool(true)) => Ok(()),
        Ok(_) => Err(format!("validation expression '{source}' failed: {message}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A claim that is a text or a list of texts.
fn texts(claim: &Value) -> Option<Vec<String>> {
    match claim {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
