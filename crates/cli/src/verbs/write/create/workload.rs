//! Deployments, Jobs and CronJobs.

use anyhow::bail;
use client::Client;
use rpc::api_v1::Target;
use serde_json::{Value, json};

use crate::request::generate::metadata;

#[derive(clap::Args)]
pub struct Deployment {
    name: String,
    #[arg(long, required = true, value_delimiter = ',')]
    image: Vec<String>,
    #[arg(short, long, default_value_t = 1)]
    replicas: u32,
    #[arg(long)]
    port: Option<u16>,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
pub struct Job {
    name: String,
    #[arg(long)]
    image: Option<String>,
    /// Create it from a CronJob: cronjob/NAME
    #[arg(long, value_name = "cronjob/NAME")]
    from: Option<String>,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
pub struct CronJob {
    name: String,
    #[arg(long)]
    image: String,
    /// The schedule, as in crontab
    #[arg(long)]
    schedule: String,
    /// OnFailure or Never
    #[arg(long, default_value = "OnFailure")]
    restart: String,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

/// `nginx` for `registry:5000/team/nginx:1.2`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split([':', '@']).next().unwrap_or(last);
    name.replace('_', "-")
}

fn container(name: &str, image: &str, command: &[String]) -> Value {
    let mut container = json!({"name": name, "image": image, "resources": {}});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    container
}

impl Deployment {
    pub fn object(&self) -> Value {
        let mut containers = Vec::new();
        for image in &self.image {
            let mut container = container(&container_name(image), image, &self.command);
            if let Some(port) = self.port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            containers.push(container);
        }
        let labels = json!({"app": self.name});
        let mut metadata = metadata(&self.name);
        metadata["labels"] = labels.clone();
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "status": {}, "spec": {
            "replicas": self.replicas, "selector": {"matchLabels": labels}, "strategy": {},
            "template": {
                "metadata": {"creationTimestamp": null, "labels": labels},
                "spec": {"containers": containers},
            },
        }})
    }
}

impl Job {
    pub async fn object(&self, client: &Client) -> anyhow::Result<Value> {
        match (&self.image, &self.from) {
            (Some(image), None) => {
                let pod = json!({
                    "containers": [container(&self.name, image, &self.command)], "restartPolicy": "Never",
                });
                let template = json!({"metadata": {"creationTimestamp": null}, "spec": pod});
                Ok(json!({
                    "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(&self.name),
                    "spec": {"template": template}, "status": {},
                }))
            }
            (None, Some(from)) => self.of_cron_job(client, from).await,
            _ => bail!("either --image or --from must be specified"),
        }
    }

    /// A manual run of a CronJob, owned by it.
    async fn of_cron_job(&self, client: &Client, from: &str) -> anyhow::Result<Value> {
        let Some(("cronjob" | "cronjobs" | "cj" | "cronjob.batch" | "cronjobs.batch", name)) =
            from.split_once('/')
        else {
            bail!("from must be an existing cronjob");
        };
        let target = Target {
            group: "batch".to_owned(),
            version: "v1".to_owned(),
            resource: "cronjobs".to_owned(),
            namespace: client.default_namespace().to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        let cron: Value = serde_json::from_slice(&client.get_object(target).await?.json)?;
        let template = &cron["spec"]["jobTemplate"];
        let mut metadata = metadata(&self.name);
        metadata["annotations"] = template["metadata"]["annotations"].clone();
        if metadata["annotations"].is_null() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"]["cronjob.kubernetes.io/instantiate"] = "manual".into();
        if template["metadata"]["labels"].is_object() {
            metadata["labels"] = template["metadata"]["labels"].clone();
        }
        metadata["ownerReferences"] = json!([{
            "apiVersion": "batch/v1", "kind": "CronJob", "name": name,
            "uid": cron["metadata"]["uid"], "controller": true,
        }]);
        let mut spec = template["spec"].clone();
        if spec["template"]["metadata"].is_null() {
            spec["template"]["metadata"] = json!({"creationTimestamp": null});
        }
        Ok(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec, "status": {},
        }))
    }
}

impl CronJob {
    pub fn object(&self) -> Value {
        let pod = json!({
            "containers": [container(&self.name, &self.image, &self.command)], "restartPolicy": self.restart,
        });
        let template = json!({"metadata": {"creationTimestamp": null}, "spec": pod});
        let job = json!({"metadata": metadata(&self.name), "spec": {"template": template}});
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata(&self.name), "status": {},
            "spec": {"schedule": self.schedule, "jobTemplate": job},
        })
    }
}
