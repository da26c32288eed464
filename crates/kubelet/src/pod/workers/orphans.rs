//! Removes what is left of pods that the apiserver does not have, once at start.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::containers::ContainerState;
use crate::pod::apply::remove_remains;
use crate::pod::context::Context;
use crate::pod::files::remove_directory;

/// Grace period of orphaned containers, whose own is unknown.
const GRACE: Duration = Duration::from_secs(1);
const SIGTERM: i32 = 15;

/// Removes everything of pods that are not among `known`.
pub(super) async fn remove(context: Arc<Context>, known: BTreeSet<String>) {
    let mut found: BTreeSet<String> = BTreeSet::new();
    match context.runtime.pods().await {
        Ok(uids) => found.extend(uids),
        Err(error) => tracing::warn!(%error, "cannot look for orphaned pods"),
    }
    found.extend(names(&context.directories.pods()));
    // `<namespace>_<name>_<uid>`, and neither of the first two has an underscore.
    let logs = names(&context.directories.logs());
    found.extend(logs.iter().filter_map(|name| Some(name.rsplit_once('_')?.1.to_owned())));
    for uid in found.difference(&known) {
        match one(&context, uid).await {
            Ok(()) => tracing::info!(uid, "removed an orphaned pod"),
            Err(error) => tracing::warn!(error, uid, "cannot remove an orphaned pod"),
        }
    }
    free_addresses(&context, &known).await;
}

/// Frees the addresses of pods that are gone, once the network is open.
async fn free_addresses(context: &Context, known: &BTreeSet<String>) {
    let mut network = context.network.clone();
    let Ok(network) = network.wait_for(Option::is_some).await.map(|open| open.clone()) else {
        return;
    };
    let Some(network) = network else {
        return;
    };
    // Only what was there before this process: pods that were added since are not among `known`.
    let before: Vec<String> = network.pods().difference(known).cloned().collect();
    for uid in before {
        if context.directories.pod(&uid).exists() {
            continue;
        }
        if let Err(error) = network.teardown(&uid).await {
            tracing::warn!(%error, uid, "cannot free an orphaned pod's address");
        }
    }
}

async fn one(context: &Context, uid: &str) -> Result<(), String> {
    let containers = context.runtime.list_pod(uid).await.unwrap_or_default();
    let mut running = false;
    for container in containers {
        if matches!(container.state, ContainerState::Running { .. }) {
            running = true;
            let asked = context.runtime.kill(&container.id, SIGTERM, false).await;
            asked.map_err(|error| error.to_string())?;
        }
    }
    if running {
        tokio::time::sleep(GRACE).await;
    }
    let volumes = context.volumes.tear_down(uid).await;
    volumes.map_err(|error| error.to_string())?;
    remove_remains(context, uid).await?;
    let logs = context.directories.logs();
    for name in names(&logs).iter().filter(|name| name.ends_with(&format!("_{uid}"))) {
        remove_directory(&logs.join(name)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The names in a directory; none if it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
