use super::*;

const IMAGE: &str = "registry.example.com/team/app:1";
const ID: &str = "sha256:1";

fn credential(namespace: &str, uid: &str, password: &str) -> RegistryCredential {
    RegistryCredential {
        registry: "registry.example.com".into(),
        username: "robot".into(),
        password: password.into(),
        source: Some(SecretSource {
            namespace: namespace.into(),
            name: "pull".into(),
            uid: uid.into(),
        }),
        ..RegistryCredential::default()
    }
}

fn open(directory: &Path) -> PullRecords {
    PullRecords::open(directory, Verification::default()).unwrap()
}

#[tokio::test]
async fn a_private_image_is_for_those_who_could_pull_it() {
    let directory = tempfile::tempdir().unwrap();
    let records = open(directory.path());
    assert!(!records.must_pull(IMAGE, ID, &[]).await, "nobody pulled it: it is preloaded");
    records.add(ID).await.unwrap();
    let own = credential("a", "1", "secret");
    assert!(
        records.must_pull(IMAGE, ID, std::slice::from_ref(&own)).await,
        "pulled, but not known how"
    );
    records.add_credential(IMAGE, ID, Some(&own)).await.unwrap();
    for (name, image, credentials, expected) in [
        ("the same Secret", IMAGE, vec![own.clone()], false),
        ("none", IMAGE, vec![], true),
        ("another's", IMAGE, vec![credential("b", "2", "other")], true),
        ("another's of the same name", IMAGE, vec![credential("a", "2", "other")], true),
        ("the second of two", IMAGE, vec![credential("b", "2", "x"), own.clone()], false),
        ("of no Secret", IMAGE, vec![RegistryCredential { source: None, ..own.clone() }], true),
        ("another tag", "registry.example.com/team/app:2", vec![own.clone()], false),
        ("another repository", "registry.example.com/other/app:1", vec![own.clone()], true),
        ("by id", ID, vec![own.clone()], true),
    ] {
        for records in [&records, &open(directory.path())] {
            assert_eq!(records.must_pull(image, ID, &credentials).await, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn equal_content_and_rotated_secrets_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let records = open(directory.path());
    records.add_credential(IMAGE, ID, Some(&credential("a", "1", "old"))).await.unwrap();
    // The same Secret with a new password, then another one with this password.
    assert!(!records.must_pull(IMAGE, ID, &[credential("a", "1", "new")]).await);
    assert!(!records.must_pull(IMAGE, ID, &[credential("b", "2", "new")]).await);
    assert!(records.must_pull(IMAGE, ID, &[credential("c", "3", "old")]).await, "it was replaced");
    let records = open(directory.path());
    assert!(!records.must_pull(IMAGE, ID, &[credential("b", "2", "third")]).await);
}

#[tokio::test]
async fn what_anybody_may_pull_is_for_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let records = open(directory.path());
    records.add_credential(IMAGE, ID, Some(&credential("a", "1", "x"))).await.unwrap();
    records.add_credential(IMAGE, ID, None).await.unwrap();
    records.add_credential(IMAGE, ID, Some(&credential("a", "1", "x"))).await.unwrap();
    let records = open(directory.path());
    assert!(!records.must_pull(IMAGE, ID, &[]).await);
    let (now, later) = (clock::now(), clock::now() + std::time::Duration::from_secs(60));
    records.prune(&BTreeSet::new(), now - std::time::Duration::from_secs(60)).await.unwrap();
    records.prune(&BTreeSet::from([ID]), later).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    records.prune(&BTreeSet::new(), later).await.unwrap();
    records.remove(ID).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn records_are_bounded_private_and_in_upstreams_format() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let records = open(directory.path());
    for number in 0..MAX_SECRETS + 5 {
        let credential = credential("a", &number.to_string(), &format!("p{number}"));
        records.add_credential(IMAGE, ID, Some(&credential)).await.unwrap();
    }
    let path = records.path(ID);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("\"p7\""), "no password is written");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["kind"], &value["imageRef"]), (&KIND.into(), &ID.into()));
    let secrets = &value["credentialMapping"]["registry.example.com/team/app"]["kubernetesSecrets"];
    assert_eq!(secrets.as_array().unwrap().len(), MAX_SECRETS);
    assert_eq!(secrets[0]["uid"], "5");
    std::fs::write(directory.path().join("torn"), "{").unwrap();
    assert!(!open(directory.path()).must_pull(IMAGE, ID, &[credential("z", "9", "p50")]).await);
}

#[test]
fn policies() {
    use VerificationPolicy::*;
    let list = ["busybox", "registry.example.com/team/*"].map(str::to_owned).to_vec();
    for (policy, image, pulled, expected) in [
        (NeverVerify, IMAGE, true, false),
        (NeverVerifyPreloadedImages, IMAGE, true, true),
        (NeverVerifyPreloadedImages, IMAGE, false, false),
        (NeverVerifyAllowlistedImages, IMAGE, true, false),
        (NeverVerifyAllowlistedImages, "docker.io/library/busybox:1", true, false),
        (NeverVerifyAllowlistedImages, "registry.example.com/other", false, true),
        (NeverVerifyAllowlistedImages, ID, false, true),
        (AlwaysVerify, IMAGE, false, true),
    ] {
        let verification = Verification { policy, allowlist: list.clone() };
        assert_eq!(verification.is_required(image, pulled), expected, "{policy:?} {image}");
    }
}
