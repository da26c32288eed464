//! Which objects a command line names: `TYPE`, `TYPE NAME...`, `TYPE/NAME...`, `TYPE,TYPE`, with
//! selectors and `-A`, or a manifest.

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::{ListRequest, Object, Representation};
use serde_json::Value;

use crate::discovery::{Resource, Resources};
use crate::request::manifest::FilenameOptions;

/// kubectl's message when no object is named.
pub const NOTHING_NAMED: &str = "You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>'";

/// The objects of a list, as JSON.
///
/// # Errors
/// When the server refuses, or sends something else.
pub async fn list_values(client: &Client, request: ListRequest) -> anyhow::Result<Vec<Value>> {
    let objects = client.list_objects(request).await?.0;
    let value = |object: &Object| {
        serde_json::from_slice(&object.json).context("the server's object is not JSON")
    };
    objects.iter().map(value).collect()
}

/// Arguments that select objects.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selection {
    /// TYPE, TYPE NAME..., TYPE/NAME..., or TYPE,TYPE
    #[arg(value_name = "TYPE[/NAME]")]
    pub words: Vec<String>,

    #[command(flatten)]
    pub files: FilenameOptions,

    /// Label selector: a=b,c!=d,e in (f,g)
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,

    /// Field selector: metadata.name=web,status.phase!=Running
    #[arg(long, default_value = "")]
    pub field_selector: String,

    /// Every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// One object, by resource, namespace and name.
#[derive(Clone, Debug)]
pub struct ObjectReference<'a> {
    pub resource: &'a Resource,
    pub namespace: String,
    pub name: String,
    /// The file that names it.
    pub source: Option<String>,
}

impl ObjectReference<'_> {
    pub fn target(&self, subresource: &str) -> rpc::api_v1::Target {
        self.resource.target(&self.namespace, &self.name, subresource)
    }

    /// `deployment.apps/web`
    pub fn path(&self) -> String {
        self.resource.path(&self.name)
    }
}

