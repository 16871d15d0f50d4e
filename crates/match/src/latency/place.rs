//! Where regions are: great circles, in integers.

use welkin_types::Region;

use crate::synth::SITES;

/// A point of the globe, in tenths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// To the north.
    pub latitude: i32,
    /// To the east.
    pub longitude: i32,
}

/// Kilometres, twice the radius of the earth.
const DIAMETER_KM: i64 = 12_742;
/// One, of sines.
const ONE: i64 = 1_000_000;

/// Sines of whole degrees, in millionths.
const SINES: [i64; 91] = [
    0, 17_452, 34_899, 52_336, 69_756, 87_156, 104_528, 121_869, 139_173, 156_434, 173_648,
    190_809, 207_912, 224_951, 241_922, 258_819, 275_637, 292_372, 309_017, 325_568, 342_020,
    358_368, 374_607, 390_731, 406_737, 422_618, 438_371, 453_990, 469_472, 484_810, 500_000,
    515_038, 529_919, 544_639, 559_193, 573_576, 587_785, 601_815, 615_661, 629_320, 642_788,
    656_059, 669_131, 681_998, 694_658, 707_107, 719_340, 731_354, 743_145, 754_710, 766_044,
    777_146, 788_011, 798_636, 809_017, 819_152, 829_038, 838_671, 848_048, 857_167, 866_025,
    874_620, 882_948, 891_007, 898_794, 906_308, 913_545, 920_505, 927_184, 933_580, 939_693,
    945_519, 951_057, 956_305, 961_262, 965_926, 970_296, 974_370, 978_148, 981_627, 984_808,
    987_688, 990_268, 992_546, 994_522, 996_195, 997_564, 998_630, 999_391, 999_848, 1_000_000,
];

/// The sine of tenths of a degree, in millionths.
fn sine(tenths: i32) -> i64 {
    let turned = tenths.rem_euclid(3_600);
    let (sign, half) = if turned >= 1_800 { (-1, turned - 1_800) } else { (1, turned) };
    let quarter = if half > 900 { 1_800 - half } else { half };
    let at = usize::try_from(quarter / 10).unwrap_or(0).min(90);
    let (low, high) = (SINES[at], SINES[(at + 1).min(90)]);
    sign * (low + (high - low) * i64::from(quarter % 10) / 10)
}

/// The angle of a sine, in thousandths of a degree, from 0 to 90 degrees.
fn angle(sine: i64) -> i64 {
    let at = SINES.partition_point(|known| *known <= sine).clamp(1, 90);
    let (low, high) = (SINES[at - 1], SINES[at]);
    let degrees = i64::try_from(at).unwrap_or(90) - 1;
    degrees * 1_000 + ((sine - low) * 1_000 / (high - low).max(1)).clamp(0, 1_000)
}

impl Place {
    /// A unit vector, in millionths.
    fn vector(self) -> [i64; 3] {
        let cosine = sine(self.latitude + 900);
        let along = |part: i64| cosine * part / ONE;
        [along(sine(self.longitude + 900)), along(sine(self.longitude)), sine(self.latitude)]
    }

    /// Kilometres along the globe to another place.
    pub fn distance_km(self, other: Self) -> u32 {
        let apart = self.vector().into_iter().zip(other.vector()).map(|(a, b)| (a - b) * (a - b));
        // The chord is twice the sine of half the angle.
        let chord = apart.sum::<i64>().unsigned_abs().isqrt();
        let half = angle(i64::try_from(chord / 2).unwrap_or(ONE).min(ONE));
        // Half the angle in thousandths of a degree times the diameter is the arc: pi / 180,000.
        u32::try_from(half * DIAMETER_KM * 3_141_593 / 180_000 / ONE).unwrap_or(u32::MAX)
    }
}

/// Where a region is, if it is in the table.
pub fn place_of(region: &Region) -> Option<Place> {
    let site = SITES.iter().find(|site| site.name == region.as_str())?;
    Some(Place { latitude: site.latitude, longitude: site.longitude })
}

/// The names of all regions in the table.
pub fn regions() -> impl Iterator<Item = &'static str> {
    SITES.iter().map(|site| site.name)
}
