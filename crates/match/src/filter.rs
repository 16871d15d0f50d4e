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
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) node: NodeId,
    /// The host's number.
    pub(crate) host: u32,
    pub(crate) operator: AccountId,
    pub(crate) region: &'a Region,
    pub(crate) container: ContainerOffer,
    pub(crate) free: u32,
    pub(crate) online_bp: Option<u16>,
    pub(crate) checks: u32,
    /// The online score as it counts in a search.
    pub(crate) quality: u16,
    /// Whether the host was heard since the indexer's last start.
    pub(crate) is_confirmed: bool,
}

/// What is wished for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) needs: &'a Needs,
    pub(crate) exclude: &'a [NodeId],
    /// Round trips to regions; nothing where they do not matter.
    pub(crate) round_trips_us: Option<&'a [(Region, u32)]>,
}

impl<'a> Wish<'a> {
    /// Of a container in no particular distance.
    pub(crate) const fn anywhere(needs: &'a Needs) -> Self {
        Self { needs, exclude: &[], round_trips_us: None }
    }

    fn round_trip_us(&self, region: &Region) -> Option<u32> {
        let known = self.round_trips_us?.iter().find(|(known, _)| known == region);
        known.map(|(_, us)| *us)
    }

    /// The round trip as the index counts it.
    pub(crate) fn latency_to(&self, region: &Region) -> u16 {
        match self.round_trips_us {
            None | Some([]) => 0,
            Some(_) => self.round_trip_us(region).map_or(u16::MAX, tenths_of),
        }
    }
}

/// Whole tenths of a millisecond.
pub(crate) fn tenths_of(us: u32) -> u16 {
    u16::try_from(us / 100).unwrap_or(u16::MAX)
}

impl Facts<'_> {
    /// Whether the container passes.
    pub(crate) fn passes(&self, filter: Filter, wish: &Wish<'_>) -> bool {
        let (needs, container) = (wish.needs, &self.container);
        let has = &container.resources;
        match filter {
            Filter::Gpu => needs.gpu.as_ref().is_none_or(|ask| has_gpus(&has.gpus, ask)),
            Filter::Cpu => has.cpu_milli >= needs.cpu_milli_min,
            // Shared memory is a part of the memory.
            Filter::Memory => has.memory_bytes >= needs.memory_bytes_min.max(needs.shm_bytes),
            Filter::Disk => has.disk_bytes >= needs.disk_bytes_min,
            Filter::Isolation => {
                container.tier > Tier::Process && container.tier >= needs.isolation_min
            }
            Filter::Region => needs.regions.is_empty() || needs.regions.contains(self.region),
            Filter::Operator => {
                let allow = &needs.operators_allow;
                (allow.is_empty() || allow.contains(&self.operator))
                    && !needs.operators_deny.contains(&self.operator)
            }
            Filter::Price => {
                let price = container.price_of(needs.capacity).unwrap_or(container.price);
                needs.max_per_hour.is_none_or(|most| price.hour() <= most)
            }
            Filter::Reliability => self.quality >= needs.reliability_min_bp,
            Filter::Feature => {
                needs.features.iter().all(|feature| container.features.contains(feature))
            }
            Filter::Driver => needs.driver_min.is_none_or(|least| container.driver >= Some(least)),
            Filter::RoundTrip => {
                let is_near = |most| wish.round_trip_us(self.region).is_some_and(|us| us <= most);
                wish.round_trips_us.is_none() || needs.rtt_us_max.is_none_or(is_near)
            }
            Filter::Capacity => container.price_of(needs.capacity).is_some(),
            Filter::App => {
                let is_ready = |app| container.apps.contains(&app);
                !needs.is_app_required || needs.app.is_some_and(is_ready)
            }
            Filter::Excluded => !wish.exclude.contains(&self.node),
            Filter::Free => self.free > 0,
            // What is about several is not seen in one.
            Filter::Together => true,
        }
    }

    /// The filters that the container fails, in order.
    pub(crate) fn fails<'b>(&'b self, wish: &'b Wish<'b>) -> impl Iterator<Item = Filter> + 'b {
        FILTERS.into_iter().filter(|filter| !self.passes(*filter, wish))
    }

    /// Whether the container is of the wanted kind, be it free or not.
    pub(crate) fn is_wanted(&self, needs: &Needs) -> bool {
        self.fails(&Wish::anywhere(needs)).all(|filter| filter == Filter::Free)
    }
}

/// A lease gets all GPUs of a container, so all of them must be wanted, and so must their number.
pub(crate) fn has_gpus(gpus: &[Gpu], ask: &GpuAsk) -> bool {
    ask.count.contains(gpus.len()) && gpus.iter().all(|gpu| ask.accepts(gpu))
}
