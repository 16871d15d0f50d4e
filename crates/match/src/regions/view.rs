//! What regions have, by what several indexers say of each.

use std::collections::BTreeMap;

use welkin_proto::gossip::Summary;
use welkin_types::{Class, Price, Region};

/// What a region has of a class: the middle of what its indexers say, so that of three one may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassView {
    /// Slots.
    pub slots: u64,
    /// Slots free.
    pub free: u64,
    /// The lowest price of a free one.
    pub cheapest: Option<Price>,
    /// The middle of all prices.
    pub median: Price,
}

/// What a region has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionView {
    /// Indexers that have said so.
    pub indexers: usize,
    /// By class.
    pub classes: BTreeMap<Class, ClassView>,
}

impl RegionView {
    /// Slots free, of all classes.
    pub fn free(&self) -> u64 {
        self.classes.values().fold(0, |sum, class| sum.saturating_add(class.free))
    }

    /// The lowest price of anything free.
    pub fn cheapest(&self) -> Option<Price> {
        self.classes.values().filter_map(|class| class.cheapest).min()
    }
}

/// Joins summaries to one view of each region. Who does not name a class has none of it.
pub fn view<'a>(summaries: impl Iterator<Item = &'a Summary>) -> BTreeMap<Region, RegionView> {
    let mut by_region: BTreeMap<&Region, Vec<&Summary>> = BTreeMap::new();
    for summary in summaries {
        by_region.entry(&summary.region).or_default().push(summary);
    }
    let joined = |(region, of_it): (&Region, Vec<&Summary>)| {
        let mut rows: BTreeMap<&Class, Vec<_>> = BTreeMap::new();
        for row in of_it.iter().flat_map(|summary| &summary.classes) {
            rows.entry(&row.class).or_default().push(row);
        }
        let indexers = of_it.len();
        let classes = rows.into_iter().map(|(class, said)| {
            let count = |number: fn(&welkin_proto::gossip::ClassSummary) -> u64| {
                let silent = std::iter::repeat_n(0, indexers.saturating_sub(said.len()));
                middle(said.iter().map(|row| number(row)).chain(silent).collect()).unwrap_or(0)
            };
            let view = ClassView {
                slots: count(|row| row.slots),
                free: count(|row| row.free),
                cheapest: middle(said.iter().filter_map(|row| row.cheapest).collect()),
                median: middle(said.iter().map(|row| row.median).collect()).unwrap_or_default(),
            };
            (class.clone(), view)
        });
        (region.clone(), RegionView { indexers, classes: classes.collect() })
    };
    by_region.into_iter().map(joined).collect()
}

/// The lower of the two in the middle.
fn middle<T: Ord>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    let at = values.len().checked_sub(1)? / 2;
    values.into_iter().nth(at)
}
