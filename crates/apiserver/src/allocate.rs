//! Allocation of cluster IPs and node ports: each is a key of its own in the store, so that no two
//! Services get the same one, whichever apiserver they come through. The record of an address is its
//! IPAddress. Addresses are of the server's own range; when that is full, and when one is asked
//! for, of those of further ServiceCIDRs too.
//!
//! A write claims what it needs before it stores the Service, and releases it when it is refused. A
//! write that may or may not have been applied keeps its claims. What is left behind by it or by a
//! crash is released later ([`keep_repaired`](Allocator::keep_repaired)). A record names the Service
//! by its uid, so that nobody releases what has meanwhile become another's. A dry run claims
//! nothing, and is answered with what is free.

mod plan;
mod ranges;
mod repair;

use std::net::IpAddr;

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::IPAddress;
use parking_lot::Mutex;
use rand::RngExt;
use store::{ListOptions, Outcome, Store};

use self::plan::{Owner, Resource, wanted};
use self::repair::Unused;
use crate::cache::Cache;
use crate::core::Call;
use crate::error::store_error;
use crate::keys;

/// Random candidates tried before the free ones are enumerated.
const RANDOM_TRIES: usize = 16;
/// The address of the cluster's DNS, as an offset from the range's start; only allocated on
/// request.
const DNS_OFFSET: u128 = 10;

/// What a write has allocated.
#[derive(Debug)]
pub struct Allocation {
    owner: Owner,
    resources: Vec<Resource>,
    now: Timestamp,
    /// Nothing has been recorded.
    dry_run: bool,
}

/// Allocates cluster IPs and node ports.
pub struct Allocator {
    store: Store,
    range: IpNet,
    ports: (u16, u16),
    unused: Mutex<Unused>,
}

impl Allocator {
    pub fn new(store: Store, range: IpNet, ports: (u16, u16)) -> Self {
        Self { store, range, ports, unused: Mutex::default() }
    }

    /// The range that this server was started with.
    pub fn range(&self) -> &IpNet {
        &self.range
    }

    /// The address of the Service `kubernetes`.
    pub fn first_address(&self) -> IpAddr {
        plan::nth(&self.range, 1)
    }

    /// Allocates what a new object needs.
    ///
    /// # Errors
    /// 422 when a requested address or port is taken or out of range, 500 when none is left.
    pub async fn allocate(
        &self,
        call: Call<'_>,
        object: &mut dyn Object,
    ) -> Result<Option<Allocation>, ApiError> {
        self.allocate_missing(call, object, &[]).await
    }

    /// Allocates what an updated object needs in addition.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub async fn allocate_update(
        &self,
        call: Call<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> Result<Option<Allocation>, ApiError> {
        let held = old.downcast_ref::<Service>().map(plan::held).unwrap_or_default();
        self.allocate_missing(call, new, &held).await
    }

    async fn allocate_missing(
        &self,
        call: Call<'_>,
        object: &mut dyn Object,
        held: &[Resource],
    ) -> Result<Option<Allocation>, ApiError> {
        let Some(service) = object.downcast_mut::<Service>() else {
            return Ok(None);
        };
        let owner = Owner::of(&service.metadata);
        let name = service.metadata.name.clone().unwrap_or_default();
        let Some(spec) = service.spec.as_mut() else {
            return Ok(None);
        };
        let dry_run = call.options.dry_run;
        let now = call.now();
        let mut allocation = Allocation { owner, resources: Vec::new(), dry_run, now };
        match self.fill(&call.core.cache, spec, held, &mut allocation).await {
            Ok(()) => Ok(Some(allocation)),
            Err(failure) => {
                self.release(Some(allocation)).await;
                Err(match failure {
                    Failure::Field(error) => ApiError::invalid(call.row(), &name, &[error]),
                    Failure::Api(error) => error,
                })
            }
        }
    }

