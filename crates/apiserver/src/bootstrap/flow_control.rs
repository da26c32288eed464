//! The default FlowSchemas and PriorityLevelConfigurations (upstream's
//! `pkg/registry/flowcontrol/ensurer`), and the condition of schemas.

use api::object::Object;
use api::{ApiError, Kind};
use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaCondition, FlowSchemaStatus, PriorityLevelConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};

use super::{create_as, system_user};
use crate::cache::Version;
use crate::core::{Call, Core};
use crate::flowcontrol::objects::{AUTOUPDATE, Default, LEVEL_OBJECTS, SCHEMA_OBJECTS};
use crate::kinds::same_field;
use crate::request::{Options, Verb};
use crate::verbs::delete::delete_object;
use crate::verbs::update::update_with;

/// Field managers of what is written here (upstream's).
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
const DANGLING: &str = "Dangling";

/// Creates the default objects that are missing, brings back those that may be, and deletes those
/// that are no longer defaults.
///
/// # Errors
/// When the store fails.
pub async fn restore(
    core: &Core,
    levels: &[PriorityLevelConfiguration],
    schemas: &[FlowSchema],
) -> Result<(), ApiError> {
    // Levels first, so that no schema names one that is not there yet.
    restore_kind(core, &LEVEL_OBJECTS, levels, |to, from| to.spec = from.spec.clone()).await?;
    restore_kind(core, &SCHEMA_OBJECTS, schemas, |to, from| to.spec = from.spec.clone()).await
}

async fn restore_kind<K>(
    core: &Core,
    defaults: &[Default<K>],
    all: &[K],
    copy_spec: impl Fn(&mut K, &K) + Sync + Copy,
) -> Result<(), ApiError>
where
    K: Kind + Object + Clone,
{
    for Default { object: wanted, mandatory } in defaults {
        let name = Object::metadata(wanted).name.as_deref().unwrap_or_default();
        let mut there = all.iter();
        match there.find(|one| Object::metadata(*one).name.as_deref() == Some(name)) {
            None => create_as(core, wanted.clone_object(), PRODUCER).await?,
            Some(there) if wrong(there, wanted, *mandatory).is_some() => {
                correct(core, name, wanted, *mandatory, copy_spec).await?;
            }
            Some(_) => {}
        }
    }
    for object in all {
        let metadata = Object::metadata(object);
        let name = metadata.name.as_deref().unwrap_or_default();
        let known =
            defaults.iter().any(|default| Object::metadata(&default.object).name == metadata.name);
        if !known && autoupdate(object) == Some(true) {
            delete::<K>(core, name).await?;
        }
    }
    Ok(())
}

/// The annotation's value, if it is one.
fn autoupdate(object: &dyn Object) -> Option<bool> {
    let annotations = object.metadata().annotations.as_ref()?;
    match annotations.get(AUTOUPDATE)?.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What has to be corrected: the annotation's value that should be there, and whether the spec has
/// to be brought back.
fn wrong(there: &dyn Object, wanted: &dyn Object, mandatory: bool) -> Option<(bool, bool)> {
    let given = autoupdate(there);
    // An object that nobody has changed is kept up to date.
    let unchanged = there.metadata().generation == Some(1);
    let updates = mandatory || given.unwrap_or(unchanged);
    let differs = updates && !same_field(there, wanted, "spec");
    (differs || given != Some(updates)).then_some((updates, differs))
}

async fn correct<K>(
    core: &Core,
    name: &str,
    wanted: &K,
    mandatory: bool,
    copy_spec: impl Fn(&mut K, &K) + Sync,
) -> Result<(), ApiError>
where
    K: Kind + Object + Clone,
{
    let target = super::target(wanted, name.to_owned());
    let options = Options { field_manager: PRODUCER.to_owned(), ..Options::default() };
    let user = system_user();
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    let change = |current: &dyn Object, _: &Version| {
        let mut new = current.clone_object();
        if let Some((updates, differs)) = wrong(current, wanted, mandatory)
            && let Some(object) = new.downcast_mut::<K>()
        {
            if differs {
                copy_spec(object, wanted);
            }
            let annotations = new.metadata_mut().annotations.get_or_insert_default();
            annotations.insert(AUTOUPDATE.to_owned(), updates.to_string());
        }
        Ok(new)
    };
    match update_with(call, change).await {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

async fn delete<K: Kind + Object>(core: &Core, name: &str) -> Result<(), ApiError> {
    let target = crate::request::Target {
        row: K::ROW.into(),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: String::new(),
        subpath: String::new(),
    };
    let (user, options) = (system_user(), Options::default());
    let call = Call { core, user: &user, verb: Verb::Delete, target: &target, options: &options };
    match delete_object(call, &DeleteOptions::default()).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// Reads what there is, and restores it.
///
/// # Errors
/// When the store fails.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    let (levels, schemas) = crate::flowcontrol::configuration::read(core);
    restore(core, &levels, &schemas).await
}

/// The status that a schema should have, if it has another one.
pub fn status(schema: &FlowSchema, dangling: bool, now: Timestamp) -> Option<FlowSchemaStatus> {
    let level = &schema.spec.priority_level_configuration.name;
    let (value, reason, end) = if dangling {
        ("True", "NotFound", "but there is no such object")
    } else {
        ("False", "Found", "and it exists")
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}"
    );
    let mut conditions = schema.status.clone().and_then(|status| status.conditions);
    let conditions = conditions.get_or_insert_default();
    let wanted = FlowSchemaCondition {
        type_: DANGLING.to_owned(),
        status: Some(value.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|one| one.type_ == wanted.type_) {
        Some(there) => {
            let same = FlowSchemaCondition {
                last_transition_time: there.last_transition_time.clone(),
                ..wanted.clone()
            };
            if *there == same {
                return None;
            }
            *there = wanted;
        }
        None => conditions.push(wanted),
    }
    Some(FlowSchemaStatus { conditions: Some(std::mem::take(conditions)) })
}

/// Writes the status of a schema as it was seen.
///
/// # Errors
/// When it has changed, or the store fails.
pub async fn write_status(
    core: &Core,
    seen: &FlowSchema,
    status: FlowSchemaStatus,
) -> Result<(), ApiError> {
    let name = seen.metadata.name.clone().unwrap_or_default();
    let target =
        crate::request::Target { subresource: "status".to_owned(), ..super::target(seen, name) };
    let options = Options { field_manager: CONSUMER.to_owned(), ..Options::default() };
    let user = system_user();
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    update_with(call, |current: &dyn Object, _: &Version| {
        let mut new = current.clone_object();
        new.metadata_mut().resource_version.clone_from(&seen.metadata.resource_version);
        if let Some(schema) = new.downcast_mut::<FlowSchema>() {
            schema.status = Some(status.clone());
        }
        Ok(new)
    })
    .await
    .map(|_| ())
}
