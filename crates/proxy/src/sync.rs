//! The main loop: apply events to the state, plan for what they made stale, apply the changes.
//!
//! Events that are ready are processed together, so that a burst becomes a few transactions while a
//! single change is applied immediately. A failed transaction is followed by a full resync after a
//! delay; so is a change of this node's own address, on which the rules depend.

mod backoff;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use ipnet::IpNet;
use runtime::errors::cause_chain;
use runtime::health::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::backoff::Backoff;
use crate::announce::{Candidates, Wanted};
use crate::apply::Applier;
use crate::health_check::HealthChecks;
use crate::model::Node;
use crate::monitor::{Changed, Monitor};
use crate::nft::{Family, NftError};
use crate::observe::{Event, Stale, State};
use crate::plan::{self, Changes, Context, Desired, ElementId, Owner, family_of};
use crate::policy::cut;
use crate::policy::observe::Demand;
use crate::table::{Data, Layout};
use crate::{conntrack, routes, sysctl};

/// The delay between a change by others and its inspection.
const SETTLE: Duration = Duration::from_millis(50);
/// The delay between a change of policies and the end of the connections that it forbids: all
/// connections are inspected, so this must not be done for every change of a burst.
const CUT_DELAY: Duration = Duration::from_secs(1);
/// The maximum number of events processed per round.
const BURST: usize = 4096;

/// The settings of the proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_name: String,
    /// The ranges of all pod addresses, at most one per family.
    pub cluster_cidrs: Vec<IpNet>,
    pub cluster_dns: Vec<IpAddr>,
    /// The pool of addresses for load balancers.
    pub load_balancer_cidrs: Vec<IpNet>,
}

impl Settings {
    /// IPv4 always, IPv6 if there is an IPv6 pod range.
    pub fn families(&self) -> Vec<Family> {
        let v6 = self.cluster_cidrs.iter().any(|range| matches!(range, IpNet::V6(_)));
        let families = [(Family::V4, true), (Family::V6, v6)];
        families.into_iter().filter(|(_, wanted)| *wanted).map(|(family, _)| family).collect()
    }

    fn layouts(&self, own: Option<&Node>) -> Vec<Layout> {
        let layout = |family| Layout {
            family,
            cluster_cidr: self
                .cluster_cidrs
                .iter()
                .copied()
                .find(|range| family_of(range.addr()) == family),
            node_ip: own.and_then(|node| {
                node.internal_ips.iter().copied().find(|ip| family_of(*ip) == family)
            }),
        };
        self.families().into_iter().map(layout).collect()
    }
}

/// The state of the loop.
struct Proxy {
    settings: Settings,
    state: State,
    stale: Stale,
    desired: Desired,
    context: Context,
    /// `None` if a full resync of the tables is due.
    applier: Option<Applier>,
    layouts: Vec<Layout>,
    health_checks: HealthChecks,
    candidates: Candidates,
    /// For the announcer.
    announced: watch::Sender<Wanted>,
    rules_backoff: Backoff,
    routes_backoff: Backoff,
    /// When connections that are no longer allowed are to be cut.
    cuts: Backoff,
    /// Whether everything has been received once. Later only policies wait for the pods that they
    /// refer to.
    started: bool,
}

