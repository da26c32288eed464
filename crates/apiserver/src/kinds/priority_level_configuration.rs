//! PriorityLevelConfigurations: how many seats a level has, and what happens to requests that find
//! none (`pkg/apis/flowcontrol/validation`).

use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, LimitResponse, LimitedPriorityLevelConfiguration,
    PriorityLevelConfiguration, PriorityLevelConfigurationSpec, QueuingConfiguration,
};
use serde_json::Value;

use super::check::Errors;
use super::flow_schema::condition_types;
use super::path::Path;
use super::{Column, Context, Strategy, check, columns, fill, semantic};
use crate::flowcontrol::{objects, shuffle};

const DEFAULT_SHARES: i32 = 30;
const DEFAULT_QUEUES: i32 = 64;
const DEFAULT_HAND: i32 = 8;
const DEFAULT_LENGTH: i32 = 50;
const QUEUES_MAX: i32 = 10_000_000;
/// The level that limits nothing.
const EXEMPT: &str = "exempt";

/// The strategy of PriorityLevelConfigurations.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Type", "Whether the level limits its requests."),
    columns::integer("NominalConcurrencyShares", "The level's part of all seats."),
    columns::integer("Queues", "Number of queues."),
    columns::integer("HandSize", "Number of queues that a flow is dealt."),
    columns::integer("QueueLengthLimit", "Requests that may wait in a queue."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = PriorityLevelConfiguration;

    fn default(&self, level: &mut PriorityLevelConfiguration) {
        if let Some(exempt) = &mut level.spec.exempt {
            fill::missing(&mut exempt.nominal_concurrency_shares, 0);
            fill::missing(&mut exempt.lendable_percent, 0);
        }
        if let Some(limited) = &mut level.spec.limited {
            fill::missing(&mut limited.nominal_concurrency_shares, DEFAULT_SHARES);
            fill::missing(&mut limited.lendable_percent, 0);
            if let Some(queuing) = &mut limited.limit_response.queuing {
                fill::nonzero(&mut queuing.queues, DEFAULT_QUEUES);
                fill::nonzero(&mut queuing.hand_size, DEFAULT_HAND);
                fill::nonzero(&mut queuing.queue_length_limit, DEFAULT_LENGTH);
            }
        }
    }

    fn prepare_create(&self, level: &mut PriorityLevelConfiguration, _: &Context<'_>) {
        level.status = None;
    }

    fn prepare_update(
        &self,
        new: &mut PriorityLevelConfiguration,
        old: &PriorityLevelConfiguration,
        _: &Context<'_>,
    ) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(
        &self,
        new: &mut PriorityLevelConfiguration,
        old: &PriorityLevelConfiguration,
        _: &Context<'_>,
    ) {
        new.spec = old.spec.clone();
    }

    fn generation_changes(
        &self,
        new: &PriorityLevelConfiguration,
        old: &PriorityLevelConfiguration,
    ) -> Option<bool> {
        Some(semantic::field(new, "spec") != semantic::field(old, "spec"))
    }

    fn validate(&self, level: &PriorityLevelConfiguration) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (name, path) = (check::text(&level.metadata.name), Path::new("spec"));
        spec(name, &level.spec, &path, &mut errors);
        if let Some(mut fixed) = objects::mandatory_priority_level(name) {
            let mut except = "";
            if name == EXEMPT {
                // Its share may be set.
                fixed.spec.exempt.clone_from(&level.spec.exempt);
                except = " except the 'spec.exempt' field";
            }
            if semantic::field(&fixed, "spec") != semantic::field(level, "spec") {
                let why = format!("spec of '{name}'{except} must equal the fixed value");
                errors.push(FieldError::invalid(&path, &level.spec, why));
            }
        }
        errors
    }

    fn validate_status_update(
        &self,
        new: &PriorityLevelConfiguration,
        _: &PriorityLevelConfiguration,
    ) -> Vec<FieldError> {
        let conditions = new.status.iter().flat_map(|status| status.conditions.iter().flatten());
        condition_types(conditions.map(|condition| condition.type_.as_str()))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, level: &PriorityLevelConfiguration, now: Timestamp) -> Vec<Value> {
        let number = |number: Option<i32>| number.map_or(columns::NONE.into(), Value::from);
        let limited = level.spec.limited.as_ref();
        let queuing = limited.and_then(|limited| limited.limit_response.queuing.as_ref());
        vec![
            columns::name(&level.metadata),
            level.spec.type_.as_str().into(),
            number(limited.and_then(|limited| limited.nominal_concurrency_shares)),
            number(queuing.and_then(|queuing| queuing.queues)),
            number(queuing.and_then(|queuing| queuing.hand_size)),
            number(queuing.and_then(|queuing| queuing.queue_length_limit)),
            columns::age(&level.metadata, now),
        ]
    }
}

