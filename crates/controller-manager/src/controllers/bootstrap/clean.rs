//! Deletes bootstrap tokens that have expired.

use std::sync::Arc;
use std::time::Duration;

use api::bootstrap_token::{NAMESPACE, SECRET_TYPE, expires_at};
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use k8s_openapi::api::core::v1::Secret;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

struct Cleaner {
    client: Client,
    clock: SharedClock,
    tokens: Arc<Cache<Secret>>,
}

/// Adds the controller; its keys are Secrets.
pub fn start(wiring: &mut Wiring) {
    let controller = Cleaner {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        tokens: wiring.cache(),
    };
    wiring.controller(controller).of_present::<Secret>().start();
}

impl Controller for Cleaner {
    const NAME: &'static str = "token-cleaner";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let token = self.tokens.get(key).filter(|it| it.type_.as_deref() == Some(SECRET_TYPE));
        let Some((token, at)) = token.and_then(|it| expires_at(&it).map(|at| (it, at))) else {
            return Ok(Next::Change);
        };
        if let Ok(left) = Duration::try_from(at.duration_since(self.clock.now()))
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        // It may have been renewed since.
        let options = DeleteOptions {
            precondition_resource_version: token.metadata.resource_version.clone(),
            ..DeleteOptions::default()
        };
        let secrets = Api::<Secret>::namespaced(&self.client, NAMESPACE);
        let deleted = secrets.delete_exactly(&token, &options).await.unless_gone();
        deleted.during(|| format!("delete secret {key}"))?;
        Ok(Next::Change)
    }
}
