//! Finds programs: Skiff's own beside this one, and those of other packages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cluster::command;
use crate::cluster::options::{Options, Store};
use crate::cluster::preflight::Problem;
use crate::cluster::processes::Programs;

const CONTROL: [&str; 3] = ["skiff-apiserver", "skiff-scheduler", "skiff-controller-manager"];
const NODE: [&str; 4] = ["skiff-kubelet", "skiff-log", "skiff-proxy", "skiff-dns"];

/// A program of another package, and its package in Debian.
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
    find(&[CONTROL.as_slice(), &NODE].concat(), &others, problems)
}

fn find(own: &[&str], others: &[(&str, &str)], problems: &mut Vec<Problem>) -> Option<Programs> {
    let own = own_folder(own, problems);
    problems.extend(not_installed(others, command::exists));
    let path = std::env::var("PATH").unwrap_or_default();
    Some(Programs {
        own: own?,
        containerd: command::find("containerd")?,
        etcd: command::find("etcd"),
        search_path: format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    })
}

fn not_installed(others: &[(&str, &str)], exists: impl Fn(&str) -> bool) -> Option<Problem> {
    let missing = others.iter().filter(|(program, _)| !exists(program));
    let (names, packages): (Vec<&str>, BTreeSet<&str>) = missing.copied().unzip();
    if names.is_empty() {
        return None;
    }
    let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
    Some(Problem::new(
        format!("not installed: {}", names.join(", ")),
        format!("apt-get install --no-install-recommends {packages}"),
    ))
}

fn own_folder(names: &[&str], problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let here = std::env::current_exe().and_then(std::fs::canonicalize);
    let Some(folder) = here.as_deref().ok().and_then(Path::parent) else {
        let remedy = "check that /proc is mounted";
        problems.push(Problem::new("cannot determine the path of this program", remedy));
        return None;
    };
    match not_beside(folder, names) {
        None => Some(folder.to_owned()),
        Some(problem) => {
            problems.push(problem);
            None
        }
    }
}

fn not_beside(folder: &Path, names: &[&str]) -> Option<Problem> {
    let missing: Vec<_> =
        names.iter().filter(|name| !folder.join(name).is_file()).copied().collect();
    let what = || format!("not beside {}: {}", folder.join("skiff").display(), missing.join(", "));
    (!missing.is_empty()).then(|| {
        let remedy = "build or install all of Skiff's programs into one folder (make build)";
        Problem::new(what(), remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_missing_is_named_once() {
        let problem = not_installed(&OTHERS, |program| program == "runc").unwrap();
        assert_eq!(problem.what, "not installed: containerd, containerd-shim-runc-v2, nft");
        assert_eq!(problem.remedy, "apt-get install --no-install-recommends containerd nftables");
        assert_eq!(not_installed(&OTHERS, |_| true), None);
    }

    #[test]
    fn programs_of_our_own_that_are_missing_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for program in [CONTROL.as_slice(), &NODE].concat() {
            std::fs::write(folder.path().join(program), "").unwrap();
        }
        let all = [CONTROL.as_slice(), &NODE].concat();
        assert_eq!(not_beside(folder.path(), &all), None);
        std::fs::remove_file(folder.path().join("skiff-dns")).unwrap();
        let problem = not_beside(folder.path(), &all).unwrap();
        assert!(problem.what.ends_with("/skiff: skiff-dns"), "{problem}");
    }
}
