//! From the objects to what requests meet: digests FlowSchemas and PriorityLevelConfigurations
//! whenever one changes, keeps the default ones as they should be, says which schemas name a level
//! that is not there, and divides the seats anew from time to time.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Kind;
use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::borrowing::{self, Limits};
use super::classify::Rules;
use super::demand::Demand;
use super::level::Level;
use super::queue_set::{Policy, Queuing};
use super::{Distinguisher, Flow, FlowControl, LEVEL_HEADER, SCHEMA_HEADER, Snapshot, objects};
use crate::bootstrap;
use crate::cache::{Filter, Follower};
use crate::core::Core;

/// How often the seats are divided anew while there are requests (upstream's).
const ADJUST_INTERVAL: Duration = Duration::from_secs(10);
/// The least time between two looks at the default objects, however often others change them.
const RESTORE_PAUSE: Duration = Duration::from_secs(1);
/// The least time between two writes of the status of one schema, in case somebody else writes it.
const STATUS_PAUSE: Duration = Duration::from_secs(10);
/// The part of its nominal seats that one request may take, in percent.
const SEATS_PERCENT: u32 = 15;
/// The part of all seats that the numbers of a level without seats are shown as parts of (upstream's).
const IDLE_PART: u32 = 10;
/// Demands below it are none: nothing is divided anew for them.
const IDLE_DEMAND: f64 = 0.1;

/// A level, as it is configured and as it is.
pub struct LevelState {
    pub level: Arc<Level>,
    spec: LevelSpec,
    uid: String,
    pub limits: Limits,
    /// Seats that it has now.
    pub current: u32,
    pub demand: Demand,
    pub target: f64,
    /// Its object has gone: it goes when the last of its requests has ended.
    pub quiescing: bool,
}

/// What an object says about a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LevelSpec {
    policy: Policy,
    shares: u32,
    lendable_percent: u32,
    borrowing_percent: Option<u32>,
}

impl LevelSpec {
    /// `None`: the object is broken, as if it were not there.
    fn new(object: &PriorityLevelConfiguration) -> Option<Self> {
        let number = |number: Option<i32>, default: u32| {
            number.map_or(default, |number| u32::try_from(number).unwrap_or_default())
        };
        let spec = &object.spec;
        match (spec.type_.as_str(), &spec.exempt, &spec.limited) {
            ("Exempt", exempt, None) => Some(Self {
                policy: Policy::Exempt,
                shares: number(exempt.as_ref().and_then(|one| one.nominal_concurrency_shares), 0),
                lendable_percent: number(exempt.as_ref().and_then(|one| one.lendable_percent), 0),
                borrowing_percent: None,
            }),
            ("Limited", None, Some(limited)) => {
                let response = &limited.limit_response;
                let policy = match (response.type_.as_str(), &response.queuing) {
                    ("Reject", None) => Policy::Reject,
                    ("Queue", Some(queuing)) => Policy::Queue(Queuing {
                        queues: number(queuing.queues, 1).max(1),
                        hand: number(queuing.hand_size, 1).max(1),
                        length: number(queuing.queue_length_limit, 1),
                    }),
                    _ => return None,
                };
                Some(Self {
                    policy,
                    shares: number(limited.nominal_concurrency_shares, 30),
                    lendable_percent: number(limited.lendable_percent, 0),
                    borrowing_percent: limited
                        .borrowing_limit_percent
                        .map(|percent| u32::try_from(percent).unwrap_or_default()),
                })
            }
            _ => None,
        }
    }

    /// Its limits, when all levels together have so many shares, its own among them.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn limits(&self, total: u32, shares: u64) -> Limits {
        let nominal = u64::from(total) * u64::from(self.shares);
        let nominal = nominal.div_ceil(shares.max(1)).min(u64::from(total)) as u32;
        // A cast from a float saturates.
        let part = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        Limits {
            exempt: self.policy == Policy::Exempt,
            nominal,
            min: nominal - part(self.lendable_percent).min(nominal),
            max: nominal.saturating_add(self.borrowing_percent.map_or(total, part)),
        }
    }

    /// The most seats that a request may be expected to need; 0: it does not say.
    fn seats_max(&self, nominal: u32) -> u32 {
        let Policy::Queue(queuing) = self.policy else { return 0 };
        let part = u64::from(nominal) * u64::from(SEATS_PERCENT);
        let most = u64::from(nominal / queuing.hand.max(1));
        // At most `nominal`, as the part is a part of it.
        u32::try_from(part.div_ceil(100).min(most).max(1)).unwrap_or(nominal)
    }
}