/// Runs until `shutdown`; sends the addresses to announce to `announced`. The tables are kept when
/// it ends, so that the node's Services continue to work.
///
/// # Errors
/// If the kernel no longer reports changes by others.
pub async fn run(
    settings: Settings,
    events: BoxStream<'static, Event>,
    demand: Demand,
    monitor: Monitor,
    announced: watch::Sender<Wanted>,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let context = Context {
        families: settings.families(),
        zone: None,
        cluster_dns: settings.cluster_dns.clone(),
        pool: settings.load_balancer_cidrs.clone(),
    };
    let mut proxy = Proxy {
        candidates: Candidates::new(settings.load_balancer_cidrs.clone()),
        announced,
        settings,
        state: State::new(demand),
        // The tables have to be created even without any node.
        stale: Stale { nodes: true, policies: true, ..Stale::default() },
        desired: Desired::default(),
        context,
        applier: None,
        layouts: Vec::new(),
        health_checks: HealthChecks::default(),
        rules_backoff: Backoff::default(),
        routes_backoff: Backoff::default(),
        cuts: Backoff::default(),
        started: false,
    };
    proxy.close();
    let mut bursts = events.ready_chunks(BURST);
    loop {
        let port = proxy.applier.as_ref().and_then(Applier::port);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = proxy.rules_backoff.elapsed() => {}
            () = proxy.routes_backoff.elapsed() => {}
            () = proxy.cuts.elapsed() => {}
            changed = monitor.changed(port) => {
                match changed {
                    Ok(Changed::Rules) => {
                        tracing::info!("the tables were changed by another program");
                        proxy.applier = None;
                        // More changes are likely to follow.
                        proxy.rules_backoff.delay(SETTLE);
                    }
                    Ok(Changed::Routes) => {
                        proxy.stale.nodes = true;
                        proxy.routes_backoff.delay(SETTLE);
                        // A link that was cut is one on which nothing is announced.
                        proxy.announced.send_modify(|_| ());
                    }
                    Err(error) => return Err(error),
                }
            }
            events = bursts.next() => match events {
                Some(events) => {
                    events.into_iter().for_each(|event| proxy.state.take(event, &mut proxy.stale));
                }
                None => return Ok(()),
            },
        }
        proxy.started |= proxy.state.is_synced() && proxy.state.policies.is_ready();
        if !proxy.started {
            proxy.rules_backoff.succeeded();
            proxy.routes_backoff.succeeded();
            continue;
        }
        proxy.sync().await;
        if proxy.applier.is_some() {
            health.set("synced", true);
        }
    }
}

impl Proxy {
    /// One round. Stale state remains so until it has been applied. Rules and routes fail, and are
    /// retried, independently.
    async fn sync(&mut self) {
        if self.stale.nodes {
            self.update_own_node();
        }
        if !self.rules_backoff.is_waiting() {
            self.sync_health_checks().await;
            self.candidates.update(&self.state, &self.stale.owners);
            // Netlink calls do not block, but the first one takes a while with ten thousand
            // Services.
            let result = tokio::task::block_in_place(|| {
                self.sync_rules()?;
                self.cut_connections()
            });
            match result {
                Ok(()) => {
                    self.rules_backoff.succeeded();
                    self.announce();
                }
                Err(error) => {
                    let retry_in_ms = self.rules_backoff.failed().as_millis();
                    tracing::error!(
                        error = cause_chain(&error),
                        retry_in_ms,
                        "cannot apply the rules"
                    );
                }
            }
        }
        if !self.routes_backoff.is_waiting() {
            match self.sync_routes().await {
                Ok(()) => self.routes_backoff.succeeded(),
                Err(error) => {
                    let retry_in_ms = self.routes_backoff.failed().as_millis();
                    tracing::error!(
                        error = cause_chain(&error),
                        retry_in_ms,
                        "cannot apply the routes"
                    );
                }
            }
        }
    }

    /// Has the addresses announced that the tables now translate.
    fn announce(&mut self) {
        let own = self.state.node(&self.settings.node_name);
        let excluded = own.is_none_or(|node| node.excluded_from_balancers);
        if let Some(wanted) = self.candidates.take(excluded) {
            self.announced.send_replace(wanted);
        }
    }

    /// On a node without tables, whose pods may be starting already, nothing is known about policies
    /// yet: closes it for pods.
    fn close(&self) {
        if let Err(error) = Applier::close(&self.settings.layouts(None)) {
            tracing::error!(error = cause_chain(&error), "cannot close the node for pods");
        }
    }

    /// Updates the inputs of plans and rules from this node's own object.
    fn update_own_node(&mut self) {
        self.candidates.links_changed();
        let own = self.state.node(&self.settings.node_name);
        let zone = own.and_then(|node| node.zone.clone());
        let layouts = self.settings.layouts(own);
        if zone != self.context.zone {
            self.context.zone = zone;
            self.stale.owners.extend(self.state.owners());
        }
        if layouts != self.layouts {
            self.layouts = layouts;
            self.applier = None;
        }
    }

    async fn sync_routes(&mut self) -> Result<(), routes::RouteError> {
        if self.stale.nodes {
            routes::sync(&self.settings.node_name, &self.state.nodes()).await?;
            self.stale.nodes = false;
        }
        Ok(())
    }

