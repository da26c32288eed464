use super::*;

fn subjects() -> Subjects {
    Subjects {
        apiserver_names: vec!["172.30.0.1".into()],
        kubernetes_service: Ipv4Addr::new(10, 96, 0, 1),
        nodes: vec![("node-1".into(), "172.30.0.11".into())],
        etcd_names: vec!["127.30.0.1".into()],
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn a_second_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = certificates(&subjects());
    let made = ensure(folder.path(), &wanted, now()).unwrap();
    assert_eq!(made.len(), wanted.len() + 4, "the authorities and the token key: {made:?}");
    assert_eq!(ensure(folder.path(), &wanted, now()).unwrap(), Vec::<String>::new());
}

#[test]
fn only_what_changed_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    ensure(folder.path(), &certificates(&subjects()), now()).unwrap();

    let mut moved = subjects();
    moved.nodes[0].1 = "172.30.0.12".into();
    moved.apiserver_names.push("skiff.example".into());
    let made = ensure(folder.path(), &certificates(&moved), now()).unwrap();
    assert_eq!(made, ["apiserver", "nodes/node-1/kubelet-server"]);
}

#[test]
fn a_certificate_that_expires_soon_is_renewed_and_the_authority_kept() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = certificates(&subjects());
    ensure(folder.path(), &wanted, now()).unwrap();
    let authority = std::fs::read(folder.path().join("ca.crt")).unwrap();
    let later = now() + LIFETIME - RENEW_BEFORE + Duration::from_secs(1);
    let near = |when| expiring_soon(folder.path(), &wanted, when).unwrap();
    assert_eq!((near(now()), near(later)), (0, wanted.len()));
    let made = ensure(folder.path(), &wanted, later).unwrap();
    assert_eq!(made.len(), wanted.len());
    assert_eq!(std::fs::read(folder.path().join("ca.crt")).unwrap(), authority);
}

#[test]
fn a_new_authority_and_damaged_files_renew() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = certificates(&subjects());
    ensure(folder.path(), &wanted, now()).unwrap();

    std::fs::write(folder.path().join("scheduler.crt"), "nonsense").unwrap();
    std::fs::copy(folder.path().join("dns.key"), folder.path().join("proxy.key")).unwrap();
    assert_eq!(ensure(folder.path(), &wanted, now()).unwrap(), ["scheduler", "proxy"]);

    std::fs::remove_file(folder.path().join("etcd/ca.key")).unwrap();
    let made = ensure(folder.path(), &wanted, now()).unwrap();
    assert_eq!(made, ["etcd/ca", "etcd/server", "etcd/apiserver-client"]);
}

#[test]
fn keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    ensure(folder.path(), &certificates(&subjects()), now()).unwrap();
    for name in ["ca.key", "sa.key", "admin.key", "nodes/node-1/kubelet.key"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
