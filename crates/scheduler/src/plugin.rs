//! The plugins, by upstream's names.

use std::fmt;

/// A part of the scheduler that can be switched off, weighted or configured by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plugin {
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
}

/// What a plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub plugin: Plugin,
    pub name: &'static str,
    pub filters: bool,
    /// Its default weight, if it scores.
    pub weight: Option<i64>,
    /// Whether what it filters depends on other pods, so that preemption can change it.
    pub depends_on_pods: bool,
}

const fn row(plugin: Plugin, name: &'static str) -> Row {
    Row { plugin, name, filters: false, weight: None, depends_on_pods: false }
}

impl Row {
    const fn filters(self) -> Self {
        Self { filters: true, ..self }
    }

    const fn filters_by_pods(self) -> Self {
        Self { filters: true, depends_on_pods: true, ..self }
    }

    const fn weighs(self, weight: i64) -> Self {
        Self { weight: Some(weight), ..self }
    }
}

/// Every plugin, in the order in which they run by default (upstream's `getDefaultPlugins`).
pub const PLUGINS: [Row; 19] = [
    row(Plugin::SchedulingGates, "SchedulingGates"),
    row(Plugin::PrioritySort, "PrioritySort"),
    row(Plugin::NodeUnschedulable, "NodeUnschedulable").filters(),
    row(Plugin::NodeName, "NodeName").filters(),
    row(Plugin::TaintToleration, "TaintToleration").filters().weighs(3),
    row(Plugin::NodeAffinity, "NodeAffinity").filters().weighs(2),
    row(Plugin::NodePorts, "NodePorts").filters_by_pods(),
    row(Plugin::NodeResourcesFit, "NodeResourcesFit").filters_by_pods().weighs(1),
    row(Plugin::VolumeRestrictions, "VolumeRestrictions").filters_by_pods(),
    row(Plugin::NodeVolumeLimits, "NodeVolumeLimits").filters_by_pods(),
    row(Plugin::VolumeBinding, "VolumeBinding").filters(),
    row(Plugin::VolumeZone, "VolumeZone").filters(),
    row(Plugin::PodTopologySpread, "PodTopologySpread").filters_by_pods().weighs(2),
    row(Plugin::InterPodAffinity, "InterPodAffinity").filters_by_pods().weighs(2),
    row(Plugin::DynamicResources, "DynamicResources").filters(),
    row(Plugin::DefaultPreemption, "DefaultPreemption"),
    row(Plugin::NodeResourcesBalancedAllocation, "NodeResourcesBalancedAllocation").weighs(1),
    row(Plugin::ImageLocality, "ImageLocality").weighs(1),
    row(Plugin::DefaultBinder, "DefaultBinder"),
];

impl Plugin {
    pub fn row(self) -> &'static Row {
        &PLUGINS[self as usize]
    }

    pub fn by_name(name: &str) -> Option<Self> {
        PLUGINS.iter().find(|row| row.name == name).map(|row| row.plugin)
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins(u32);

impl Plugins {
    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u32) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        PLUGINS.iter().map(|row| row.plugin).filter(move |plugin| self.contains(*plugin))
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<T: IntoIterator<Item = Plugin>>(plugins: T) -> Self {
        Self(plugins.into_iter().fold(0, |bits, plugin| bits | 1 << plugin as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_row_is_its_own() {
        for row in &PLUGINS {
            assert_eq!(row.plugin.row(), row);
            assert_eq!(Plugin::by_name(row.name), Some(row.plugin));
        }
        let some: Plugins = [Plugin::NodePorts, Plugin::DefaultBinder].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), [Plugin::NodePorts, Plugin::DefaultBinder]);
    }
}