    async fn sync_health_checks(&mut self) {
        for owner in &self.stale.owners {
            let Owner::Service(name) = owner else {
                continue;
            };
            let service = self.state.service(name);
            let port = service.and_then(|service| service.health_check_port);
            let slices = || plan::local_endpoints(&self.state.slices(name));
            self.health_checks.set(name, port.map(|port| (port, slices()))).await;
        }
    }

    fn sync_rules(&mut self) -> Result<(), NftError> {
        let (changes, cleaned) = match self.applier.take() {
            Some(mut applier) if !self.stale.owners.is_empty() || self.are_policies_due() => {
                let mut changes = Changes::new();
                self.replan(None, &mut changes);
                applier.apply(&self.desired, &changes)?;
                let cleaned = self.clean_conntrack(&mut applier, &changes)?;
                self.applier = Some(applier);
                (changes, cleaned)
            }
            Some(applier) => {
                self.applier = Some(applier);
                return Ok(());
            }
            None => {
                let mut applier = Applier::open(self.layouts.clone())?;
                let slots = applier.endpoints()?;
                self.replan(Some(&slots), &mut Changes::new());
                let changes = applier.resync(&self.desired)?;
                if let Err(error) = sysctl::relax_conntrack() {
                    tracing::warn!(error = cause_chain(&error), "cannot relax conntrack");
                }
                let cleaned = self.clean_conntrack(&mut applier, &changes)?;
                self.applier = Some(applier);
                // Earlier changes may not have been followed up.
                self.cuts.delay(CUT_DELAY);
                (changes, cleaned)
            }
        };
        if cut::may_forbid(&changes) {
            self.cuts.delay(CUT_DELAY);
        }
        if !changes.is_empty() {
            let policies = &self.state.policies.plan;
            tracing::info!(
                changes = changes.len(),
                elements = self.desired.element_count(),
                policies = policies.count(),
                isolated_pods = policies.isolated_count(),
                cleaned,
                "applied"
            );
        }
        Ok(())
    }

    /// Whether elements of policies are stale, and can be planned.
    fn are_policies_due(&self) -> bool {
        self.stale.policies && self.state.policies.is_ready()
    }

    /// Cuts the connections that policies no longer allow, if that is due.
    fn cut_connections(&mut self) -> Result<(), NftError> {
        let due = self.cuts.is_due();
        let Some(applier) = self.applier.as_mut().filter(|_| due) else {
            return Ok(());
        };
        if self.state.policies.plan.isolated_count() == 0 {
            self.cuts.succeeded();
            return Ok(());
        }
        let own = match cut::own_addresses() {
            Ok(own) => own,
            Err(errno) => return Err(NftError::Addresses(errno)),
        };
        let cut = applier.cut_connections(&self.state.policies.plan, &own)?;
        self.cuts.succeeded();
        if cut > 0 {
            tracing::info!(connections = cut, "cut connections that policies no longer allow");
        }
        Ok(())
    }

    fn clean_conntrack(&self, applier: &mut Applier, changes: &Changes) -> Result<usize, NftError> {
        match conntrack::may_leave_stale_flows(changes) {
            true => applier.clean_conntrack(&self.desired, changes),
            false => Ok(0),
        }
    }

    /// Plans for all stale owners. Endpoints keep their slots from the desired state, or else from
    /// `held`.
    fn replan(&mut self, held: Option<&HashMap<ElementId, Data>>, changes: &mut Changes) {
        for owner in std::mem::take(&mut self.stale.owners) {
            let previous = |id: &ElementId| {
                let held = || held.and_then(|held| held.get(id).copied());
                self.desired.get(id).or_else(held)
            };
            let elements = match &owner {
                Owner::Service(name) => self.state.service(name).map(|service| {
                    plan::service(&self.context, service, &self.state.slices(name), &previous)
                }),
                Owner::Pod(name) => self.state.pod(name).map(|pod| plan::pod(&self.context, pod)),
                // Planned by `policy`.
                Owner::Policy(_) => continue,
                Owner::Node(name) => {
                    self.state.node(name).map(|node| plan::node(&self.context, node))
                }
            };
            self.desired.replace(&owner, elements.unwrap_or_default(), changes);
        }
        if self.are_policies_due() {
            let policies = &mut self.state.policies.plan;
            policies.replan(&self.context.families, &mut self.desired, changes);
            self.stale.policies = false;
        }
    }
}
