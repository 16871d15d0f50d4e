//! Hosts that say they are elsewhere, and checkers that say it of honest ones.

use welkin_check::place::{Coordinates, Sighting, is_refuted};
use welkin_check::score::Ppm;
use welkin_match::synth::Chance;

/// Cities with checkers, in millionths of a degree; the first is where the host is.
const CITIES: [(&str, i32, i32); 12] = [
    ("Frankfurt", 50_110_000, 8_680_000),
    ("Paris", 48_860_000, 2_350_000),
    ("London", 51_510_000, -130_000),
    ("Warsaw", 52_230_000, 21_010_000),
    ("New York", 40_710_000, -74_010_000),
    ("Dallas", 32_780_000, -96_800_000),
    ("San Jose", 37_340_000, -121_890_000),
    ("Sao Paulo", -23_550_000, -46_630_000),
    ("Tokyo", 35_680_000, 139_690_000),
    ("Singapore", 1_350_000, 103_820_000),
    ("Mumbai", 19_080_000, 72_880_000),
    ("Sydney", -33_870_000, 151_210_000),
];
const COMMITTEE: usize = super::COMMITTEE as usize;
/// Microseconds that light takes there and back for 1,000 km, times 1.6 for the way of cables.
const US_A_MEGAMETRE: u64 = 10_675;
/// The last mile on both sides.
const LAST_MILE_US: u64 = 4_000;

/// What became of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The minute in which a committee refuted it.
    pub refuted_minute: Option<u32>,
    /// Whether all who measured on the first day, taken together, refute it.
    pub refuted_by_all: bool,
    /// Of these, so many in a thousand refute it.
    pub against_permille: u64,
}

fn city(name: &str) -> Option<Coordinates> {
    let (_, latitude, longitude) = CITIES.iter().find(|(city, ..)| *city == name)?;
    Coordinates::new(*latitude, *longitude)
}

/// A host in Frankfurt that claims to be in a city, delays answers to be believed or not, and is
/// checked by a committee a minute of which so many percent of the pool lie against it.
pub(super) fn play(claim: &str, delays: bool, liars_percent: u32, days: u32, seed: u64) -> Claim {
    let mut chance = Chance::new(seed);
    let (Some(real), Some(claim)) = (city("Frankfurt"), city(claim)) else {
        return Claim::default();
    };
    let mut came = Claim::default();
    let mut all = Vec::new();
    for minute in 0..days * 1_440 {
        let sightings: Vec<_> = (0..COMMITTEE)
            .filter_map(|_| sighting(real, claim, delays, liars_percent, &mut chance))
            .collect();
        if is_refuted(claim, &sightings, COMMITTEE) {
            came.refuted_minute.get_or_insert(minute);
        }
        if minute < 1_440 {
            all.extend(sightings);
        }
        if came.refuted_minute.is_some() && minute >= 1_440 {
            break;
        }
    }
    came.refuted_by_all = is_refuted(claim, &all, COMMITTEE);
    let against = all.iter().filter(|sighting| sighting.refutes(claim)).count();
    came.against_permille = u64::from(Ppm::of(count(against), count(all.len())).ppm() / 1_000);
    came
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn sighting(
    real: Coordinates,
    claim: Coordinates,
    delays: bool,
    liars_percent: u32,
    chance: &mut Chance,
) -> Option<Sighting> {
    let cities = u32::try_from(CITIES.len()).unwrap_or(1);
    let (_, latitude, longitude) = *CITIES.get(usize::try_from(chance.below(cities)).ok()?)?;
    let from = Coordinates::new(latitude, longitude)?;
    if chance.below(100) < liars_percent {
        // Where it is nobody knows: it says that it is at the other end of the world.
        let opposite = Coordinates::new(-latitude, longitude - 180_000_000 * longitude.signum())?;
        return Some(Sighting { from: opposite, rtt_us: 1_000 });
    }
    let way = |to: Coordinates| from.chord_m(to) * US_A_MEGAMETRE / 1_000_000;
    let jitter = u64::from(chance.below(3_000));
    let natural = way(real) + LAST_MILE_US + jitter;
    let wanted = if delays { way(claim) + LAST_MILE_US + jitter } else { 0 };
    Some(Sighting { from, rtt_us: natural.max(wanted) })
}