fn spec(name: &str, spec: &PriorityLevelConfigurationSpec, path: &Path, errors: &mut Errors) {
    if (name == EXEMPT) != (spec.type_ == "Exempt") {
        let why = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(path.child("type"), &spec.type_, why));
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                let why = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden(path.child("limited"), why));
            }
            if let Some(given) = &spec.exempt {
                exempt(given, &path.child("exempt"), errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                let why = "must be nil if the type is Limited";
                errors.push(FieldError::forbidden(path.child("exempt"), why));
            }
            match &spec.limited {
                None => {
                    let why = "must not be empty when type is Limited";
                    errors.push(FieldError::required(path.child("limited"), why));
                }
                Some(given) => limited(given, &path.child("limited"), errors),
            }
        }
        other => {
            let known = &["Exempt", "Limited"];
            errors.push(FieldError::not_supported(path.child("type"), other, known));
        }
    }
}

fn shares(shares: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let path = path.child("nominalConcurrencyShares");
        errors.push(FieldError::invalid(path, shares, "must be a non-negative integer"));
    }
}

fn lendable(percent: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(percent) = percent {
        check::in_range(percent.into(), 0, 100, &path.child("lendablePercent"), errors);
    }
}

fn exempt(exempt: &ExemptPriorityLevelConfiguration, path: &Path, errors: &mut Errors) {
    shares(exempt.nominal_concurrency_shares, path, errors);
    lendable(exempt.lendable_percent, path, errors);
}

fn limited(limited: &LimitedPriorityLevelConfiguration, path: &Path, errors: &mut Errors) {
    shares(limited.nominal_concurrency_shares, path, errors);
    response(&limited.limit_response, &path.child("limitResponse"), errors);
    lendable(limited.lendable_percent, path, errors);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|percent| *percent < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("borrowingLimitPercent"), percent, why));
    }
}

fn response(response: &LimitResponse, path: &Path, errors: &mut Errors) {
    let at = path.child("queuing");
    match response.type_.as_str() {
        "Reject" => {
            if response.queuing.is_some() {
                let why = "must be nil if limited.limitResponse.type is not Limited";
                errors.push(FieldError::forbidden(at, why));
            }
        }
        "Queue" => match &response.queuing {
            None => {
                let why = "must not be empty if limited.limitResponse.type is Limited";
                errors.push(FieldError::required(at, why));
            }
            Some(given) => queuing(given, &at, errors),
        },
        other => {
            let known = &["Queue", "Reject"];
            errors.push(FieldError::not_supported(path.child("type"), other, known));
        }
    }
}

fn queuing(queuing: &QueuingConfiguration, path: &Path, errors: &mut Errors) {
    let of = |number: Option<i32>| number.unwrap_or_default();
    let (queues, hand) = (of(queuing.queues), of(queuing.hand_size));
    let mut wrong = |field: &str, value: i32, why: String| {
        errors.push(FieldError::invalid(path.child(field), value, why));
    };
    let length = of(queuing.queue_length_limit);
    let positive = || "must be positive".to_owned();
    if length <= 0 {
        wrong("queueLengthLimit", length, positive());
    }
    if queues <= 0 {
        wrong("queues", queues, positive());
    } else if queues > QUEUES_MAX {
        wrong("queues", queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand <= 0 {
        wrong("handSize", hand, positive());
    } else if hand > queues {
        wrong("handSize", hand, format!("should not be greater than queues ({queues})"));
    } else if shuffle::entropy_bits(queues, hand) > shuffle::HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {}",
            shuffle::HASH_BITS
        );
        wrong("handSize", hand, why);
    }
}