    async fn fill(
        &self,
        cache: &Cache,
        spec: &mut ServiceSpec,
        held: &[Resource],
        allocation: &mut Allocation,
    ) -> Result<(), Failure> {
        for resource in wanted(spec) {
            if held.contains(&resource) || allocation.resources.contains(&resource) {
                continue;
            }
            self.check(cache, spec, &resource)?;
            if !self.take(&resource, allocation).await? {
                return Err(taken(spec, &resource));
            }
        }
        if plan::lacks_address(spec) {
            let resource = self.free_address(cache, allocation).await?;
            if let Resource::Address(address) = &resource {
                spec.cluster_ip = Some(address.to_string());
                spec.cluster_ips = Some(vec![address.to_string()]);
            }
        }
        for index in plan::ports_to_fill(spec) {
            // Upstream shares numbers on creation only.
            if let Some(port) = plan::shared_port(spec, index).filter(|_| held.is_empty()) {
                plan::set_port(spec, index, port);
                continue;
            }
            let resource = self.free_port(allocation).await?;
            if let Resource::Port(port) = resource {
                plan::set_port(spec, index, port);
            }
        }
        Ok(())
    }

    fn check(
        &self,
        cache: &Cache,
        spec: &ServiceSpec,
        resource: &Resource,
    ) -> Result<(), FieldError> {
        let outside = |address: &IpAddr| {
            let further = || ranges::further(cache, &self.range);
            !self.range.contains(address) && !further().iter().any(|range| range.contains(address))
        };
        match resource {
            Resource::Address(address) if outside(address) => Err(FieldError::invalid(
                "spec.clusterIPs",
                spec.cluster_ips.clone().unwrap_or_default(),
                format!(
                    "failed to allocate IP {address}: the provided network does not match the current range"
                ),
            )),
            Resource::Port(port) if !(self.ports.0..=self.ports.1).contains(port) => {
                Err(FieldError::invalid(
                    plan::port_field(spec, *port),
                    *port,
                    format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        self.ports.0, self.ports.1
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Allocates one address or port. False: it is taken.
    async fn take(
        &self,
        resource: &Resource,
        allocation: &mut Allocation,
    ) -> Result<bool, ApiError> {
        let free = if allocation.resources.contains(resource) {
            false
        } else if allocation.dry_run {
            let found = self.store.get(resource.key()).await;
            found.map_err(|error| store_error(&error))?.entry.is_none()
        } else {
            self.record(resource, &allocation.owner, allocation.now).await?
        };
        if free {
            allocation.resources.push(resource.clone());
        }
        Ok(free)
    }

    /// Records the owner of a resource. False: it has one.
    async fn record(
        &self,
        resource: &Resource,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<bool, ApiError> {
        let outcome = self.store.create(resource.key(), resource.record(owner, now)).await;
        let outcome = outcome.map_err(|error| store_error(&error))?;
        Ok(matches!(outcome, Outcome::Written(_)))
    }

    async fn free_address(
        &self,
        cache: &Cache,
        allocation: &mut Allocation,
    ) -> Result<Resource, ApiError> {
        if let Some(found) = self.free_in(&self.range, allocation).await? {
            return Ok(found);
        }
        for range in ranges::further(cache, &self.range) {
            if let Some(found) = self.free_in(&range, allocation).await? {
                return Ok(found);
            }
        }
        Err(ApiError::internal("failed to allocate a serviceIP: range is full"))
    }

    async fn free_in(
        &self,
        range: &IpNet,
        allocation: &mut Allocation,
    ) -> Result<Option<Resource>, ApiError> {
        let size = plan::size(range);
        // The lower part is kept for addresses that are requested, as upstream does.
        let band = (size / 16).clamp(16, 256).min(size / 2);
        for _ in 0..RANDOM_TRIES {
            let offset = rand::rng().random_range(band..size.max(band + 1));
            let resource = Resource::Address(plan::nth(range, offset));
            if offset < size && self.take(&resource, allocation).await? {
                return Ok(Some(resource));
            }
        }
        let used = self.used(keys::prefix(IPAddress::ROW, "")).await?;
        for offset in (band..size).chain(2..band).filter(|offset| *offset != DNS_OFFSET) {
            let resource = Resource::Address(plan::nth(range, offset));
            if !used.contains(&resource.key()) && self.take(&resource, allocation).await? {
                return Ok(Some(resource));
            }
        }
        Ok(None)
    }

    async fn free_port(&self, allocation: &mut Allocation) -> Result<Resource, ApiError> {
        let (from, to) = self.ports;
        let free = from + kept_ports((to - from).saturating_add(1));
        for _ in 0..RANDOM_TRIES {
            let resource = Resource::Port(rand::rng().random_range(free..=to));
            if self.take(&resource, allocation).await? {
                return Ok(resource);
            }
        }
        let used = self.used(Bytes::from_static(plan::PORTS.as_bytes())).await?;
        for port in (free..=to).chain(from..free) {
            let resource = Resource::Port(port);
            if !used.contains(&resource.key()) && self.take(&resource, allocation).await? {
                return Ok(resource);
            }
        }
        Err(ApiError::internal("failed to allocate a nodePort: range is full"))
    }

    async fn used(&self, prefix: Bytes) -> Result<std::collections::HashSet<Bytes>, ApiError> {
        let listing = self
            .store
            .list(ListOptions { prefix, ..ListOptions::default() })
            .await
            .map_err(|error| store_error(&error))?;
        Ok(listing.entries.into_iter().map(|entry| entry.key).collect())
    }

    /// Releases what a refused write had allocated.
    pub async fn release(&self, allocation: Option<Allocation>) {
        let Some(allocation) = allocation.filter(|allocation| !allocation.dry_run) else {
            return;
        };
        for resource in &allocation.resources {
            self.release_one(resource, &allocation.owner).await;
        }
    }

    /// Releases what an updated object no longer uses.
    pub async fn release_replaced(&self, new: &dyn Object, old: &dyn Object) {
        let (Some(new), Some(old)) = (new.downcast_ref::<Service>(), old.downcast_ref::<Service>())
        else {
            return;
        };
        let (kept, owner) = (plan::held(new), Owner::of(&old.metadata));
        for resource in plan::held(old).iter().filter(|resource| !kept.contains(resource)) {
            self.release_one(resource, &owner).await;
        }
    }

    /// Releases what a deleted object used.
    pub async fn release_object(&self, object: &dyn Object) {
        let Some(service) = object.downcast_ref::<Service>() else {
            return;
        };
        let owner = Owner::of(&service.metadata);
        for resource in plan::held(service) {
            self.release_one(&resource, &owner).await;
        }
    }

    async fn release_one(&self, resource: &Resource, owner: &Owner) {
        let key = resource.key();
        let released = async {
            let entry = self.store.get(key.clone()).await?.entry;
            let Some(entry) = entry.filter(|entry| owner.has_written(&entry.value)) else {
                return Ok(());
            };
            // A conflict means that somebody else has just released it.
            self.store.delete(key, entry.mod_revision).await.map(drop)
        };
        if let Err(error) = released.await {
            let error: store::Error = error;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                ?resource,
                "an unused allocation is kept until the next repair"
            );
        }
    }
}

enum Failure {
    Field(FieldError),
    Api(ApiError),
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

fn taken(spec: &ServiceSpec, resource: &Resource) -> Failure {
    Failure::Field(match resource {
        Resource::Address(address) => FieldError::invalid(
            "spec.clusterIPs",
            spec.cluster_ips.clone().unwrap_or_default(),
            format!("failed to allocate IP {address}: provided IP is already allocated"),
        ),
        Resource::Port(port) => FieldError::invalid(
            plan::port_field(spec, *port),
            *port,
            "provided port is already allocated",
        ),
    })
}

/// How many of the first ports of a range are kept for those that are requested, while there are others
/// (`calculateRangeOffset` of `pkg/registry/core/service/portallocator`).
fn kept_ports(size: u16) -> u16 {
    if size <= 16 { 0 } else { (size / 32).clamp(16, 128) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_ports_are_kept() {
        for (size, kept) in
            [(1, 0), (16, 0), (17, 16), (512, 16), (1_024, 32), (2_768, 86), (65_000, 128)]
        {
            assert_eq!(kept_ports(size), kept, "{size}");
        }
    }
}
