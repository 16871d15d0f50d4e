//! Place truth: a claim that light could not keep is refuted.
//!
//! Nothing travels faster than light in vacuum, so a round trip bounds the distance: whoever
//! answers a checker in t microseconds is at most t · 149.9 m away. A slow answer shows nothing. A
//! checker can lie about what it measured and about where it is, so a claim falls only if more than
//! half of a committee refute it. Distances are chords through the earth: shorter than any cable,
//! in the host's favour, and computed in integers alike everywhere.

/// Metres that light travels there and back in a microsecond: 299,792,458 m/s halved, in
/// thousandths.
const LIGHT_MM_PER_US: u64 = 149_896;
/// The earth's least radius, in metres.
const RADIUS_M: i128 = 6_356_752;
/// How far from its claim a host may be: a city.
pub const TOLERANCE_M: u64 = 50_000;

/// A place on earth, in millionths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinates {
    latitude: i32,
    longitude: i32,
}

impl Coordinates {
    /// None if there is no such place.
    pub const fn new(latitude: i32, longitude: i32) -> Option<Self> {
        if latitude.unsigned_abs() > 90_000_000 || longitude.unsigned_abs() > 180_000_000 {
            return None;
        }
        Some(Self { latitude, longitude })
    }

    /// The distance through the earth, in metres.
    pub fn chord_m(self, other: Self) -> u64 {
        let turn = i64::from(self.longitude) - i64::from(other.longitude);
        let (a, b) = (i64::from(self.latitude), i64::from(other.latitude));
        let cosine = ((sine(a) * sine(b)) >> BITS)
            + ((((cosine(a) * cosine(b)) >> BITS) * cosine(turn)) >> BITS);
        // 2 R² (1 − cos)
        let square = (2 * RADIUS_M * RADIUS_M * (ONE - cosine).max(0)) >> BITS;
        u64::try_from(square.isqrt()).unwrap_or(0)
    }
}

const BITS: u32 = 40;
const ONE: i128 = 1 << BITS;
/// π in 2⁻⁴⁰.
const PI: i128 = 3_454_217_652_358;
const HALF_TURN: i64 = 180_000_000;

/// The sine of millionths of a degree, in 2⁻⁴⁰.
fn sine(angle: i64) -> i128 {
    // Into −90° to 90°.
    let angle = (angle + HALF_TURN).rem_euclid(2 * HALF_TURN) - HALF_TURN;
    let angle = match angle {
        _ if angle > HALF_TURN / 2 => HALF_TURN - angle,
        _ if angle < -HALF_TURN / 2 => -HALF_TURN - angle,
        _ => angle,
    };
    let x = i128::from(angle) * PI / i128::from(HALF_TURN);
    let square = (x * x) >> BITS;
    let (mut term, mut sum) = (x, x);
    // x − x³/3! + x⁵/5! − …; the tenth term is below 2⁻⁴⁰.
    for n in 1..10_i128 {
        term = -((term * square) >> BITS) / (2 * n * (2 * n + 1));
        sum += term;
    }
    sum.clamp(-ONE, ONE)
}

fn cosine(angle: i64) -> i128 {
    sine(angle + HALF_TURN / 2)
}

/// What a checker measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where it is.
    pub from: Coordinates,
    /// The least of its round trips, in microseconds.
    pub rtt_us: u64,
}

impl Sighting {
    /// How far away the answer can have come from, in metres.
    pub fn reach_m(&self) -> u64 {
        self.rtt_us.saturating_mul(LIGHT_MM_PER_US) / 1_000
    }

    /// Whether a host at this place could not have answered so soon.
    ///
    /// ```
    /// use welkin_check::place::{Coordinates, Sighting};
    /// let frankfurt = Coordinates::new(50_110_000, 8_680_000).unwrap();
    /// let tokyo = Coordinates::new(35_680_000, 139_690_000).unwrap();
    /// assert!(Sighting { from: frankfurt, rtt_us: 20_000 }.refutes(tokyo));
    /// assert!(!Sighting { from: frankfurt, rtt_us: 20_000 }.refutes(frankfurt));
    /// ```
    pub fn refutes(&self, claim: Coordinates) -> bool {
        self.from.chord_m(claim) > self.reach_m().saturating_add(TOLERANCE_M)
    }
}

/// Whether a claim falls: more than half of the committee, and of all who measured, refute it.
pub fn is_refuted(claim: Coordinates, sightings: &[Sighting], committee: usize) -> bool {
    let against = sightings.iter().filter(|sighting| sighting.refutes(claim)).count();
    against > sightings.len().max(committee) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Coordinates> {
        (-90_000_000..=90_000_000, -180_000_000..=180_000_000)
            .prop_map(|(latitude, longitude)| Coordinates::new(latitude, longitude).unwrap())
    }

    proptest! {
        /// The same by the textbook, in floating point.
        #[test]
        fn chords_are_those_of_the_textbook(a in place(), b in place()) {
            let point = |place: Coordinates| {
                let latitude = (f64::from(place.latitude) / 1e6).to_radians();
                let longitude = (f64::from(place.longitude) / 1e6).to_radians();
                let (x, y) = (latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin());
                [x, y, latitude.sin()]
            };
            let (p, q) = (point(a), point(b));
            let square: f64 = p.iter().zip(q).map(|(p, q)| (p - q).powi(2)).sum();
            let expected = square.sqrt() * 6_356_752.0;
            let found = a.chord_m(b) as f64;
            prop_assert!((found - expected).abs() < 20.0, "{found} {expected}");
            prop_assert_eq!(a.chord_m(b), b.chord_m(a));
        }

        /// Cables are longer and slower than light's way, so no honest host is refuted.
        #[test]
        fn an_honest_host_is_never_refuted(
            host in place(), checkers in prop::collection::vec((place(), 0..100_000_u64), 1..7),
        ) {
            let sightings: Vec<_> = checkers
                .into_iter()
                .map(|(from, queued)| {
                    let way = host.chord_m(from) * 1_000 / LIGHT_MM_PER_US;
                    Sighting { from, rtt_us: way + queued }
                })
                .collect();
            prop_assert!(!is_refuted(host, &sightings, 1));
        }
    }

    #[test]
    fn a_lie_falls_by_a_majority_only() {
        let at = |latitude, longitude| Coordinates::new(latitude, longitude).unwrap();
        let (frankfurt, paris, new_york) =
            (at(50_110_000, 8_680_000), at(48_860_000, 2_350_000), at(40_710_000, -74_010_000));
        let near = |from| Sighting { from, rtt_us: 8_000 };
        let far = Sighting { from: new_york, rtt_us: 90_000 };
        // It is in Frankfurt and says New York.
        assert!(is_refuted(new_york, &[near(frankfurt), near(paris), far], 3));
        assert!(!is_refuted(new_york, &[near(frankfurt)], 3));
        assert!(!is_refuted(frankfurt, &[near(frankfurt), near(paris), far], 3));
        // One of three lies about an honest host.
        let lie = Sighting { from: new_york, rtt_us: 1 };
        assert!(!is_refuted(frankfurt, &[near(frankfurt), near(paris), lie], 3));
        assert!(Coordinates::new(90_000_001, 0).is_none());
        assert!(Coordinates::new(i32::MIN, 0).is_none());
    }
}
