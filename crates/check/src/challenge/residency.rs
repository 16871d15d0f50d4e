//! Residency: that a device still holds the memory it claims, asked at minute scale.
//!
//! Memory is filled once with units of 64 bytes, each a block of ChaCha with [`Fill::double_rounds`]
//! double rounds of its own number: dear to compute again, cheap to read. A probe starts walkers at
//! random units; each goes on to the unit that the bytes it read point to, so that reads can't be
//! made in advance or in parallel within a walk. The walkers' ends are told by a deadline on the
//! checker's clock; the checker recomputes some walks from the seed alone. Whole ones: where a step
//! leads does not depend on the probe, so a walk that began anywhere else could be made in advance.
//!
//! A device that keeps only a share s of the units computes (1 − s) of those that it visits again:
//! a walk takes at least 1 + (1 − s)·(compute/read) times as long ([`slowdown_permille`]). Choose
//! `double_rounds` so that computing a unit takes several times as long as a random read.

use sha2::{Digest as _, Sha256};

use super::chacha;
use crate::way::without_way;

/// Bytes of a unit.
pub const UNIT_BYTES: u64 = 64;
/// The most walkers of a probe.
pub const WALKERS_MAX: u32 = 1 << 16;
/// The most steps of a walk.
pub const STEPS_MAX: u32 = 1 << 20;
const MARK: u32 = 0x7765_6c6b;

/// What memory is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The device's seed.
    pub seed: [u8; 32],
    /// How many units.
    pub units: u32,
    /// Double rounds that computing a unit takes.
    pub double_rounds: u32,
}

impl Fill {
    /// A unit.
    pub fn unit(&self, index: u32) -> [u32; 16] {
        chacha::block(&chacha::key(&self.seed), [index, 0, MARK, 0], self.double_rounds)
    }

    /// How many units so many bytes hold.
    pub fn units_for_bytes(bytes: u64) -> u32 {
        u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX)
    }
}

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Fresh random bytes of the checker.
    pub nonce: [u8; 32],
    /// How many walks side by side.
    pub walkers: u32,
    /// How many units each visits.
    pub steps: u32,
}

/// A walker: which unit it visits next, and what it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    place: u32,
    seen: [u32; 2],
}

impl Walk {
    /// A walker of a probe at its first unit.
    pub fn start(probe: &Probe, walker: u32, units: u32) -> Self {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(b"welkin/challenge/walk/1\0")
            .chain_update(probe.nonce)
            .chain_update(walker.to_be_bytes())
            .finalize()
            .into();
        let word = |from: usize| {
            u32::from_le_bytes([hash[from], hash[from + 1], hash[from + 2], hash[from + 3]])
        };
        Self { place: scaled(word(0), units), seen: [word(4), word(8)] }
    }

    /// A walker on its way, as a device gives it back.
    pub const fn on_its_way(place: u32, seen: [u32; 2]) -> Self {
        Self { place, seen }
    }

    /// What it has seen so far.
    pub const fn seen(&self) -> [u32; 2] {
        self.seen
    }

    /// The unit that it visits now.
    pub const fn place(&self) -> u32 {
        self.place
    }

    /// Takes in the unit that it visits.
    pub fn step(&mut self, unit: &[u32; 16], units: u32) {
        let [mut a, mut b] = self.seen;
        for pair in unit.chunks_exact(2) {
            a = a.rotate_left(5) ^ pair[0].wrapping_add(b);
            b = b.rotate_left(13) ^ pair[1].wrapping_add(a);
        }
        self.seen = [a, b];
        self.place = scaled(a ^ b.rotate_left(16), units);
    }
}

