//! A container as the index knows it, and the numbers by which containers are told apart.

use welkin_types::Tier;

/// The most hardware kinds in one index.
pub const CLASSES_MAX: usize = 256;
/// The most locations in one index.
pub const LOCATIONS_MAX: usize = 128;
/// The most containers in one index; more are another region's.
pub const ROWS_MAX: usize = 1 << 26;
/// The most applications that are known by number.
pub const APPS_MAX: usize = u16::MAX as usize;
/// The most applications that are ready on one container.
pub const APPS_PER_ROW_MAX: usize = 16;
/// The highest price: micro-dollars an hour, a little over 1 073 dollars. Two of them together are
/// still a number of 32 bits with a sign, which is what processors compare best.
pub const PRICE_MAX: u32 = (1 << 30) - 1;
/// The best quality: hundredths of a percent.
pub const QUALITY_MAX: u16 = 10_000;
/// The most slots of one container.
pub const SLOTS_MAX: u16 = 4_096;

/// A container's number in its index; used again after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId(pub(crate) u32);

impl RowId {
    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What a container has beyond sizes: a set of properties and the driver's branch.
///
/// ```
/// use welkin_match::index::Features;
/// use welkin_types::Tier;
/// let has = Features::isolation(Tier::Vm) | Features::NVENC | Features::driver(550);
/// assert!(has.meets(Features::at_least(Tier::Sandbox) | Features::driver(535)));
/// assert!(!has.meets(Features::driver(560)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Features(pub(crate) u32);

impl Features {
    /// Encodes H.264 in hardware.
    pub const NVENC: Self = Self(1 << 4);
    /// Encodes HEVC in hardware.
    pub const HEVC: Self = Self(1 << 5);
    /// Encodes AV1 in hardware.
    pub const AV1: Self = Self(1 << 6);
    /// Its GPUs are joined by a fabric.
    pub const FABRIC: Self = Self(1 << 7);
    /// The host's boot is attested.
    pub const ATTESTED: Self = Self(1 << 8);
    /// GPU memory is closed to the host, attested.
    pub const GPU_CONFIDENTIAL: Self = Self(1 << 9);
    /// Reachable without a relay.
    pub const DIRECT: Self = Self(1 << 10);
    /// Reachable over IPv6.
    pub const IPV6: Self = Self(1 << 11);
    /// Runs Windows guests.
    pub const WINDOWS: Self = Self(1 << 12);
    /// Leased until its buyer ends it.
    pub const ON_DEMAND: Self = Self(1 << 13);
    /// Leased below the price of others and taken back with notice.
    pub const SPOT: Self = Self(1 << 14);
    /// Leased for a term.
    pub const RESERVED: Self = Self(1 << 15);

    /// Where the driver's number stands.
    const DRIVER_SHIFT: u32 = 26;
    const SET: u32 = (1 << Self::DRIVER_SHIFT) - 1;

    /// What a container of this tier has. Below [`Tier::Container`] it is nothing, and a search
    /// asks for [`Tier::Container`] at least.
    pub const fn isolation(tier: Tier) -> Self {
        Self(match tier {
            Tier::None | Tier::Process => 0,
            Tier::Container => 0b1,
            Tier::Sandbox => 0b11,
            Tier::Vm => 0b111,
            Tier::Confidential => 0b1111,
        })
    }

    /// What is asked of a container that must reach this tier.
    pub const fn at_least(tier: Tier) -> Self {
        Self(match tier {
            Tier::None | Tier::Process | Tier::Container => 0b1,
            Tier::Sandbox => 0b10,
            Tier::Vm => 0b100,
            Tier::Confidential => 0b1000,
        })
    }

    /// The driver's branch, as 550: what a container has, or the least that is asked for. Branches
    /// count in steps of five from 450 to 765.
    pub const fn driver(branch: u16) -> Self {
        let steps = branch.saturating_sub(450) / 5;
        let steps = if steps > 63 { 63 } else { steps as u32 };
        Self(steps << Self::DRIVER_SHIFT)
    }

    /// The properties as bits, the driver's branch from bit 26 on.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What [`Features::bits`] gave.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// These without others. The driver's branch stays.
    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !(others.0 & Self::SET))
    }

    /// Whether a container with these has what is asked for.
    pub const fn meets(self, asked: Self) -> bool {
        let set = asked.0 & Self::SET;
        (self.0 & set) == set && (self.0 >> Self::DRIVER_SHIFT) >= (asked.0 >> Self::DRIVER_SHIFT)
    }
}

impl std::ops::BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A container, as it is put into an index.
///
/// Sizes are whole units, rounded down for a container and up for a search, so that what is found
/// always suffices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The host's number.
    pub host: u32,
    /// The operator's number.
    pub operator: u32,
    /// The hardware kind's number.
    pub class: u8,
    /// The location's number, below [`LOCATIONS_MAX`].
    pub location: u8,
    /// Micro-dollars an hour, at most [`PRICE_MAX`].
    pub price: u32,
    /// The online score in hundredths of a percent, at most [`QUALITY_MAX`].
    pub quality: u16,
    /// Free slots, at most [`SLOTS_MAX`].
    pub free: u16,
    /// Hundredths of a core.
    pub cpu: u16,
    /// Memory in pages of 64 KiB.
    pub memory: u32,
    /// Scratch space in MiB.
    pub disk: u32,
    /// What else it has.
    pub features: Features,
    /// Its place on the ring by which ties are broken: see [`ring_of`](super::ring_of).
    pub ring: u32,
    /// Applications and images that are ready on it, at most [`APPS_PER_ROW_MAX`].
    pub apps: Vec<u16>,
}

