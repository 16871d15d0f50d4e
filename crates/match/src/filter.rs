//! The tests that a container must pass to run a task, one function for matching, listing and
//! explaining alike.

use welkin_proto::ContainerOffer;
use welkin_proto::index::Filter;
use welkin_types::task::{GpuAsk, Needs};
use welkin_types::{AccountId, Gpu, NodeId, Region, Tier};

/// The filters in their order.
pub(crate) const FILTERS: [Filter; 16] = [
    Filter::Gpu,
    Filter::Cpu,
    Filter::Memory,
    Filter::Disk,
    Filter::Isolation,
    Filter::Region,
    Filter::Operator,
    Filter::Price,
    Filter::Reliability,
    Filter::Feature,
    Filter::Driver,
    Filter::RoundTrip,
    Filter::Capacity,
    Filter::App,
    Filter::Excluded,
    Filter::Free,
];

/// A container as the filters see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) node: NodeId,
    pub(crate) operator: AccountId,
    pub(crate) region: &'a Region,
    pub(crate) container: &'a ContainerOffer,
    pub(crate) free: u32,
    pub(crate) online_bp: Option<u16>,
}

impl Facts<'_> {
    /// Whether the container passes.
    pub(crate) fn passes(&self, filter: Filter, needs: &Needs, exclude: &[NodeId]) -> bool {
        let has = &self.container.resources;
        match filter {
            Filter::Gpu => needs.gpu.as_ref().is_none_or(|ask| has_gpus(&has.gpus, ask)),
            Filter::Cpu => has.cpu_milli >= needs.cpu_milli_min,
            // Shared memory is a part of the memory.
            Filter::Memory => has.memory_bytes >= needs.memory_bytes_min.max(needs.shm_bytes),
            Filter::Disk => has.disk_bytes >= needs.disk_bytes_min,
            Filter::Isolation => {
                self.container.tier > Tier::Process && self.container.tier >= needs.isolation_min
            }
            Filter::Region => needs.regions.is_empty() || needs.regions.contains(self.region),
            Filter::Operator => {
                let allow = &needs.operators_allow;
                (allow.is_empty() || allow.contains(&self.operator))
                    && !needs.operators_deny.contains(&self.operator)
            }
            Filter::Price => {
                let price = self.container.price_of(needs.capacity).unwrap_or(self.container.price);
                needs.max_per_hour.is_none_or(|most| price.hour() <= most)
            }
            Filter::Reliability => self.online_bp.unwrap_or(0) >= needs.reliability_min_bp,
            Filter::Feature => {
                let features = &self.container.features;
                needs.features.iter().all(|feature| features.contains(feature))
            }
            Filter::Driver => {
                needs.driver_min.is_none_or(|least| self.container.driver >= Some(least))
            }
            Filter::RoundTrip => true,
            Filter::Capacity => self.container.price_of(needs.capacity).is_some(),
            Filter::App => {
                let apps = &self.container.apps;
                !needs.is_app_required || needs.app.is_some_and(|app| apps.contains(&app))
            }
            Filter::Excluded => !exclude.contains(&self.node),
            Filter::Free => self.free > 0,
        }
    }

    /// The filters that the container fails, in order.
    pub(crate) fn fails<'b>(
        &'b self,
        needs: &'b Needs,
        exclude: &'b [NodeId],
    ) -> impl Iterator<Item = Filter> + 'b {
        FILTERS.into_iter().filter(|filter| !self.passes(*filter, needs, exclude))
    }

    /// Whether the container is of the wanted kind, be it free or not.
    pub(crate) fn is_wanted(&self, needs: &Needs) -> bool {
        self.fails(needs, &[]).all(|filter| filter == Filter::Free)
    }
}

/// A lease gets all GPUs of a container, so all of them must be wanted, and so must their number.
pub(crate) fn has_gpus(gpus: &[Gpu], ask: &GpuAsk) -> bool {
    ask.count.contains(gpus.len()) && gpus.iter().all(|gpu| ask.accepts(gpu))
}