impl FlowControl {
    /// Makes all of it anew: what requests are classified by, and the limits of the levels. Returns
    /// whether the level that a schema names is missing, by schema.
    pub fn digest(
        &self,
        levels: &[PriorityLevelConfiguration],
        schemas: &[FlowSchema],
    ) -> HashMap<String, bool> {
        let mut states = self.levels.lock();
        let mut before = std::mem::take(&mut *states);
        let imagined = objects::LEVEL_OBJECTS.iter().filter(|default| default.mandatory);
        let imagined: Vec<_> = imagined.map(|default| &default.object).collect();
        for object in levels.iter().chain(imagined) {
            let name = object.metadata.name.clone().unwrap_or_default();
            let Some(spec) = LevelSpec::new(object) else { continue };
            if states.contains_key(&name) {
                continue;
            }
            let uid = object.metadata.uid.clone().unwrap_or_default();
            let state = match before.remove(&name) {
                Some(state) => LevelState { spec, uid, quiescing: false, ..state },
                None => self.new_level(&name, spec, uid),
            };
            states.insert(name, state);
        }
        let known: Vec<String> = states.keys().cloned().collect();
        for (name, state) in before {
            if !state.level.set().is_idle() {
                states.insert(name, LevelState { quiescing: true, ..state });
            }
        }
        self.set_limits(&mut states);
        let (flows, dangling) = self.flows(&states, &known, schemas);
        self.snapshot.store(Arc::new(Snapshot(flows)));
        dangling
    }

    fn new_level(&self, name: &str, spec: LevelSpec, uid: String) -> LevelState {
        let level = Arc::new(Level::new(name, self.epoch, spec.policy, 0));
        LevelState {
            level,
            spec,
            uid,
            limits: Limits::default(),
            current: 0,
            demand: Demand::default(),
            target: 0.0,
            quiescing: false,
        }
    }

    fn set_limits(&self, states: &mut BTreeMap<String, LevelState>) {
        let shares = states.values().map(|state| u64::from(state.spec.shares)).sum();
        for state in states.values_mut() {
            state.limits = state.spec.limits(self.total, shares);
        }
        let places = |state: &LevelState| match state.spec.policy {
            Policy::Queue(queuing) => queuing.queues.saturating_mul(queuing.length),
            Policy::Exempt | Policy::Reject => 0,
        };
        let places = states.values().map(places).fold(0, u32::saturating_add);
        let now = self.now();
        self.traffic.set_limits(now, self.total, places);
        self.divide(states);
    }

    /// Divides the seats among the levels by what they could use. Whether that changes anything.
    fn divide(&self, states: &mut BTreeMap<String, LevelState>) -> bool {
        for state in states.values_mut() {
            let now = state.level.now();
            let period = state.level.set().take_demand(now);
            state.demand.update(period);
        }
        let given: Vec<_> = states.values().map(|state| (state.limits, state.demand)).collect();
        let (allocations, fraction) = borrowing::adjust(&given);
        self.metrics.fraction.set(fraction);
        let mut changes = false;
        for (state, allocation) in states.values_mut().zip(allocations) {
            changes |= state.current != allocation.seats;
            (state.current, state.target) = (allocation.seats, allocation.target);
            let whole = match state.current {
                0 => (self.total / IDLE_PART).max(1),
                seats => seats,
            };
            let now = state.level.now();
            state.level.set().configure(now, state.spec.policy, state.current, whole);
        }
        changes
    }

    /// Divides the seats anew. False: there is no need to until there are requests again.
    pub(super) fn adjust(&self) -> bool {
        let mut states = self.levels.lock();
        let known = states.len();
        states.retain(|_, state| !state.quiescing || !state.level.set().is_idle());
        if states.len() < known {
            self.set_limits(&mut states);
        }
        let changes = self.divide(&mut states);
        let used = |state: &LevelState| state.demand.smoothed > IDLE_DEMAND || state.quiescing;
        changes || states.values().any(used) || self.busy.load(Ordering::Relaxed)
    }

