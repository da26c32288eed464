//! Creates the ServiceAccount `default` in every namespace
//! (`k8s.io/kubernetes/pkg/controller/serviceaccount`).

use std::sync::Arc;

use client::{Api, Client};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

const DEFAULT: &str = "default";

struct ServiceAccounts {
    client: Client,
    namespaces: Arc<Cache<Namespace>>,
    service_accounts: Arc<Cache<ServiceAccount>>,
}

/// Adds the controller; its keys are namespaces.
pub fn start(wiring: &mut Wiring) {
    let controller = ServiceAccounts {
        client: wiring.client.clone(),
        namespaces: wiring.cache(),
        service_accounts: wiring.cache(),
    };
    let gone = |change: &Change<ServiceAccount>| {
        let key = change.key();
        (change.new.is_none() && key.name == DEFAULT).then(|| Key::cluster(key.namespace))
    };
    wiring.controller(controller).of::<Namespace>().maps(gone).start();
}

/// Whether the account must be created.
fn plan(namespace: Option<&Namespace>, account_exists: bool) -> bool {
    namespace.is_some_and(|namespace| !is_deleting(&namespace.metadata)) && !account_exists
}

impl Controller for ServiceAccounts {
    const NAME: &'static str = "serviceaccount";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let namespace = self.namespaces.get(key);
        let exists = self.service_accounts.get(&Key::new(&key.name, DEFAULT)).is_some();
        if plan(namespace.as_deref(), exists) {
            let mut account = ServiceAccount::default();
            account.metadata.name = Some(DEFAULT.into());
            account.metadata.namespace = Some(key.name.clone());
            let created = Api::namespaced(&self.client, &key.name).create(&account).await;
            created
                .unless_there()
                .during(|| format!("create serviceaccount {}/{DEFAULT}", key.name))?;
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn only_an_active_namespace_gets_an_account() {
        let mut namespace = Namespace::default();
        assert!(plan(Some(&namespace), false));
        assert!(!plan(Some(&namespace), true));
        assert!(!plan(None, false));
        namespace.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(!plan(Some(&namespace), false));
    }
}
