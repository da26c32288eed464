//! Bootstrap tokens as bearer tokens (`k8s.io/kubernetes/plugin/pkg/auth/authenticator/token/bootstrap`).

use std::sync::Arc;

use api::{Kind, bootstrap_token};
use k8s_openapi::api::core::v1::Secret;

use crate::core::Core;
use crate::user::User;

/// The user of a bootstrap token that is valid now; `None` for any other token.
pub fn authenticate(core: &Core, token: &str) -> Option<Arc<User>> {
    let (id, secret) = bootstrap_token::parse(token).filter(|_| core.bootstrap_tokens)?;
    let version = core.cache.resource(Secret::ROW).get(&bootstrap_token::key(id))?;
    let stored = Secret::decode(&version.json).ok()?;
    let usage = bootstrap_token::FOR_AUTHENTICATION;
    let (_, expected) = bootstrap_token::usable(&stored, usage, core.clock.now())?;
    if !is_same(secret.as_bytes(), expected.as_bytes()) {
        tracing::debug!(id, "bootstrap token refused: its secret is another");
        return None;
    }
    let groups = bootstrap_token::groups(&stored);
    if groups.is_none() {
        tracing::warn!(id, "bootstrap token refused: it names groups that it may not be in");
    }
    Some(Arc::new(User::authenticated(bootstrap_token::user_name(id), groups?)))
}

/// Compares in a time that does not depend on where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}
