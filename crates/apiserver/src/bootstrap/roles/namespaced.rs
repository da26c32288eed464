//! Upstream's Roles and RoleBindings in `kube-system` and `kube-public`.

use api::{ApiError, Kind};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    GROUP, READ, autoupdates, complete_metadata, complete_rules, complete_subjects, events, named,
    role, rule,
};
use crate::bootstrap::create_or_complete;
use crate::core::Core;

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const READER: &str = "extension-apiserver-authentication-reader";
const SIGNER: &str = "system:controller:bootstrap-signer";

/// A role, and the subjects of the binding of its name.
struct Row {
    namespace: &'static str,
    name: String,
    rules: Vec<PolicyRule>,
    subjects: Vec<Subject>,
}

/// Creates what is missing, and adds missing rules and subjects.
///
/// # Errors
/// When the store fails.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    for row in rows() {
        let wanted = Role { metadata: metadata(row.namespace, &row.name), rules: Some(row.rules) };
        create_or_complete(core, &wanted, |there: &mut Role, wanted| {
            if autoupdates(&there.metadata) {
                complete_metadata(&mut there.metadata, &wanted.metadata);
                complete_rules(&mut there.rules, wanted.rules.as_deref().unwrap_or_default());
            }
        })
        .await?;
        // The reader's binding has a name of its own: extension servers bind the role as well.
        let name = if row.name == READER { format!("system::{READER}") } else { row.name.clone() };
        let wanted = RoleBinding {
            metadata: metadata(row.namespace, &name),
            role_ref: RoleRef {
                api_group: Some(GROUP.to_owned()),
                kind: Role::ROW.kind.to_string(),
                name: row.name,
            },
            subjects: Some(row.subjects),
        };
        create_or_complete(core, &wanted, |there: &mut RoleBinding, wanted| {
            if autoupdates(&there.metadata) {
                complete_metadata(&mut there.metadata, &wanted.metadata);
                let wanted = wanted.subjects.as_deref().unwrap_or_default();
                complete_subjects(&mut there.subjects, wanted);
            }
        })
        .await?;
    }
    Ok(())
}

fn rows() -> Vec<Row> {
    let row = |namespace, name: &str, rules, subjects| {
        let name = name.to_owned();
        Row { namespace, name, rules, subjects }
    };
    let signer = || vec![account("bootstrap-signer")];
    let mut rows = vec![
        row(
            SYSTEM,
            READER,
            vec![named("", "configmaps", "extension-apiserver-authentication", READ)],
            vec![user("system:kube-controller-manager"), user("system:kube-scheduler")],
        ),
        row(SYSTEM, SIGNER, vec![rule("", "secrets", READ)], signer()),
        row(
            PUBLIC,
            SIGNER,
            vec![
                rule("", "configmaps", READ),
                named("", "configmaps", "cluster-info", "update"),
                events(),
            ],
            signer(),
        ),
        row(
            SYSTEM,
            "system:controller:cloud-provider",
            vec![rule("", "configmaps", "create,get,list,watch")],
            vec![account("cloud-provider")],
        ),
        row(
            SYSTEM,
            "system:controller:token-cleaner",
            vec![rule("", "secrets", "delete,get,list,watch"), events()],
            vec![account("token-cleaner")],
        ),
    ];
    for component in ["kube-controller-manager", "kube-scheduler"] {
        let leases = "create,get,list,update,watch";
        rows.push(row(
            SYSTEM,
            &format!("system::leader-locking-{component}"),
            vec![
                rule("", "configmaps", "watch"),
                named("", "configmaps", component, "get,update"),
                rule("coordination.k8s.io", "leases", leases),
                rule("coordination.k8s.io", "leasecandidates", leases),
            ],
            vec![user(&format!("system:{component}")), account(component)],
        ));
    }
    rows
}

/// Labels and annotations as those of a default ClusterRole.
fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), ..role(name, Vec::new()).metadata }
}

fn user(name: &str) -> Subject {
    Subject {
        kind: "User".to_owned(),
        name: name.to_owned(),
        api_group: Some(GROUP.to_owned()),
        namespace: None,
    }
}

fn account(name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        api_group: None,
        namespace: Some(SYSTEM.to_owned()),
    }
}