    fn flows(
        &self,
        states: &BTreeMap<String, LevelState>,
        known: &[String],
        schemas: &[FlowSchema],
    ) -> (Vec<Arc<Flow>>, HashMap<String, bool>) {
        let (mut flows, mut dangling) = (Vec::new(), HashMap::new());
        let mandatory = objects::SCHEMA_OBJECTS.iter().filter(|default| default.mandatory);
        for schema in schemas.iter().chain(mandatory.map(|default| &default.object)) {
            let name = schema.metadata.name.clone().unwrap_or_default();
            if dangling.contains_key(&name) {
                continue;
            }
            let level = &schema.spec.priority_level_configuration.name;
            let state = states.get(level).filter(|_| known.contains(level));
            dangling.insert(name, state.is_none());
            flows.extend(state.map(|state| Arc::new(self.flow(schema, state))));
        }
        flows.sort_by(|one, other| {
            let key = |flow: &Flow| flow.precedence;
            key(one).cmp(&key(other)).then_with(|| one.schema.cmp(&other.schema))
        });
        (flows, dangling)
    }

    fn flow(&self, schema: &FlowSchema, state: &LevelState) -> Flow {
        let name = schema.metadata.name.clone().unwrap_or_default();
        let uid = schema.metadata.uid.as_deref().unwrap_or_default();
        let value =
            |uid: &str| HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""));
        let method = schema.spec.distinguisher_method.as_ref();
        let policy = state.spec.policy;
        Flow {
            precedence: schema.spec.matching_precedence.unwrap_or_default(),
            rules: Rules::new(&schema.spec),
            salt: self.hasher.hash_one(&name),
            hasher: self.hasher.clone(),
            distinguisher: match method.map(|method| method.type_.as_str()) {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            exempt: policy == Policy::Exempt,
            queues: matches!(policy, Policy::Queue(queuing) if queuing.queues > 1),
            seats_max: state.spec.seats_max(state.limits.nominal),
            headers: [(SCHEMA_HEADER, value(uid)), (LEVEL_HEADER, value(&state.uid))],
            metrics: self.metrics.of(&name, &state.level.name),
            traffic: self.traffic.clone(),
            level: state.level.clone(),
            schema: name,
        }
    }
}

/// Digests what there is, and keeps following it until `shutdown`.
pub fn keep(core: &Arc<Core>, shutdown: &CancellationToken) {
    let Some(control) = &core.flow_control else { return };
    let (levels, schemas) = read(core);
    control.digest(&levels, &schemas);
    let (own, stop) = (core.clone(), shutdown.clone());
    tokio::spawn(async move { stop.run_until_cancelled(divide_from_time_to_time(own)).await });
    let (own, stop) = (core.clone(), shutdown.clone());
    let mut changes = Follower::of(core, &[PriorityLevelConfiguration::ROW, FlowSchema::ROW]);
    let following = async move {
        let (mut later, mut written) = (None, HashMap::new());
        loop {
            changes.next(later).await;
            later = settle(&own, &mut written).await.then_some(STATUS_PAUSE);
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(following).await });
}

async fn divide_from_time_to_time(core: Arc<Core>) {
    let Some(control) = &core.flow_control else { return };
    loop {
        control.begun.notified().await;
        loop {
            control.busy.store(false, Ordering::Relaxed);
            tokio::time::sleep(ADJUST_INTERVAL).await;
            if !control.adjust() {
                break;
            }
        }
    }
}

/// All objects that can be read.
pub fn read(core: &Core) -> (Vec<PriorityLevelConfiguration>, Vec<FlowSchema>) {
    fn all<K: Kind + serde::de::DeserializeOwned>(core: &Core) -> Vec<K> {
        let list = core.cache.resource(K::ROW).list(&Filter::everything(K::ROW, ""));
        list.iter().filter_map(|version| serde_json::from_slice(&version.json).ok()).collect()
    }
    (all(core), all(core))
}

/// Digests what there is, and restores what is missing. True: something is left to do later.
async fn settle(core: &Core, written: &mut HashMap<String, Instant>) -> bool {
    let Some(control) = &core.flow_control else { return false };
    let (levels, schemas) = read(core);
    let dangling = control.digest(&levels, &schemas);
    let failed = bootstrap::flow_control::restore(core, &levels, &schemas)
        .await
        .inspect_err(|error| tracing::warn!(%error, "cannot restore flow control's objects"))
        .is_err();
    let pending = write_status(core, &schemas, &dangling, written).await;
    tokio::time::sleep(RESTORE_PAUSE).await;
    failed || pending
}

