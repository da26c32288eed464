//! `skiff api-resources` and `skiff api-versions`: what the server serves.

use std::process::ExitCode;

use anyhow::bail;

use crate::discovery::{Resource, Resources};
use crate::output::table::TextTable;
use crate::request::Connection;

#[derive(clap::Args)]
pub struct ApiResources {
    /// Only namespaced (true) or cluster-scoped (false) kinds
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only this group
    #[arg(long)]
    api_group: Option<String>,
    /// Only kinds with all of these verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only kinds in all of these categories
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// name or kind
    #[arg(long)]
    sort_by: Option<String>,
    #[arg(long)]
    no_headers: bool,
    /// wide or name
    #[arg(short, long)]
    output: Option<String>,
    /// Accepted for compatibility: discovery is never cached
    #[arg(long, hide = true)]
    cached: bool,
}

impl ApiResources {
    fn wants(&self, resource: &Resource) -> bool {
        let namespaced = self.namespaced.is_none_or(|wanted| wanted == resource.namespaced);
        let group = self.api_group.as_ref().is_none_or(|group| *group == resource.group);
        let verbs = self.verbs.iter().all(|verb| resource.verbs.contains(verb));
        let categories = self.categories.iter().all(|one| resource.categories.contains(one));
        namespaced && group && verbs && categories
    }

    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let wide = match self.output.as_deref() {
            None | Some("name") => false,
            Some("wide") => true,
            Some(other) => bail!("--output {other} is not available"),
        };
        let client = connection.client()?;
        let resources = Resources::discover(&client).await?;
        let mut found: Vec<&Resource> =
            resources.preferred().filter(|one| self.wants(one)).collect();
        match self.sort_by.as_deref() {
            None => found.sort_by_key(|one| (&one.group, &one.plural)),
            Some("name") => found.sort_by_key(|one| &one.plural),
            Some("kind") => found.sort_by_key(|one| &one.kind),
            Some(_) => bail!("--sort-by accepts only name or kind"),
        }
        if self.output.as_deref() == Some("name") {
            found.iter().for_each(|one| println!("{}", one.qualified()));
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = TextTable::default();
        text.headers
            .extend(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned));
        if wide {
            text.headers.extend(["VERBS", "CATEGORIES"].map(str::to_owned));
        }
        for resource in found {
            let mut row = vec![
                resource.plural.clone(),
                resource.short_names.join(","),
                resource.api_version(),
                resource.namespaced.to_string(),
                resource.kind.clone(),
            ];
            if wide {
                row.extend([resource.verbs.join(","), resource.categories.join(",")]);
            }
            text.rows.push(row);
        }
        print!("{}", text.render(!self.no_headers, &mut Vec::new()));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args)]
pub struct ApiVersions {}

impl ApiVersions {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let mut versions: Vec<String> =
            Resources::discover(&client).await?.0.iter().map(Resource::api_version).collect();
        versions.sort();
        versions.dedup();
        for version in versions {
            println!("{version}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
