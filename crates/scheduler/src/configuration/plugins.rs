//! Which plugins a profile enables, and with which weights.

use super::file::{Entry, PluginSet, PluginSets};
use crate::plugin::{PLUGINS, Plugin};
use crate::profile::Profile;

/// Applies the plugin sets of a profile, as upstream merges them with the defaults.
pub fn apply(sets: &PluginSets, profile: &mut Profile) -> Result<(), String> {
    let fixed = [
        ("preEnqueue", &sets.pre_enqueue),
        ("queueSort", &sets.queue_sort),
        ("preFilter", &sets.pre_filter),
        ("preScore", &sets.pre_score),
        ("reserve", &sets.reserve),
        ("permit", &sets.permit),
        ("preBind", &sets.pre_bind),
        ("bind", &sets.bind),
        ("postBind", &sets.post_bind),
    ];
    for (point, set) in fixed {
        if !set.enabled.is_empty() || !set.disabled.is_empty() {
            return Err(format!(
                "{point} is not supported: plugins are set at filter, postFilter, score and multiPoint"
            ));
        }
    }
    let all = multi_point(&sets.multi_point).map_err(|problem| format!("multiPoint.{problem}"))?;
    let point = |name: &str, set: &PluginSet, has: fn(Plugin) -> bool| {
        of_point(set, &all, has).map_err(|problem| format!("{name}.{problem}"))
    };
    let filters = point("filter", &sets.filter, |plugin| plugin.row().filters)?;
    let scores = point("score", &sets.score, |plugin| plugin.row().weight.is_some())?;
    let post_filter =
        point("postFilter", &sets.post_filter, |plugin| plugin == Plugin::DefaultPreemption)?;
    profile.filters = filters.into_iter().map(|(plugin, _)| plugin).collect();
    profile.scores = scores.into_iter().map(|(plugin, weight)| (plugin, weight.max(1))).collect();
    profile.preempts = !post_filter.is_empty();
    Ok(())
}

type Weighted = Vec<(Plugin, i64)>;

fn read(entries: &[Entry]) -> Result<Weighted, String> {
    let one = |(index, entry): (usize, &Entry)| {
        let plugin = Plugin::by_name(&entry.name)
            .ok_or_else(|| format!("enabled[{index}]: plugin {:?} does not exist", entry.name))?;
        if entry.weight < 0 {
            return Err(format!("enabled[{index}].weight: Invalid value: {}", entry.weight));
        }
        Ok((plugin, entry.weight))
    };
    entries.iter().enumerate().map(one).collect()
}

fn is_disabled(set: &PluginSet, plugin: Plugin) -> bool {
    set.disabled.iter().any(|entry| entry.name == "*" || entry.name == plugin.row().name)
}

fn has(plugins: &Weighted, plugin: Plugin) -> bool {
    plugins.iter().any(|(known, _)| *known == plugin)
}

/// The defaults, changed in place or removed, and what is enabled besides.
fn multi_point(set: &PluginSet) -> Result<Weighted, String> {
    let own = read(&set.enabled)?;
    let mut all: Weighted = PLUGINS
        .iter()
        .filter(|row| !is_disabled(set, row.plugin))
        .map(|row| {
            let own = own.iter().find(|(plugin, _)| *plugin == row.plugin);
            (row.plugin, own.map_or(row.weight.unwrap_or(0), |(_, weight)| *weight))
        })
        .collect();
    for one in own {
        if !has(&all, one.0) {
            all.push(one);
        }
    }
    Ok(all)
}

/// The plugins of one extension point: first those that it configures anew, then the others of
/// `all`, then those that it adds.
fn of_point(
    set: &PluginSet,
    all: &Weighted,
    belongs: fn(Plugin) -> bool,
) -> Result<Weighted, String> {
    let own = read(&set.enabled)?;
    if let Some((index, (plugin, _))) =
        own.iter().enumerate().find(|(_, (plugin, _))| !belongs(*plugin))
    {
        return Err(format!("enabled[{index}]: plugin {:?} does not extend it", plugin.row().name));
    }
    let (anew, added): (Weighted, Weighted) =
        own.iter().copied().partition(|(plugin, _)| has(all, *plugin));
    let others = all.iter().copied().filter(|(plugin, _)| {
        belongs(*plugin) && !has(&own, *plugin) && !is_disabled(set, *plugin)
    });
    Ok(anew.into_iter().chain(others).chain(added).collect())
}
