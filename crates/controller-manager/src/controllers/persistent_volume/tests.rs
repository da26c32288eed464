use k8s_openapi::api::core::v1::VolumeResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::plan::{BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY};
use super::*;
use crate::machinery::testing::labels;

fn volume(name: &str, size: &str) -> PersistentVolume {
    let mut volume = PersistentVolume::default();
    volume.metadata.name = Some(name.into());
    let spec = volume.spec.get_or_insert_default();
    spec.capacity = Some([("storage".to_owned(), Text(size.into()))].into());
    spec.access_modes = Some(vec!["ReadWriteOnce".into()]);
    volume
}

fn claim(size: &str) -> PersistentVolumeClaim {
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.name = Some("data".into());
    claim.metadata.namespace = Some("ns".into());
    claim.metadata.uid = Some("uid-data".into());
    let spec = claim.spec.get_or_insert_default();
    spec.access_modes = Some(vec!["ReadWriteOnce".into()]);
    spec.resources = Some(VolumeResourceRequirements {
        requests: Some([("storage".to_owned(), Text(size.into()))].into()),
        limits: None,
    });
    claim
}

fn referring(mut volume: PersistentVolume, name: &str, uid: &str) -> PersistentVolume {
    volume.spec.as_mut().unwrap().claim_ref = Some(ObjectReference {
        namespace: Some("ns".into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..Default::default()
    });
    volume
}

fn class(mode: &str, provisioner: &str) -> StorageClass {
    StorageClass {
        provisioner: provisioner.into(),
        volume_binding_mode: Some(mode.into()),
        ..Default::default()
    }
}

fn planned(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    class: Option<&StorageClass>,
) -> ClaimPlan {
    let volumes: Vec<_> = volumes.iter().cloned().map(Arc::new).collect();
    plan_claim(&ObservedClaim {
        claim,
        volumes: &volumes,
        class,
        default_class: None,
        node: None,
        unscheduled: Vec::new(),
    })
}

fn chosen(plan: &ClaimPlan) -> Option<&str> {
    match plan {
        ClaimPlan::Bind(volume) => volume.metadata.name.as_deref(),
        _ => None,
    }
}

#[test]
fn the_smallest_matching_volume_or_the_reserved_one_is_chosen() {
    let mut labelled = volume("labelled", "2Gi");
    labelled.metadata.labels = Some(labels(&[("fast", "yes")]));
    let mut classed = volume("classed", "1Gi");
    classed.spec.as_mut().unwrap().storage_class_name = Some("gold".into());
    let volumes = [
        volume("large", "10Gi"),
        volume("small", "500Mi"),
        labelled,
        classed,
        referring(volume("taken", "1Gi"), "other", "x"),
    ];
    assert_eq!(chosen(&planned(&claim("1Gi"), &volumes, None)), Some("labelled"));
    assert_eq!(chosen(&planned(&claim("3Gi"), &volumes, None)), Some("large"));
    assert!(matches!(planned(&claim("30Gi"), &volumes, None), ClaimPlan::Wait("FailedBinding", _)));
    let reserved = referring(volume("reserved", "50Gi"), "data", "");
    assert_eq!(
        chosen(&planned(&claim("1Gi"), &[volumes[0].clone(), reserved], None)),
        Some("reserved")
    );
}

#[test]
fn a_volume_that_a_claim_names_has_to_be_what_it_asks_for() {
    let wanted = |change: fn(&mut PersistentVolume)| {
        let mut claim = claim("2Gi");
        claim.spec.as_mut().unwrap().volume_name = Some("named".into());
        let mut volume = volume("named", "2Gi");
        change(&mut volume);
        planned(&claim, &[volume], None)
    };
    assert_eq!(chosen(&wanted(|_| {})), Some("named"));
    let mismatch = |why: &str| {
        let message = format!("Cannot bind to requested volume \"named\": {why}");
        ClaimPlan::Wait("VolumeMismatch", message)
    };
    let small = wanted(|volume| {
        volume.spec.as_mut().unwrap().capacity = None;
    });
    assert_eq!(small, mismatch("requested PV is too small"));
    let classed = wanted(|volume| {
        volume.spec.as_mut().unwrap().storage_class_name = Some("gold".into());
    });
    assert_eq!(classed, mismatch("storageClassName does not match"));
    let block = wanted(|volume| volume.spec.as_mut().unwrap().volume_mode = Some("Block".into()));
    assert_eq!(block, mismatch("incompatible volumeMode"));
    let modes = wanted(|volume| volume.spec.as_mut().unwrap().access_modes = None);
    assert_eq!(modes, mismatch("incompatible accessMode"));
    // One that is reserved for the claim is its, whatever it is.
    let reserved = wanted(|volume| {
        volume.spec.as_mut().unwrap().capacity = None;
        *volume = referring(volume.clone(), "data", "");
    });
    assert_eq!(chosen(&reserved), Some("named"));
}

#[test]
fn a_claim_waits_for_the_pods_that_use_it() {
    let class = class("WaitForFirstConsumer", "kubernetes.io/no-provisioner");
    let plan = |unscheduled: &[&str]| {
        plan_claim(&ObservedClaim {
            claim: &claim("1Gi"),
            volumes: &[],
            class: Some(&class),
            default_class: None,
            node: None,
            unscheduled: unscheduled.iter().map(|&name| name.to_owned()).collect(),
        })
    };
    let wait = |reason, message: &str| ClaimPlan::Wait(reason, message.to_owned());
    let first = "waiting for first consumer to be created before binding";
    assert_eq!(plan(&[]), wait("WaitForFirstConsumer", first));
    let one = "waiting for pod a to be scheduled";
    assert_eq!(plan(&["a"]), wait("WaitForPodScheduled", one));
    let two = "waiting for pods a,b to be scheduled";
    assert_eq!(plan(&["a", "b"]), wait("WaitForPodScheduled", two));
}

#[test]
fn classes_wait_or_provision() {
    let mut claim = claim("1Gi");
    claim.spec.as_mut().unwrap().storage_class_name = Some("gold".into());
    let late = class("WaitForFirstConsumer", "kubernetes.io/no-provisioner");
    assert!(matches!(
        planned(&claim, &[], Some(&late)),
        ClaimPlan::Wait("WaitForFirstConsumer", _)
    ));
    // The node is gone, or another claim has got the volume that the scheduler has seen.
    claim.metadata.annotations = Some(labels(&[(SELECTED_NODE, "n")]));
    assert_eq!(planned(&claim, &[], Some(&late)), ClaimPlan::ReleaseNode);
    let node = Node::default();
    let (volumes, node) = ([], Some(&node));
    let observed = ObservedClaim {
        claim: &claim,
        volumes: &volumes,
        class: Some(&late),
        default_class: None,
        node,
        unscheduled: Vec::new(),
    };
    assert_eq!(plan_claim(&observed), ClaimPlan::ReleaseNode);
    claim.metadata.annotations = None;
    let external = class("Immediate", "example.com/disk");
    assert_eq!(
        planned(&claim, &[], Some(&external)),
        ClaimPlan::Provision("example.com/disk".into())
    );
    assert!(matches!(planned(&claim, &[], None), ClaimPlan::Wait("ProvisioningFailed", _)));
}

#[test]
fn a_bound_claim_stays_bound_or_is_lost() {
    let mut claim = claim("1Gi");
    claim.spec.as_mut().unwrap().volume_name = Some("v".into());
    assert_eq!(planned(&claim, &[], None), ClaimPlan::Pending);
    claim.metadata.annotations = Some(labels(&[(BIND_COMPLETED, "yes")]));
    assert!(matches!(planned(&claim, &[], None), ClaimPlan::Lost("ClaimLost", _)));
    let ours = referring(volume("v", "1Gi"), "data", "uid-data");
    assert_eq!(chosen(&planned(&claim, &[ours], None)), Some("v"));
    let theirs = referring(volume("v", "1Gi"), "other", "x");
    assert!(matches!(planned(&claim, &[theirs], None), ClaimPlan::Lost("ClaimMisbound", _)));
}

#[test]
fn volume_phases() {
    let mut claim = claim("1Gi");
    let mut of = volume("v", "1Gi");
    let phase = |volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>| match plan_volume(
        volume, claim,
    ) {
        VolumePlan::Phase(phase, _) => phase,
        VolumePlan::Unbind => "unbind",
    };
    assert_eq!(phase(&of, None), "Available");
    of = referring(of, "data", "uid-data");
    assert_eq!(phase(&of, Some(&claim)), "Bound");
    assert_eq!(phase(&of, None), "Released");
    let spec = of.spec.as_mut().unwrap();
    spec.persistent_volume_reclaim_policy = Some("Delete".into());
    assert_eq!(phase(&of, None), "Failed");
    of.metadata.annotations = Some(labels(&[(PROVISIONED_BY, "x"), (BOUND_BY_CONTROLLER, "yes")]));
    assert_eq!(phase(&of, None), "Released");
    claim.spec.as_mut().unwrap().volume_name = Some("another".into());
    assert_eq!(phase(&of, Some(&claim)), "unbind");
}

#[test]
fn a_claim_without_a_class_gets_the_default_one_unless_a_volume_fits() {
    let [current, beta] = api::storage_class::DEFAULT_ANNOTATIONS;
    let default = |name: &str, second: i64, mark: &str| {
        let mut class = class("Immediate", "example.com/disk");
        class.metadata.name = Some(name.into());
        class.metadata.creation_timestamp = Some(Time(crate::machinery::testing::at(second)));
        class.metadata.annotations = Some(labels(&[(mark, "true")]));
        Arc::new(class)
    };
    let plain = Arc::new(class("Immediate", "x"));
    let classes = [default("old", 1, current), default("new", 2, beta), plain];
    assert_eq!(matching::default_class(&classes), Some("new"));
    let planned = |claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]| {
        let default_class = Some("new");
        plan_claim(&ObservedClaim {
            claim,
            volumes,
            class: None,
            default_class,
            node: None,
            unscheduled: Vec::new(),
        })
    };
    let mut claim = claim("1Gi");
    assert_eq!(planned(&claim, &[]), ClaimPlan::AssignClass("new".into()));
    assert_eq!(chosen(&planned(&claim, &[Arc::new(volume("v", "1Gi"))])), Some("v"));
    claim.spec.as_mut().unwrap().storage_class_name = Some(String::new());
    assert!(matches!(planned(&claim, &[]), ClaimPlan::Wait("FailedBinding", _)));
}
