//! Static pods: those that the node runs because of a file, whatever the apiserver says.
//!
//! The files are read whole whenever something may have changed: nothing is derived from a single
//! event. A file that is not the manifest of a static pod is logged and skipped.

mod manifest;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use runtime::errors::cause_chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pod::pod_ext::PodExt;
use manifest::ManifestError;
use runtime::directory_watch::Watch;

pub use manifest::{FILE, HASH, SOURCE};

/// How often the files are read without a notification, as upstream's `fileCheckFrequency`.
const RESCAN: Duration = Duration::from_secs(20);
/// A file that is being written is read once nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Upstream's limit of a manifest.
const MANIFEST_BYTES: u64 = 10 << 20;

/// Static pods by uid.
pub type StaticPods = BTreeMap<String, Arc<Pod>>;

/// Why a file is skipped.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read it")]
    Read(#[from] io::Error),
    #[error("it is larger than {MANIFEST_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Reads the manifests in `path`, which is a folder or a file, and follows them until `shutdown`.
pub fn start(
    path: PathBuf,
    node: String,
    shutdown: CancellationToken,
) -> watch::Receiver<StaticPods> {
    let source = Source { path, node };
    // Before the first read, so that no change is missed.
    let watch = source.watch();
    let (mut skipped, mut first) = (BTreeMap::new(), StaticPods::new());
    source.read(&mut first, &mut skipped);
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = source.follow(&sender, watch, skipped) => {}
        }
    });
    receiver
}

/// Whether `mirror` is the apiserver's image of this static pod, as its file is now.
pub fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    let annotation = |pod: &Pod, name: &str| {
        pod.metadata.annotations.as_ref().and_then(|all| all.get(name).cloned())
    };
    let hash = annotation(pod, HASH);
    hash.is_some() && annotation(mirror, api::pod::MIRROR) == hash
}

/// A static pod with the status that its mirror has: times and conditions go on from there. A final
/// one does not count: it may be of a pod that was rejected before the kubelet was restarted.
pub fn with_status_of(pod: &Arc<Pod>, mirror: Option<&Arc<Pod>>) -> Arc<Pod> {
    let mirror = mirror
        .filter(|mirror| pod.is_static() && is_mirror_of(mirror, pod) && !mirror.is_terminal());
    match mirror {
        Some(mirror) => {
            let mut pod = Pod::clone(pod);
            pod.status.clone_from(&mirror.status);
            pod.metadata.generation = mirror.metadata.generation;
            Arc::new(pod)
        }
        None => Arc::clone(pod),
    }
}

struct Source {
    path: PathBuf,
    node: String,
}

impl Source {
    fn watch(&self) -> Option<Watch> {
        let directory = if self.path.is_file() { self.path.parent()? } else { &self.path };
        match Watch::new(directory) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::debug!(%error, path = %directory.display(), "cannot watch for manifests");
                None
            }
        }
    }

    async fn follow(
        &self,
        sender: &watch::Sender<StaticPods>,
        mut watch: Option<Watch>,
        mut skipped: BTreeMap<PathBuf, String>,
    ) {
        loop {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            match tokio::time::timeout(RESCAN, changed).await {
                Ok(Ok(())) => self.quiet(&mut watch).await,
                // The watch may have gone with its directory: once more, from the start.
                Ok(Err(_)) | Err(_) => watch = self.watch(),
            }
            let mut pods = StaticPods::new();
            self.read(&mut pods, &mut skipped);
            sender.send_if_modified(|known| {
                let differs = *known != pods;
                *known = pods;
                differs
            });
        }
    }

    /// Waits until whoever writes a file has paused.
    async fn quiet(&self, watch: &mut Option<Watch>) {
        while let Some(known) = watch {
            match tokio::time::timeout(QUIET, known.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => *watch = None,
                Err(_) => return,
            }
        }
    }

    /// Reads everything. `skipped` has the files that were, and why.
    fn read(&self, pods: &mut StaticPods, skipped: &mut BTreeMap<PathBuf, String>) {
        let files = files(&self.path);
        skipped.retain(|path, _| files.contains(path));
        for path in files {
            match read(&path, &self.node) {
                Ok(pod) => {
                    skipped.remove(&path);
                    pods.insert(pod.uid().to_owned(), Arc::new(pod));
                }
                Err(FileError::Read(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let why = cause_chain(&error);
                    if skipped.get(&path) != Some(&why) {
                        tracing::error!(error = why, path = %path.display(), "cannot use a manifest");
                        skipped.insert(path, why);
                    }
                }
            }
        }
    }
}

/// The files at `path`, in order: not those whose name begins with a dot, and not those in folders.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "cannot list the manifests");
            }
            return Vec::new();
        }
    };
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| !hidden(&entry.file_name()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

fn read(path: &Path, node: &str) -> Result<Pod, FileError> {
    let mut text = String::new();
    fs::File::open(path)?.take(MANIFEST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES {
        return Err(FileError::TooLarge);
    }
    Ok(manifest::parse(&text, path, node)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec: {{containers: [{{name: main, image: 'web:1'}}]}}\n"
        )
    }

    fn names(pods: &StaticPods) -> Vec<String> {
        let mut names: Vec<String> = pods.values().map(|pod| pod.pod_name().to_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn pods_come_and_go_with_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a.yaml"), manifest("a")).unwrap();
        fs::write(path("broken.yaml"), "kind: [").unwrap();
        fs::write(path(".hidden.yaml"), manifest("hidden")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        fs::write(path("folder/b.yaml"), manifest("b")).unwrap();
        let shutdown = CancellationToken::new();
        let mut pods = start(directory.path().to_owned(), "n1".to_owned(), shutdown.clone());
        assert_eq!(names(&pods.borrow()), ["a-n1"]);
        let within = Duration::from_secs(10);
        let mut until = async |expected: &[&str]| {
            let found = pods.wait_for(|pods| names(pods) == expected);
            let found = tokio::time::timeout(within, found).await;
            assert!(found.is_ok(), "{expected:?} in {within:?}");
        };
        fs::write(path("broken.yaml"), manifest("mended")).unwrap();
        until(&["a-n1", "mended-n1"]).await;
        fs::remove_file(path("a.yaml")).unwrap();
        until(&["mended-n1"]).await;
        fs::rename(path("folder/b.yaml"), path("b.yaml")).unwrap();
        until(&["b-n1", "mended-n1"]).await;
        shutdown.cancel();
    }

    #[test]
    fn a_file_instead_of_a_folder() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
        fs::write(&a, manifest("a")).unwrap();
        fs::write(&b, manifest("b")).unwrap();
        assert_eq!(files(&a), std::slice::from_ref(&a));
        assert_eq!(files(directory.path()), [a, b]);
        assert_eq!(files(&directory.path().join("none")), Vec::<PathBuf>::new());
    }
}
