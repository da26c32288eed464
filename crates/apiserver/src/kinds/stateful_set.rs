//! StatefulSets.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};

use super::at::At;
use super::columns::{self, CONTAINERS, IMAGES, text};
use super::pod_spec::defaults;
use super::table::{Rows, age, name, status_apart};
use super::{check, fill, persistent_volume_claim, semantic, status, workload};

pub static RULES: Rows<StatefulSet> = Rows {
    default: |set| {
        let spec = &mut set.spec;
        defaults::template(&mut spec.template);
        fill::text(&mut spec.pod_management_policy, "OrderedReady");
        let update = spec.update_strategy.get_or_insert_default();
        if update.type_.as_deref().unwrap_or_default().is_empty() {
            fill::text(&mut update.type_, "RollingUpdate");
            update.rolling_update.get_or_insert_default();
        }
        if let Some(rolling) = &mut update.rolling_update
            && update.type_.as_deref() == Some("RollingUpdate")
        {
            fill::missing(&mut rolling.partition, 0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        fill::text(&mut retention.when_deleted, "Retain");
        fill::text(&mut retention.when_scaled, "Retain");
        fill::missing(&mut spec.replicas, 1);
        fill::missing(&mut spec.revision_history_limit, 10);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claim::default(claim);
        }
    },
    parts: status_apart!(),
    judge: |set, at| {
        let (spec, at) = (&set.spec, at.child("spec"));
        validate_policies(spec, &at);
        at.none_negative(&[
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
            ("ordinals.start", spec.ordinals.as_ref().and_then(|ordinals| ordinals.start)),
        ]);
        workload::selector(&spec.selector, "statefulset", &at.child("selector"));
        let own = at.child("template");
        workload::stateful_template(&spec.template, &spec.selector, &own);
        workload::runs_for_ever(&spec.template, "StatefulSet", &own);
    },
    update: |new, old, at| {
        let mut kept = new.clone();
        let (spec, was) = (&mut kept.spec, &old.spec);
        spec.replicas = was.replicas;
        spec.template.clone_from(&was.template);
        spec.update_strategy.clone_from(&was.update_strategy);
        spec.min_ready_seconds = was.min_ready_seconds;
        spec.ordinals.clone_from(&was.ordinals);
        spec.revision_history_limit = was.revision_history_limit;
        spec.persistent_volume_claim_retention_policy
            .clone_from(&was.persistent_volume_claim_retention_policy);
        if semantic::field(&kept, "spec") != semantic::field(old, "spec") {
            at.child("spec").forbidden("updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    },
    status_update: |new, old, _, at| {
        let counts = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ];
        status::replicas(&new.status, &old.status, &counts, "status.readyReplicas", at);
    },
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        let same = old.is_some_and(|old| old.spec == new.spec);
        let template = Some(&new.spec.template).filter(|_| !same);
        workload::warnings(&new.metadata, template, old.is_none())
    },
    columns: &[
        name(),
        text("Ready", "Ready pods of wanted pods.").of(|it| {
            let ready = it.status.as_ref().and_then(|status| status.ready_replicas);
            format!("{}/{}", ready.unwrap_or(0), it.spec.replicas.unwrap_or(0)).into()
        }),
        age(),
        CONTAINERS.of(|it| columns::container_names(Some(&it.spec.template))),
        IMAGES.of(|it| columns::images(Some(&it.spec.template))),
    ],
    ..Rows::NEW
};

fn validate_policies(spec: &StatefulSetSpec, at: &At<'_>) {
    let own = at.child("podManagementPolicy");
    match check::text(&spec.pod_management_policy) {
        "" => own.required(""),
        "OrderedReady" | "Parallel" => {}
        other => own.invalid(other, "must be 'OrderedReady' or 'Parallel'"),
    }
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let (at, known) = (at.child("persistentVolumeClaimRetentionPolicy"), ["Delete", "Retain"]);
        at.child("whenDeleted").one_of(check::text(&policy.when_deleted), &known);
        at.child("whenScaled").one_of(check::text(&policy.when_scaled), &known);
    }
    let own = at.child("updateStrategy");
    let Some(update) = &spec.update_strategy else { return };
    match (check::text(&update.type_), &update.rolling_update) {
        ("", _) => own.required(""),
        ("OnDelete", Some(_)) => {
            let problem = "only allowed for updateStrategy 'RollingUpdate'";
            own.child("rollingUpdate").invalid("", problem);
        }
        ("RollingUpdate", Some(rolling)) => {
            let own = own.child("rollingUpdate");
            own.child("partition").not_negative(rolling.partition.unwrap_or(0));
            if let Some(unavailable) = &rolling.max_unavailable {
                let own = own.child("maxUnavailable");
                own.number_or_percent(unavailable);
                own.not_more_than_all(unavailable);
                if check::is_zero(Some(unavailable)) {
                    own.invalid(unavailable, "cannot be 0");
                }
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        (other, _) => own.invalid(other, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}
