//! Publishes the cluster's CA bundle in a ConfigMap of every namespace, which is mounted with
//! service account tokens (`k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher`).

use std::sync::Arc;

use client::{Api, Client};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use tokio::sync::watch;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::ROOT_CA_CONFIG_MAP;
use crate::wire::Wiring;

const FIELD: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver \
    when using internal endpoints such as the internal service IP or kubernetes.default.svc. \
    No other usage is guaranteed across distributions of Kubernetes clusters.";

struct RootCa {
    client: Client,
    pem: watch::Receiver<Arc<String>>,
    namespaces: Arc<Cache<Namespace>>,
    config_maps: Arc<Cache<ConfigMap>>,
}

/// Adds the controller; its keys are namespaces. `pem`: the CA bundle.
pub fn start(wiring: &mut Wiring, pem: watch::Receiver<Arc<String>>) {
    let namespaces = wiring.cache::<Namespace>();
    let controller = RootCa {
        client: wiring.client.clone(),
        pem: pem.clone(),
        namespaces: namespaces.clone(),
        config_maps: wiring.cache(),
    };
    let of_map = |change: &Change<ConfigMap>| {
        let key = change.key();
        (key.name == ROOT_CA_CONFIG_MAP).then(|| Key::cluster(key.namespace))
    };
    let all = move || namespaces.list().iter().map(|namespace| Key::of(&**namespace)).collect();
    wiring.controller(controller).of::<Namespace>().maps(of_map).follows(pem, all).start();
}

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(ConfigMap),
    Replace(ConfigMap),
}

fn plan(namespace: Option<&Namespace>, map: Option<&ConfigMap>, pem: &str) -> Plan {
    let Some(namespace) = namespace.filter(|namespace| !is_deleting(&namespace.metadata)) else {
        return Plan::Nothing;
    };
    let data = Some([(FIELD.to_owned(), pem.to_owned())].into());
    if map.is_some_and(|map| map.data == data) {
        return Plan::Nothing;
    }
    let mut wanted = map.cloned().unwrap_or_default();
    wanted.metadata.name = Some(ROOT_CA_CONFIG_MAP.into());
    wanted.metadata.namespace.clone_from(&namespace.metadata.name);
    wanted
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(DESCRIPTION_KEY.into(), DESCRIPTION.into());
    wanted.data = data;
    wanted.binary_data = None;
    if map.is_some() { Plan::Replace(wanted) } else { Plan::Create(wanted) }
}

impl Controller for RootCa {
    const NAME: &'static str = "root-ca-cert-publisher";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(&self.client, &key.name);
        let namespace = self.namespaces.get(key);
        let map = self.config_maps.get(&Key::new(&key.name, ROOT_CA_CONFIG_MAP));
        let pem = self.pem.borrow().clone();
        match plan(namespace.as_deref(), map.as_deref(), &pem) {
            Plan::Nothing => {}
            Plan::Create(map) => {
                let created = maps.create(&map).await.unless_there();
                created.during(|| format!("create configmap {}/{ROOT_CA_CONFIG_MAP}", key.name))?;
            }
            Plan::Replace(map) => {
                maps.replace(&map)
                    .await
                    .during(|| format!("replace configmap {}/{ROOT_CA_CONFIG_MAP}", key.name))?;
            }
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_map_is_created_restored_and_otherwise_unchanged() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("n".into());
        let Plan::Create(mut map) = plan(Some(&namespace), None, "CA") else {
            panic!("must create")
        };
        assert_eq!(map.data.as_ref().unwrap()["ca.crt"], "CA");
        assert_eq!(plan(Some(&namespace), Some(&map), "CA"), Plan::Nothing);
        map.data = None;
        assert!(matches!(plan(Some(&namespace), Some(&map), "CA"), Plan::Replace(_)));
        assert_eq!(plan(None, Some(&map), "CA"), Plan::Nothing);
    }
}