/// A word as a place below `units`: the high half of their product.
fn scaled(word: u32, units: u32) -> u32 {
    let [a, b, c, d, ..] = (u64::from(word) * u64::from(units)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Walks with units from `read`: memory on a device, or [`Fill::unit`].
pub fn walk(
    probe: &Probe,
    walker: u32,
    units: u32,
    mut read: impl FnMut(u32) -> [u32; 16],
) -> Walk {
    let mut walk = Walk::start(probe, walker, units);
    for _ in 0..probe.steps.min(STEPS_MAX) {
        let unit = read(walk.place);
        walk.step(&unit, units);
    }
    walk
}

/// Where all walks of a probe end.
pub fn answer(probe: &Probe, units: u32, mut read: impl FnMut(u32) -> [u32; 16]) -> Vec<Walk> {
    let walkers = 0..probe.walkers.min(WALKERS_MAX);
    walkers.map(|walker| walk(probe, walker, units, &mut read)).collect()
}

/// Whether there are the ends of all walks, and those chosen are what the seed says.
pub fn verify(fill: &Fill, probe: &Probe, ends: &[Walk], chosen: &[u32]) -> bool {
    let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    if count != probe.walkers || probe.walkers > WALKERS_MAX || fill.units == 0 {
        return false;
    }
    chosen.iter().all(|walker| {
        let end = usize::try_from(*walker).ok().and_then(|place| ends.get(place));
        end.is_some_and(|end| *end == walk(probe, *walker, fill.units, |place| fill.unit(place)))
    })
}

/// How a device's memory is asked for: what it is filled with, what a probe visits and by when.
///
/// ```
/// use welkin_check::challenge::residency::Session;
/// let session = Session::for_processor(1, 1 << 30);
/// // Memory answers in 20 ms; what is computed anew takes a third of a second.
/// assert!(session.is_in_time(30_000, 10_000));
/// assert!(!session.is_in_time(330_000, 10_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Units to fill.
    pub units: u32,
    /// Double rounds of a unit.
    pub double_rounds: u32,
    /// Walks side by side.
    pub walkers: u32,
    /// Of these one thread walks so many, one after the other.
    pub in_a_row: u32,
    /// Units that each visits.
    pub steps: u32,
    /// Walks that are computed again.
    pub chosen: u32,
    /// What a visit may take, in nanoseconds.
    pub visit_ns_max: u64,
    /// What everything else may take, in microseconds: waking threads, and a way that is longer than
    /// the least one.
    pub slack_us: u64,
}

/// Memory of a processor that is filled, at most.
const CPU_FILL_BYTES: u64 = 16 << 20;
/// The share of a GPU's memory that is filled, in percent: drivers and screens have some.
const GPU_FILL_PERCENT: u64 = 70;
/// Visits of one processor, one after the other.
const CPU_VISITS: u32 = 1 << 17;
/// Walks of one processor: the shorter they are the less a checker computes again, and the longer is the
/// answer, which comes within the time.
const IN_A_ROW_MIN: u32 = 16;
const IN_A_ROW_MAX: u32 = 64;
/// Walks of all, where that leaves each as many as it has at least.
const ENDS_MAX: u32 = 1 << 10;
/// The most processors that walk.
const CORES_MAX: u32 = 256;

impl Session {
    /// For a container of so many processors and no GPU: a small part of its memory, since filling
    /// costs its time. Units take 1 to 4 us to compute and 0.1 to 0.3 us to read.
    pub fn for_processor(cores: u32, memory_bytes: u64) -> Self {
        let bytes = CPU_FILL_BYTES.min(memory_bytes / 4);
        let cores = cores.clamp(1, CORES_MAX);
        let in_a_row = (ENDS_MAX / cores).clamp(IN_A_ROW_MIN, IN_A_ROW_MAX);
        Self {
            units: Fill::units_for_bytes(bytes).max(1),
            double_rounds: 128,
            walkers: in_a_row * cores,
            in_a_row,
            steps: CPU_VISITS / in_a_row,
            chosen: 3,
            visit_ns_max: 600,
            slack_us: 25_000,
        }
    }

    /// For a GPU: most of its memory. Its walkers go at once, so that the time is that of one; a GPU
    /// has longer latencies than a processor in both computing and reading.
    pub fn for_gpu(memory_bytes: u64) -> Self {
        Self {
            units: Fill::units_for_bytes(memory_bytes / 100 * GPU_FILL_PERCENT).max(1),
            walkers: 256,
            in_a_row: 1,
            steps: 65_536,
            visit_ns_max: 2_000,
            ..Self::for_processor(1, memory_bytes)
        }
    }

    /// What is filled, in MiB.
    pub const fn mib(&self) -> u32 {
        self.units >> 14
    }

    /// By when a probe must be answered, in microseconds, the way not counted.
    pub fn limit_us(&self) -> u64 {
        let visits = u64::from(self.in_a_row) * u64::from(self.steps);
        (visits.saturating_mul(self.visit_ns_max) / 1_000).saturating_add(self.slack_us)
    }

    /// Whether an answer came in time, with the least way that was observed.
    pub fn is_in_time(&self, took_us: u64, way_us: u64) -> bool {
        without_way(took_us, way_us) <= self.limit_us()
    }
}

/// How long a walk takes at least, in thousandths, where a share of the units (in basis points) is
/// missing and computing a unit takes `compute_ns` against `read_ns` for reading it.
pub fn slowdown_permille(missing_bp: u32, compute_ns: u64, read_ns: u64) -> u64 {
    let more = u64::from(missing_bp.min(10_000)).saturating_mul(compute_ns);
    1_000_u64.saturating_add(more / 10 / read_ns.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILL: Fill = Fill { seed: [3; 32], units: 1_000, double_rounds: 16 };
    const PROBE: Probe = Probe { nonce: [4; 32], walkers: 12, steps: 50 };

    #[test]
    fn memory_answers_as_the_seed_says_and_nothing_else_does() {
        let memory: Vec<_> = (0..FILL.units).map(|index| FILL.unit(index)).collect();
        let read = |place: u32| memory[usize::try_from(place).unwrap()];
        let ends = answer(&PROBE, FILL.units, read);
        assert!(verify(&FILL, &PROBE, &ends, &[0, 5, 11]));
        assert!(!verify(&FILL, &PROBE, &ends, &[12]));
        assert!(!verify(&FILL, &PROBE, &ends[1..], &[0]));
        let other = Fill { seed: [5; 32], ..FILL };
        assert!(!verify(&other, &PROBE, &ends, &[0]));
        let forged = answer(&PROBE, FILL.units, |_| [0; 16]);
        assert!(!verify(&FILL, &PROBE, &forged, &[3]));
    }

    /// A state from which somebody has walked before the probe was known leads nowhere else.
    #[test]
    fn what_was_walked_before_the_probe_is_no_answer_to_it() {
        let before = Probe { nonce: [9; 32], ..PROBE };
        let made = answer(&before, FILL.units, |place| FILL.unit(place));
        for walker in 0..PROBE.walkers {
            assert!(!verify(&FILL, &PROBE, &made, &[walker]));
        }
    }

    #[test]
    fn a_processor_visits_as_much_and_answers_as_briefly_however_many_there_are() {
        for (cores, walks) in [(0, 64), (1, 64), (16, 64), (17, 60), (64, 16), (256, 16), (999, 16)]
        {
            let session = Session::for_processor(cores, 1 << 40);
            assert_eq!(session.in_a_row, walks);
            let visits = session.in_a_row * session.steps;
            assert!(visits > CPU_VISITS - walks && visits <= CPU_VISITS, "{session:?}");
            assert!(session.walkers <= ENDS_MAX.max(16 * cores.min(256)), "{session:?}");
        }
    }

    #[test]
    fn walks_visit_everything_about_equally() {
        let mut visits = [0_u32; 10];
        let probe = Probe { walkers: 100, steps: 100, ..PROBE };
        answer(&probe, FILL.units, |place| {
            visits[usize::try_from(place / 100).unwrap()] += 1;
            FILL.unit(place)
        });
        assert!(visits.iter().all(|count| (850..1_150).contains(count)), "{visits:?}");
    }

    #[test]
    fn missing_memory_shows_in_time() {
        // Half of the memory, 2 us to compute against 0.6 us to read: 2.67 times as long.
        assert_eq!(slowdown_permille(5_000, 2_000, 600), 2_666);
        assert_eq!(slowdown_permille(0, 2_000, 600), 1_000);
    }
}
