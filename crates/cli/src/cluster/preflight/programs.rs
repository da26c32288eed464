//! Programs: Skiff's own beside this one, and those of other packages.

use super::Problem;
use crate::cluster::command;
use crate::cluster::options::{Options, Store};
use crate::cluster::processes::Programs;
use std::collections::BTreeSet;
use std::path::PathBuf;

const CONTROL: [&str; 3] = [
    "skiff-apiserver",
    "skiff-scheduler",
    "skiff-controller-manager",
];
const NODE: [&str; 3] = ["skiff-kubelet", "skiff-proxy", "skiff-dns"];

/// A program of another package, and that package in Debian.
const OTHERS: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
];

/// As [`check`], for a node alone.
pub fn check_node(problems: &mut Vec<Problem>) -> Option<Programs> {
    find(&NODE, &OTHERS, problems)
}

/// Finds the programs, and adds what is missing to the problems.
pub fn check(options: &Options, problems: &mut Vec<Problem>) -> Option<Programs> {
    let mut others: Vec<(&str, &str)> = OTHERS.to_vec();
    if options.store == Store::Etcd {
        others.push(("etcd", "etcd-server"));
    }
    find(&[CONTROL, NODE].concat(), &others, problems)
}

fn find(own: &[&str], others: &[(&str, &str)], problems: &mut Vec<Problem>) -> Option<Programs> {
    let own = own_folder(own, problems);
    let missing: Vec<_> = others
        .iter()
        .filter(|(program, _)| !command::exists(program))
        .copied()
        .collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
        let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
        problems.push(Problem::new(
            format!("not installed: {}", names.join(", ")),
            format!("apt-get install --no-install-recommends {packages}"),
        ));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    Some(Programs {
        own: own?,
        containerd: command::find("containerd")?,
        etcd: command::find("etcd"),
        search_path: format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    })
}

fn own_folder(names: &[&str], problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let here = std::env::current_exe().and_then(std::fs::canonicalize);
    let folder = match here.as_deref().map(|path| path.parent()) {
        Ok(Some(folder)) => folder.to_owned(),
        _ => {
            let remedy = "check that /proc is mounted";
            problems.push(Problem::new("cannot tell where this program is", remedy));
            return None;
        }
    };
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !folder.join(name).is_file())
        .copied()
        .collect();
    if missing.is_empty() {
        return Some(folder);
    }
    problems.push(Problem::new(
        format!(
            "not beside {}: {}",
            folder.join("skiff").display(),
            missing.join(", ")
        ),
        "build or install all of Skiff's programs into one folder (make build)",
    ));
    None
}