/// What the arguments select.
#[derive(Clone, Debug)]
pub enum Selected<'a> {
    /// These objects.
    Objects(Vec<ObjectReference<'a>>),
    /// The objects of these kinds that the selectors match.
    Collections(Vec<&'a Resource>),
}

impl Selection {
    /// The namespace that collections are listed in; empty: all.
    pub fn namespace<'a>(&self, client: &'a Client) -> &'a str {
        if self.all_namespaces { "" } else { client.default_namespace() }
    }

    /// Resolves the arguments, or the manifests.
    pub fn resolve<'a>(
        &self,
        client: &Client,
        resources: &'a Resources,
    ) -> anyhow::Result<Selected<'a>> {
        if !self.files.is_empty() {
            let mut names = Vec::new();
            for document in self.files.read_all()? {
                let resource = document.resource(resources)?;
                let namespace =
                    document.namespace().unwrap_or_else(|| client.default_namespace().to_owned());
                names.push(ObjectReference {
                    resource,
                    namespace,
                    name: document.name(),
                    source: Some(document.source.clone()),
                });
            }
            return Ok(Selected::Objects(names));
        }
        if self.words.is_empty() {
            bail!(NOTHING_NAMED);
        }
        let namespace = client.default_namespace().to_owned();
        if self.words.iter().any(|word| word.contains('/')) {
            let mut names = Vec::new();
            for word in &self.words {
                let Some((kind, name)) = word.split_once('/') else {
                    bail!(
                        "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'skiff get resource/<resource_name>' instead of 'skiff get resource resource/<resource_name>'"
                    );
                };
                if name.is_empty() || name.contains('/') {
                    bail!("arguments in resource/name form may not have more than one slash");
                }
                names.push(ObjectReference {
                    resource: resources.find(kind)?,
                    namespace: namespace.clone(),
                    name: name.to_owned(),
                    source: None,
                });
            }
            return Ok(Selected::Objects(names));
        }
        let kinds = resources.find_all(&self.words[0])?;
        if self.words.len() == 1 {
            return Ok(Selected::Collections(kinds));
        }
        if self.all_namespaces {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        if !self.selector.is_empty() {
            if kinds.len() == 1 {
                bail!("name cannot be provided when a selector is specified");
            }
            bail!("selectors and the all flag cannot be used when passing resource/name arguments");
        }
        let named = |resource| {
            let namespace = &namespace;
            self.words[1..].iter().map(move |name| ObjectReference {
                resource,
                namespace: namespace.clone(),
                name: name.clone(),
                source: None,
            })
        };
        Ok(Selected::Objects(kinds.into_iter().flat_map(named).collect()))
    }

    /// Resolves to single objects, listing collections.
    pub async fn objects<'a>(
        &self,
        client: &Client,
        resources: &'a Resources,
    ) -> anyhow::Result<Vec<ObjectReference<'a>>> {
        match self.resolve(client, resources)? {
            Selected::Objects(names) => Ok(names),
            Selected::Collections(kinds) => {
                let mut names = Vec::new();
                for resource in kinds {
                    for object in self.list(client, resource, Representation::Full).await? {
                        names.push(ObjectReference {
                            resource,
                            namespace: object.namespace,
                            name: object.name,
                            source: None,
                        });
                    }
                }
                Ok(names)
            }
        }
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.files.is_empty()
    }

    /// Whether a kind is given without a name, so that a verb would apply to every object of it.
    fn names_only_kinds(&self) -> bool {
        self.files.is_empty() && self.words.len() == 1 && !self.words[0].contains('/')
    }

    /// # Errors
    /// When a kind is given without a name, and neither `--all` nor a selector.
    pub fn require_names(&self, all: bool) -> anyhow::Result<()> {
        let chosen = all || !self.selector.is_empty() || !self.field_selector.is_empty();
        let by_name = self.words.len() > 1 || self.words.iter().any(|word| word.contains('/'));
        if by_name && (all || !self.selector.is_empty()) {
            bail!("name cannot be provided when a selector is specified");
        }
        if self.names_only_kinds() && !chosen {
            bail!("resource(s) were provided, but no name was specified");
        }
        Ok(())
    }

    /// Resolves to objects that exist, and the errors of those that do not.
    pub async fn existing<'a>(
        &self,
        client: &Client,
        resources: &'a Resources,
    ) -> anyhow::Result<(Vec<ObjectReference<'a>>, Vec<anyhow::Error>)> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for named in self.objects(client, resources).await? {
            match client.get_object(named.target("")).await {
                Ok(_) => found.push(named),
                Err(error) => missing.push(error.into()),
            }
        }
        Ok((found, missing))
    }

    /// The objects of one kind that the selectors match.
    pub async fn list(
        &self,
        client: &Client,
        resource: &Resource,
        representation: Representation,
    ) -> anyhow::Result<Vec<Object>> {
        let request = ListRequest {
            target: Some(resource.target(self.namespace(client), "", "")),
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            representation: representation.into(),
            ..Default::default()
        };
        match client.list_objects(request).await {
            Ok((objects, _)) => Ok(objects),
            Err(client::Error::Api(error)) => Err(self.about_list(resource, error).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The server's error for a list, with the selectors that were asked for.
    fn about_list(&self, resource: &Resource, mut error: api::ApiError) -> client::Error {
        let of = format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural);
        let (labels, fields) = (&self.selector, &self.field_selector);
        if matches!(error.reason(), "BadRequest" | "NotFound") {
            let what = if labels.is_empty() && fields.is_empty() {
                format!("Unable to list {of:?}")
            } else {
                format!(
                    "Unable to find {of:?} that match label selector {labels:?}, field selector {fields:?}"
                )
            };
            let message = format!("{what}: {error}");
            error.status_mut().message = Some(message);
        }
        client::Error::Api(error)
    }
}
