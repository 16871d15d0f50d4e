//! What measurements say of a host's network and place.

use welkin_check::place::{Coordinates, Sighting};
use welkin_check::score::{Dimension, Ppm};
use welkin_ledger::epoch::Gathered;
use welkin_match::latency::place_of;
use welkin_proto::site::Site;
use welkin_types::{ContainerId, Region};

use super::card::{CHECK, Observation};

/// A host that answers at none of the addresses that it names.
const NOWHERE: Ppm = Ppm::new(500_000);

/// Where a region is, if it is a city of the table.
pub(crate) fn coordinates(region: &Region) -> Option<Coordinates> {
    let place = place_of(region)?;
    Coordinates::new(place.latitude * 100_000, place.longitude * 100_000)
}

/// How soon a host answered from where; nothing of a checker that does not say where it is.
pub(crate) fn sighting(site: &Site) -> Option<Sighting> {
    let from = coordinates(site.from.as_ref()?)?;
    Some(Sighting { from, rtt_us: site.rtt_us.into() })
}

/// The measurements of a container, as observations of its score. Each stands for itself, as each probe
/// does: of many checkers most are too near a false place to tell, and a liar is one among them.
pub(super) fn observe(gathered: &Gathered, container: ContainerId, all: &mut Vec<Observation>) {
    for report in gathered.sites.iter().filter(|report| report.container == container) {
        let claims = gathered.regions.get(&report.host).into_iter().flatten();
        let is_far = sighting(&report.site).is_some_and(|sighting| {
            claims.filter_map(coordinates).any(|claim| sighting.refutes(claim))
        });
        let (value, what) = found(&report.site, is_far);
        let (at, by) = (report.minute.saturating_mul(60), report.checker.to_string());
        let dimension = Dimension::Network;
        all.push(Observation { at, dimension, value, weight_ppm: CHECK, what, by });
    }
}

fn found(site: &Site, is_far: bool) -> (Ppm, String) {
    let rate = |rate: Option<u32>| rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string());
    let (named, open) = (site.ports_named, site.ports_open);
    let what = format!(
        "{} us; {} KiB/s down, {} up, disk {} written, {} read; {open} of {named} addresses",
        site.rtt_us,
        rate(site.down_kib_s),
        rate(site.up_kib_s),
        rate(site.write_kib_s),
        rate(site.read_kib_s),
    );
    let has_rate = site.down_kib_s.or(site.up_kib_s).or(site.write_kib_s).is_some();
    match () {
        () if site.is_wrong => (Ppm::ZERO, format!("what was sent or read is wrong; {what}")),
        () if is_far => (Ppm::ZERO, format!("light is too slow for its region; {what}")),
        () if !has_rate => (Ppm::ZERO, format!("no measurement came to an end; {what}")),
        () if named > 0 && open == 0 => (NOWHERE, what),
        () => (Ppm::ONE, what),
    }
}