/// Writes the status of the schemas whose condition is not as it should be. True: some have to
/// wait.
async fn write_status(
    core: &Core,
    schemas: &[FlowSchema],
    dangling: &HashMap<String, bool>,
    written: &mut HashMap<String, Instant>,
) -> bool {
    let mut pending = false;
    written.retain(|name, _| dangling.contains_key(name));
    for schema in schemas {
        let name = schema.metadata.name.as_deref().unwrap_or_default();
        let Some(dangling) = dangling.get(name) else { continue };
        let Some(status) = bootstrap::flow_control::status(schema, *dangling, core.clock.now())
        else {
            continue;
        };
        let now = clock::instant();
        if written.get(name).is_some_and(|last| now - *last < STATUS_PAUSE) {
            pending = true;
            continue;
        }
        written.insert(name.to_owned(), now);
        if let Err(error) = bootstrap::flow_control::write_status(core, schema, status).await {
            pending |= !error.is_not_found();
            tracing::debug!(%error, schema = name, "cannot write the status of a FlowSchema");
        }
    }
    pending
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn limited(
        name: &str,
        shares: i32,
        lendable: i32,
        borrowing: Option<i32>,
    ) -> PriorityLevelConfiguration {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
                "borrowingLimitPercent": borrowing, "limitResponse": {"type": "Queue",
                    "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}}}}}))
        .unwrap()
    }

    proptest! {
        /// However many shares there are, they are parts of the seats there are.
        #[test]
        fn any_shares_are_parts_of_the_seats(
            total in prop_oneof![1_u32..10_000, Just(u32::MAX)],
            given in prop::collection::vec(
                (prop_oneof![0_i32..100, Just(i32::MAX), any::<i32>().prop_map(|n| n.saturating_abs())],
                    0_i32..=100, prop::option::of(any::<i32>().prop_map(|n| n.saturating_abs()))),
                1..6,
            )
        ) {
            let control = FlowControl::new(total, super::super::FlowControlMetrics::default());
            let levels = given.iter().enumerate();
            let levels: Vec<_> = levels
                .map(|(index, (shares, lendable, borrowing))| {
                    limited(&index.to_string(), *shares, *lendable, *borrowing)
                })
                .collect();
            control.digest(&levels, &[]);
            let states = control.levels.lock();
            // The mandatory levels have 5 shares.
            let all = given.iter().map(|one| f64::from(one.0)).sum::<f64>() + 5.0;
            for (index, (shares, ..)) in given.iter().enumerate() {
                let state = &states[&index.to_string()];
                let exact = f64::from(total) * f64::from(*shares) / all;
                let limits = state.limits;
                prop_assert!((f64::from(limits.nominal) - exact).abs() <= 1.0, "{limits:?} {exact}");
                prop_assert!(limits.min <= limits.nominal && limits.nominal <= limits.max);
                let most = state.spec.seats_max(limits.nominal);
                prop_assert!(most >= 1 && most <= limits.nominal.max(1));
            }
        }
    }

    #[test]
    fn the_defaults_get_what_upstream_gives_them() {
        let limits = |name: &str| {
            let all = objects::LEVEL_OBJECTS.iter().map(|default| &default.object);
            let mut found = all.filter(|one| one.metadata.name.as_deref() == Some(name));
            let spec = LevelSpec::new(found.next().unwrap()).unwrap();
            let limits = spec.limits(600, 245);
            (limits.nominal, limits.min, limits.max, spec.seats_max(limits.nominal))
        };
        for (name, expected) in [
            ("exempt", (0, 0, 600, 0)),
            ("catch-all", (13, 13, 613, 0)),
            ("system", (74, 50, 674, 12)),
            ("node-high", (98, 73, 698, 15)),
            ("leader-election", (25, 25, 625, 4)),
            ("workload-high", (98, 49, 698, 15)),
            ("workload-low", (245, 24, 845, 37)),
            ("global-default", (49, 24, 649, 8)),
        ] {
            assert_eq!(limits(name), expected, "{name}");
        }
    }
}
