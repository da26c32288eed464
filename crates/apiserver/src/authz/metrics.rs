//! Counts of what authorizers decide, under upstream's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    decision: &'static str,
    name: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    status: &'static str,
}

#[derive(Clone, Default)]
pub struct AuthorizationMetrics {
    decisions: Family<Decided, Counter>,
    reloads: Family<Reload, Counter>,
}

impl AuthorizationMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_authorization_decisions",
            "Final decisions, by authorizer",
            self.decisions.clone(),
        );
        registry.register(
            "apiserver_authorization_config_controller_automatic_reloads",
            "Reloads of the configuration of authorization",
            self.reloads.clone(),
        );
    }

    pub fn decided(&self, kind: &'static str, name: &str, allowed: bool) {
        let decision = if allowed { "allowed" } else { "denied" };
        let labels = Decided { decision, name: name.to_owned(), r#type: kind };
        self.decisions.get_or_create(&labels).inc();
    }

    pub fn reloaded(&self, good: bool) {
        let labels = Reload { status: if good { "success" } else { "failure" } };
        self.reloads.get_or_create(&labels).inc();
    }
}
