//! Quotas, priority classes and disruption budgets.

use anyhow::bail;
use api::labels::Selector;
use serde_json::{Map, Value, json};

use crate::request::generate::metadata;

#[derive(clap::Args)]
pub struct Quota {
    name: String,
    /// RESOURCE=AMOUNT,...
    #[arg(long, value_delimiter = ',')]
    hard: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
}

impl Quota {
    pub fn object(&self) -> anyhow::Result<Value> {
        let mut hard = Map::new();
        for text in &self.hard {
            let Some((resource, amount)) = text.split_once('=') else {
                bail!("Invalid argument syntax {text}, expected <resource>=<value>");
            };
            hard.insert(resource.to_owned(), amount.into());
        }
        let mut spec = json!({});
        if !hard.is_empty() {
            spec["hard"] = hard.into();
        }
        if !self.scopes.is_empty() {
            spec["scopes"] = json!(self.scopes);
        }
        Ok(json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata(&self.name),
            "spec": spec, "status": {},
        }))
    }
}

#[derive(clap::Args)]
pub struct PriorityClass {
    name: String,
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    value: i32,
    #[arg(long)]
    global_default: bool,
    #[arg(long, default_value = "")]
    description: String,
    #[arg(long, default_value = "PreemptLowerPriority")]
    preemption_policy: String,
}

impl PriorityClass {
    pub fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata(&self.name),
            "value": self.value, "preemptionPolicy": self.preemption_policy,
        });
        if self.global_default {
            object["globalDefault"] = true.into();
        }
        if !self.description.is_empty() {
            object["description"] = self.description.as_str().into();
        }
        object
    }
}

#[derive(clap::Args)]
pub struct DisruptionBudget {
    name: String,
    /// The pods: a label selector
    #[arg(long, default_value = "")]
    selector: String,
    /// A number or a percentage
    #[arg(long)]
    min_available: Option<String>,
    /// A number or a percentage
    #[arg(long)]
    max_unavailable: Option<String>,
}

impl DisruptionBudget {
    pub fn object(&self) -> anyhow::Result<Value> {
        if self.selector.is_empty() {
            bail!("a selector must be specified");
        }
        Selector::parse(&self.selector)?;
        let amount =
            |text: &str| text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from);
        let mut spec = match (&self.min_available, &self.max_unavailable) {
            (None, None) => bail!("one of min-available or max-unavailable must be specified"),
            (Some(_), Some(_)) => {
                bail!("min-available and max-unavailable cannot be both specified")
            }
            (Some(text), None) => json!({"minAvailable": amount(text)}),
            (None, Some(text)) => json!({"maxUnavailable": amount(text)}),
        };
        let mut labels = Map::new();
        for pair in self.selector.split(',') {
            match pair.split_once('=') {
                Some((key, value)) if !key.ends_with('!') => {
                    labels.insert(key.to_owned(), value.trim_start_matches('=').into());
                }
                _ => bail!("only KEY=VALUE can be selected here, not {pair:?}"),
            }
        }
        spec["selector"] = json!({"matchLabels": labels});
        let status = json!({
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
        });
        Ok(json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(&self.name),
            "spec": spec, "status": status,
        }))
    }
}
