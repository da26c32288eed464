//! How many pods each ReplicaSet of a Deployment should have next
//! (`k8s.io/kubernetes/pkg/controller/deployment/{rolling,sync}.go`).

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::plan::Update;
use super::sets::{
    age_key, available, desired_when_scaled, is_recreate, max_when_scaled, replicas,
    set_scale_annotations, size, surge_and_unavailable,
};
use crate::machinery::owner;

/// The sets as they should be, while a plan is being made.
pub struct Model<'a> {
    deployment: &'a Deployment,
    /// Oldest first.
    sets: Vec<Entry>,
    new: Option<usize>,
}

struct Entry {
    before: Arc<ReplicaSet>,
    after: ReplicaSet,
}

impl<'a> Model<'a> {
    pub fn new(
        deployment: &'a Deployment,
        all: &[Arc<ReplicaSet>],
        new: Option<&ReplicaSet>,
    ) -> Self {
        let new_uid = new.map(|set| owner::uid(&set.metadata));
        Self {
            deployment,
            sets: all
                .iter()
                .map(|set| Entry { before: set.clone(), after: (**set).clone() })
                .collect(),
            new: all.iter().position(|set| Some(owner::uid(&set.metadata)) == new_uid),
        }
    }

    /// The sets that changed.
    pub fn into_changes(self) -> Vec<Update> {
        self.sets
            .into_iter()
            .filter(|entry| *entry.before != entry.after)
            .map(|entry| Update { before: entry.before, after: Box::new(entry.after) })
            .collect()
    }

    pub fn change_new(&mut self, change: impl FnOnce(&mut ReplicaSet)) {
        if let Some(index) = self.new {
            change(&mut self.sets[index].after);
        }
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    fn size(&self, index: usize) -> i32 {
        size(&self.sets[index].after)
    }

    /// Pods that are available and stay: what a set reports beyond its size, it is about to delete
    /// or has deleted already, and has not reported yet.
    fn available(&self, index: usize) -> i32 {
        available(&self.sets[index].after).min(self.size(index))
    }

    fn total(&self) -> i32 {
        (0..self.sets.len()).map(|index| self.size(index)).sum()
    }

    /// Sets the size of a set and its scale annotations. Returns whether the size changed.
    fn resize(&mut self, index: usize, to: i32) -> bool {
        let wanted = replicas(self.deployment);
        let (surge, _) = surge_and_unavailable(self.deployment);
        let set = &mut self.sets[index].after;
        let changed = size(set) != to;
        if changed {
            set.spec.replicas = Some(to);
        }
        set_scale_annotations(set, wanted, wanted + surge);
        changed
    }

    /// Returns whether a size changed.
    pub fn scale_old_to_zero(&mut self) -> bool {
        let mut changed = false;
        for index in self.old() {
            if self.size(index) > 0 {
                changed |= self.resize(index, 0);
            }
        }
        changed
    }

    /// The size that the new set may have now.
    pub fn new_size(&self) -> i32 {
        let wanted = replicas(self.deployment);
        let now = self.new.map_or(0, |index| self.size(index));
        if is_recreate(self.deployment) || now >= wanted {
            return wanted;
        }
        let (surge, _) = surge_and_unavailable(self.deployment);
        let room = (wanted + surge - self.total()).max(0);
        now + room.min(wanted - now)
    }

    /// Returns whether the size of the new set changed.
    pub fn scale_new(&mut self) -> bool {
        let Some(index) = self.new else { return false };
        if self.size(index) == replicas(self.deployment) {
            return false;
        }
        let to = self.new_size();
        self.resize(index, to)
    }

    /// Scales old sets down as far as enough pods stay available, unhealthy pods first.
    pub fn scale_old_down(&mut self) {
        let old_total: i32 = self.old().map(|index| self.size(index)).sum();
        let Some(new) = self.new.filter(|_| old_total > 0) else {
            return;
        };
        let (_, unavailable) = surge_and_unavailable(self.deployment);
        let least = replicas(self.deployment) - unavailable;
        let new_unavailable = self.size(new) - self.available(new);
        let spare = self.total() - least - new_unavailable;
        if spare > 0 {
            self.scale_unhealthy_down(spare);
            self.scale_available_down(least);
        }
    }

    fn scale_unhealthy_down(&mut self, most: i32) {
        let mut left = most;
        for index in self.old() {
            let unhealthy = self.size(index) - self.available(index);
            let down = unhealthy.max(0).min(left);
            if down > 0 {
                self.resize(index, self.size(index) - down);
                left -= down;
            }
        }
    }

    fn scale_available_down(&mut self, least: i32) {
        let available: i32 = (0..self.sets.len()).map(|index| self.available(index)).sum();
        let mut left = (available - least).max(0);
        for index in self.old() {
            let down = self.size(index).min(left);
            if down > 0 {
                self.resize(index, self.size(index) - down);
                left -= down;
            }
        }
    }

    fn active(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| self.size(*index) > 0).collect()
    }
}

/// Spreads a change of the Deployment's size over its sets, in proportion to their sizes.
pub fn proportionally(model: &mut Model<'_>) {
    let wanted = replicas(model.deployment);
    let active = model.active();
    if active.len() <= 1 {
        let only = active.first().copied().or(model.new);
        if let Some(index) = only.or(model.sets.len().checked_sub(1)) {
            model.resize(index, wanted);
        }
        return;
    }
    if model.new.is_some_and(|new| is_saturated(model, new)) {
        model.scale_old_to_zero();
        return;
    }
    if is_recreate(model.deployment) {
        return;
    }
    let (surge, _) = surge_and_unavailable(model.deployment);
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let to_add = allowed - active.iter().map(|index| model.size(*index)).sum::<i32>();
    let mut order = active;
    // Among equally large sets, growing favours the newest and shrinking the oldest.
    order.sort_by(|one, other| {
        let age = age_key(&model.sets[*one].after).cmp(&age_key(&model.sets[*other].after));
        let by_size = model.size(*other).cmp(&model.size(*one));
        by_size.then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut sizes = Vec::new();
    let mut added = 0;
    for index in &order {
        let part = proportion(model, *index, to_add, added, allowed);
        added += part;
        sizes.push(model.size(*index) + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (index, to) in order.into_iter().zip(sizes) {
        model.resize(index, to);
    }
}

/// Whether the new set had reached its full size before this change of size.
fn is_saturated(model: &Model<'_>, new: usize) -> bool {
    let wanted = replicas(model.deployment);
    let set = &model.sets[new].after;
    size(set) == wanted && desired_when_scaled(set) == Some(wanted) && available(set) == wanted
}

fn proportion(model: &Model<'_>, index: usize, to_add: i32, added: i32, allowed: i32) -> i32 {
    let size = model.size(index);
    let left = to_add - added;
    if size == 0 || left == 0 {
        return 0;
    }
    let fraction = fraction(model, index, allowed);
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// By how much a set changes when the maximum of the whole goes from its former value to `allowed`.
fn fraction(model: &Model<'_>, index: usize, allowed: i32) -> i32 {
    let size = model.size(index);
    if replicas(model.deployment) == 0 {
        return -size;
    }
    let status = model.deployment.status.as_ref();
    let before = max_when_scaled(&model.sets[index].after)
        .or(status.and_then(|status| status.replicas))
        .unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let exact = f64::from(size) * f64::from(allowed) / f64::from(before);
    #[allow(clippy::cast_possible_truncation)]
    let rounded = exact.round() as i32;
    rounded - size
}
