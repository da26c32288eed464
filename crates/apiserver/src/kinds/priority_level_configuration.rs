//! PriorityLevelConfigurations: how many seats a level has, and what happens to requests that find
//! none (`pkg/apis/flowcontrol/validation`).

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use serde_json::Value;

use super::at::At;
use super::columns::{NONE, integer, text};
use super::flow_schema::condition_types;
use super::table::{self, Check, Parts, Row, Rows, age, name, status_apart, text_at};
use super::{check, fill, semantic};
use crate::flowcontrol::{objects, shuffle};

const DEFAULT_SHARES: i32 = 30;
const DEFAULT_QUEUES: i32 = 64;
const DEFAULT_HAND: i32 = 8;
const DEFAULT_LENGTH: i32 = 50;
const QUEUES_MAX: i64 = 10_000_000;
/// The level that limits nothing.
const EXEMPT: &str = "exempt";

pub static RULES: Rows<PriorityLevelConfiguration> = Rows {
    default: |level| {
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
    },
    parts: Parts {
        create: |level, _| level.status = None,
        status: |new, old, _| new.spec.clone_from(&old.spec),
        ..status_apart!()
    },
    checks: &[("", Check::Relation(only_one_is_exempt)), ("spec", Check::Relation(spec))],
    judge: |level, at| {
        let name = check::text(&level.metadata.name);
        if let Some(mut fixed) = objects::mandatory_priority_level(name) {
            let mut except = "";
            if name == EXEMPT {
                // Its share may be set.
                fixed.spec.exempt.clone_from(&level.spec.exempt);
                except = " except the 'spec.exempt' field";
            }
            if semantic::field(&fixed, "spec") != semantic::field(level, "spec") {
                let why = format!("spec of '{name}'{except} must equal the fixed value");
                at.child("spec").invalid(&level.spec, why);
            }
        }
    },
    status: &[("status.conditions", Check::Relation(condition_types))],
    generation: table::spec_changes,
    columns: &[
        name(),
        text("Type", "Whether the level limits its requests.").at("spec.type"),
        integer("NominalConcurrencyShares", "The level's part of all seats.")
            .or("spec.limited.nominalConcurrencyShares", NONE),
        integer("Queues", "Number of queues.")
            .or("spec.limited.limitResponse.queuing.queues", NONE),
        integer("HandSize", "Number of queues that a flow is dealt.")
            .or("spec.limited.limitResponse.queuing.handSize", NONE),
        integer("QueueLengthLimit", "Requests that may wait in a queue.")
            .or("spec.limited.limitResponse.queuing.queueLengthLimit", NONE),
        age(),
    ],
    ..Rows::NEW
};

const EXEMPT_LEVEL: &[Row] = &[
    ("nominalConcurrencyShares", Check::AtLeast(0, "must be a non-negative integer")),
    ("lendablePercent", Check::Range(0, 100)),
];

const LIMITED_LEVEL: &[Row] = &[
    ("nominalConcurrencyShares", Check::AtLeast(0, "must be a non-negative integer")),
    ("limitResponse", Check::Relation(response)),
    ("lendablePercent", Check::Range(0, 100)),
    ("borrowingLimitPercent", Check::AtLeast(0, "if specified, must be a non-negative integer")),
];

fn only_one_is_exempt(level: &Value, at: &At<'_>) {
    let of_type = text_at(level, "spec.type");
    if (text_at(level, "metadata.name") == EXEMPT) != (of_type == "Exempt") {
        let why = "type must be 'Exempt' if and only if name is 'exempt'";
        at.child("spec.type").invalid(of_type, why);
    }
}

fn spec(spec: &Value, at: &At<'_>) {
    let (exempt, limited) = (&spec["exempt"], &spec["limited"]);
    match text_at(spec, "type") {
        "Exempt" => {
            if !limited.is_null() {
                at.child("limited").forbidden("must be nil if the type is not Limited");
            }
            table::run(EXEMPT_LEVEL, exempt, &at.child("exempt"));
        }
        "Limited" => {
            if !exempt.is_null() {
                at.child("exempt").forbidden("must be nil if the type is Limited");
            }
            match limited {
                Value::Null => {
                    at.child("limited").required("must not be empty when type is Limited")
                }
                limited => table::run(LIMITED_LEVEL, limited, &at.child("limited")),
            }
        }
        other => at.child("type").not_supported(other, &["Exempt", "Limited"]),
    }
}

fn response(response: &Value, at: &At<'_>) {
    let (given, own) = (&response["queuing"], at.child("queuing"));
    match (text_at(response, "type"), given.is_null()) {
        ("Reject", true) => {}
        ("Reject", false) => {
            own.forbidden("must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", true) => {
            own.required("must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", false) => queuing(given, &own),
        (other, _) => at.child("type").not_supported(other, &["Queue", "Reject"]),
    }
}

fn queuing(queuing: &Value, at: &At<'_>) {
    let of = |field: &str| queuing[field].as_i64().unwrap_or_default();
    let (queues, hand, length) = (of("queues"), of("handSize"), of("queueLengthLimit"));
    let wrong = |field: &str, value: i64, why: String| at.child(field).invalid(value, why);
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
    } else if shuffle::entropy_bits(queues as i32, hand as i32) > shuffle::HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {}",
            shuffle::HASH_BITS
        );
        wrong("handSize", hand, why);
    }
}