/// What is kept of a container, free or not: 40 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) price: u32,
    pub(crate) ring: u32,
    pub(crate) host: u32,
    pub(crate) operator: u32,
    pub(crate) memory: u32,
    pub(crate) disk: u32,
    pub(crate) features: Features,
    pub(crate) cpu: u16,
    pub(crate) quality: u16,
    /// Free slots that no hold keeps.
    pub(crate) free: u16,
    /// The second of its last beat, as far as 16 bits go.
    pub(crate) seen: u16,
    /// Its first application, or [`NO_APP`], or [`GONE`].
    pub(crate) app: u16,
    pub(crate) class: u8,
    pub(crate) location: u8,
}

/// No application.
pub(crate) const NO_APP: u16 = u16::MAX;

/// A free container in a list that a search reads: all that most searches must know, so that
/// a record is read only where it is chosen. 24 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) price: u32,
    pub(crate) ring: u32,
    pub(crate) row: u32,
    pub(crate) features: Features,
    pub(crate) quality: u16,
    pub(crate) free: u16,
    pub(crate) sizes: Sizes,
    pub(crate) class: u8,
    /// A print of its applications: 0 for none, [`MANY_APPS`] for several.
    pub(crate) apps: u8,
}

/// The print of a container on which several applications are ready.
pub(crate) const MANY_APPS: u8 = u8::MAX;

/// The print of one application; different ones rarely share it.
pub(crate) const fn print_of(app: u16) -> u8 {
    (app % 253) as u8 + 1
}

/// The print of a container on which this application is ready, and perhaps more.
pub(crate) const fn print_with(app: u16, has_more: bool) -> u8 {
    match app {
        NO_APP => 0,
        _ if has_more => MANY_APPS,
        _ => print_of(app),
    }
}

impl Record {
    /// The record of a container of which nothing is free yet.
    pub(crate) const fn new(row: &Row, app: u16) -> Self {
        Self {
            price: row.price,
            ring: row.ring,
            host: row.host,
            operator: row.operator,
            memory: row.memory,
            disk: row.disk,
            features: row.features,
            cpu: row.cpu,
            quality: row.quality,
            free: 0,
            seen: 0,
            app,
            class: row.class,
            location: row.location,
        }
    }

    pub(crate) const fn entry(&self, row: u32, apps: u8) -> Entry {
        Entry {
            price: self.price,
            ring: self.ring,
            row,
            features: self.features,
            quality: self.quality,
            free: self.free,
            sizes: Sizes::of(self.cpu, self.memory, self.disk),
            class: self.class,
            apps,
        }
    }
}

impl Entry {
    /// Its place in a list: cheap first, then good, then nearly full, then by the ring.
    pub(crate) const fn key(&self) -> u128 {
        let ring = (self.ring as u128) << 32 | self.row as u128;
        (self.group() as u128) << 64 | ring
    }

    /// The part of the key on which costs depend.
    pub(crate) const fn group(&self) -> u64 {
        let merit = (u16::MAX - self.quality) as u64;
        (self.price as u64) << 32 | merit << 16 | self.free as u64
    }
}

/// Processor, memory and disk in steps of half an octave, 5 bits each.
///
/// A larger step surely suffices and a smaller one surely does not; within the same step the
/// record decides, unless what is asked for is the step's least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes(pub(crate) u16);

/// How many units make half of what the steps begin with, as a fraction: an eighth of a core,
/// 128 MiB, 256 MiB.
const HALVES: [(u32, u32); 3] = [(25, 4), (1_024, 1), (128, 1)];

impl Sizes {
    pub(crate) const fn of(cpu: u16, memory: u32, disk: u32) -> Self {
        let [a, b, c] = HALVES;
        Self(step(cpu as u32, a) | step(memory, b) << 5 | step(disk, c) << 10)
    }

    /// The three steps.
    pub(crate) const fn steps(self) -> [u16; 3] {
        [self.0 & 31, self.0 >> 5 & 31, self.0 >> 10 & 31]
    }

    /// For each size whether containers of the same step may be too small.
    pub(crate) const fn are_vague(cpu: u16, memory: u32, disk: u32) -> [bool; 3] {
        let [a, b, c] = HALVES;
        [is_vague(cpu as u32, a), is_vague(memory, b), is_vague(disk, c)]
    }
}

const fn is_vague(size: u32, half: (u32, u32)) -> bool {
    size > 0 && step(size, half) == step(size - 1, half)
}

/// The half octave of `size`, from 0 to 31.
const fn step(size: u32, (units, of): (u32, u32)) -> u16 {
    let halves = size as u64 * of as u64 / units as u64;
    if halves < 2 {
        return 0;
    }
    let octave = halves.ilog2() - 1;
    let step = 1 + 2 * octave + ((halves >> octave) & 1) as u32;
    if step > 31 { 31 } else { (step & 31) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_with_sizes_and_common_sizes_are_not_vague() {
        let mut last = 0;
        for size in 0..200_000 {
            let step = step(size, HALVES[0]);
            assert!(step == last || step == last + 1, "{size}");
            last = step;
        }
        assert_eq!(step(u32::MAX, HALVES[0]), 31);
        // Gibibytes that are powers of two, and three halves of them.
        for gib in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256] {
            assert_eq!(Sizes::are_vague(0, gib << 14, gib << 10), [false; 3], "{gib}");
        }
        for cores in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64] {
            assert!(!Sizes::are_vague(cores * 100, 0, 0)[0], "{cores}");
        }
        assert_eq!(Sizes::are_vague(1_000, 5 << 14, 5 << 10), [true; 3]);
    }

    #[test]
    fn records_and_entries_are_small() {
        assert_eq!((size_of::<Record>(), size_of::<Entry>()), (40, 24));
    }
}
