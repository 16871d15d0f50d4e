//! An index as bytes, and back: what an indexer keeps so that it answers at once after a restart.
//!
//! A header, 40 bytes for each number of a container in use or vacant, the vacant numbers in the
//! order of their use, further applications, and a checksum over all. Integers are little-endian.
//! Holds are not kept, for they end within seconds: the slots they kept count as free, as the
//! hosts reported them. The lists are built again from the records.
//!
//! The checksum finds torn and decayed bytes; it doesn't show who wrote them. Whatever bytes come,
//! they are refused or give an index that holds its invariants, in memory bounded by their number.

use std::collections::BTreeMap;

use super::row::{
    APPS_PER_ROW_MAX, CLASSES_MAX, Features, LOCATIONS_MAX, NO_APP, PRICE_MAX, QUALITY_MAX,
    ROWS_MAX, Record, SLOTS_MAX,
};
use super::{Index, VACANT};
use crate::checksum::sum_of;

/// How the bytes begin; the last two are the version.
const MAGIC: [u8; 8] = *b"wk-idx\0\x01";
const HEADER_BYTES: usize = 8 + 4 * 8;
const RECORD_BYTES: usize = 40;
const SUM_BYTES: usize = 8;

/// Why bytes are not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// They begin otherwise, or are of another version.
    #[error("these bytes are no index of this version: start empty, hosts announce again")]
    Alien,
    /// Some are missing or too many.
    #[error("an index of {expected} bytes has {given}: it was torn, start empty")]
    Length {
        /// How many there are.
        given: usize,
        /// How many there should be.
        expected: usize,
    },
    /// They are not those that were written.
    #[error("the checksum differs: the bytes have decayed, start empty")]
    Sum,
    /// They were written as they are, and make no sense.
    #[error("the {what} of container {row} makes no sense: start empty")]
    Invalid {
        /// What makes no sense.
        what: &'static str,
        /// The number of the container.
        row: usize,
    },
}

impl Index {
    /// Appends the index as bytes that [`Index::load`] reads: 40 for each container, and a
    /// few more for those with several applications.
    pub fn dump(&self, bytes: &mut Vec<u8>) {
        let begin = bytes.len();
        let more: usize = self.more_apps.values().map(|apps| 4 + 2 + 2 * apps.len()).sum();
        let length = HEADER_BYTES
            + self.records.len() * RECORD_BYTES
            + self.vacant.len() * size_of::<u32>()
            + more;
        bytes.reserve(length + SUM_BYTES);
        bytes.extend_from_slice(&MAGIC);
        for number in [self.records.len(), self.vacant.len(), more] {
            bytes.extend_from_slice(&(number as u64).to_le_bytes());
        }
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        for (row, record) in (0_u32..).zip(&self.records) {
            let free = self.holds.reported_by(row).unwrap_or(record.free);
            bytes.extend_from_slice(&bytes_of(&Record { free, ..*record }));
        }
        self.vacant.iter().for_each(|row| bytes.extend_from_slice(&row.to_le_bytes()));
        for (row, apps) in &self.more_apps {
            bytes.extend_from_slice(&row.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(apps.len()).unwrap_or(0).to_le_bytes());
            apps.iter().for_each(|app| bytes.extend_from_slice(&app.to_le_bytes()));
        }
        let sum = sum_of(0, &bytes[begin..]);
        bytes.extend_from_slice(&sum.to_le_bytes());
    }

    /// Reads what [`Index::dump`] wrote: containers keep their numbers, and searches find what
    /// they found.
    ///
    /// ```
    /// use welkin_match::index::{Index, Search};
    /// use welkin_match::synth::Fleet;
    /// let index = Index::build(Fleet::new(7).take(100)).unwrap();
    /// let mut bytes = Vec::new();
    /// index.dump(&mut bytes);
    /// let again = Index::load(&bytes).unwrap();
    /// assert_eq!(again.find(&Search::ANY), index.find(&Search::ANY));
    /// assert!(Index::load(&bytes[1..]).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`] for bytes that are torn, decayed, or another's.
    pub fn load(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut parts = parts_of(bytes)?;
        let records: Vec<_> = parts.records.map(record_of).collect();
        let mut here = 0;
        for (row, record) in records.iter().enumerate() {
            if let Some(what) = wrong_with(record) {
                return Err(LoadError::Invalid { what, row });
            }
            here += usize::from(record.location != VACANT);
        }
        let mut is_vacant = vec![false; records.len()];
        for row in &parts.vacant {
            let place = *row as usize;
            let is_gone = records.get(place).is_some_and(|record| record.location == VACANT);
            if !is_gone || std::mem::replace(&mut is_vacant[place], true) {
                return Err(LoadError::Invalid { what: "vacancy", row: place });
            }
        }
        if here + parts.vacant.len() != records.len() {
            return Err(LoadError::Invalid { what: "number of vacancies", row: records.len() });
        }
        let more_apps = more_apps_of(&mut parts.more, &records)?;
        let vacant = parts.vacant;
        let mut index = Self { records, vacant, more_apps, epoch: parts.epoch, ..Self::default() };
        index.list_all();
        Ok(index)
    }
}

struct Parts<'a> {
    epoch: u64,
    records: std::slice::Iter<'a, [u8; RECORD_BYTES]>,
    vacant: Vec<u32>,
    more: &'a [u8],
}

/// Tells the parts apart, if they are as they were written.
fn parts_of(bytes: &[u8]) -> Result<Parts<'_>, LoadError> {
    let given = bytes.len();
    if bytes.first_chunk() != Some(&MAGIC) {
        return Err(LoadError::Alien);
    }
    let least = HEADER_BYTES + SUM_BYTES;
    let torn = |expected| LoadError::Length { given, expected };
    let number = |place: usize| {
        let (number, _) = bytes.get(8 + 8 * place..)?.split_first_chunk()?;
        Some(u64::from_le_bytes(*number))
    };
    let length = |place: usize| usize::try_from(number(place)?).ok();
    let (Some(count), Some(vacant), Some(more)) = (length(0), length(1), length(2)) else {
        return Err(torn(least));
    };
    let (Some(body), Some((_, sum))) =
        (bytes.get(HEADER_BYTES..given.saturating_sub(SUM_BYTES)), bytes.split_last_chunk())
    else {
        return Err(torn(least));
    };
    let expected = count
        .saturating_mul(RECORD_BYTES)
        .saturating_add(vacant.saturating_mul(size_of::<u32>()))
        .saturating_add(more)
        .saturating_add(least);
    if expected != given || count > ROWS_MAX {
        return Err(torn(expected));
    }
    if sum_of(0, &bytes[..given - SUM_BYTES]) != u64::from_le_bytes(*sum) {
        return Err(LoadError::Sum);
    }
    let (records, rest) = body.split_at(count * RECORD_BYTES);
    let (vacant, more) = rest.split_at(vacant * size_of::<u32>());
    Ok(Parts {
        epoch: number(3).unwrap_or(0),
        records: records.as_chunks().0.iter(),
        vacant: vacant.as_chunks().0.iter().map(|row| u32::from_le_bytes(*row)).collect(),
        more,
    })
}

fn more_apps_of(
    bytes: &mut &[u8],
    records: &[Record],
) -> Result<BTreeMap<u32, Vec<u16>>, LoadError> {
    let mut all = BTreeMap::new();
    while !bytes.is_empty() {
        let invalid =
            |row: u32| LoadError::Invalid { what: "list of applications", row: row as usize };
        let (row, rest) = bytes.split_first_chunk().ok_or(invalid(u32::MAX))?;
        let row = u32::from_le_bytes(*row);
        let (length, rest) = rest.split_first_chunk().ok_or(invalid(row))?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (apps, rest) = rest.split_at_checked(2 * length).ok_or(invalid(row))?;
        let apps: Vec<_> = apps.as_chunks().0.iter().map(|app| u16::from_le_bytes(*app)).collect();
        let record = records.get(row as usize).filter(|record| record.location != VACANT);
        let first = record.ok_or(invalid(row))?.app;
        let rises = std::iter::once(&first).chain(&apps).is_sorted_by(|a, b| a < b);
        let has_none = apps.last().is_none_or(|app| *app == NO_APP);
        let is_after = all.last_key_value().is_none_or(|(last, _)| *last < row);
        if !rises || has_none || !is_after || length >= APPS_PER_ROW_MAX {
            return Err(invalid(row));
        }
        all.insert(row, apps);
        *bytes = rest;
    }
    Ok(all)
}

/// What of a record is out of bounds.
fn wrong_with(record: &Record) -> Option<&'static str> {
    let is_vacant = record.location == VACANT;
    [
        ("price", record.price <= PRICE_MAX),
        ("location", usize::from(record.location) < LOCATIONS_MAX || is_vacant),
        ("class", usize::from(record.class) < CLASSES_MAX - 1),
        ("online score", record.quality <= QUALITY_MAX),
        ("number of free slots", record.free <= SLOTS_MAX && (record.free == 0 || !is_vacant)),
        ("application", record.app == NO_APP || !is_vacant),
    ]
    .into_iter()
    .find_map(|(what, is_right)| (!is_right).then_some(what))
}

fn bytes_of(record: &Record) -> [u8; RECORD_BYTES] {
    let words = [
        record.price,
        record.ring,
        record.host,
        record.operator,
        record.memory,
        record.disk,
        record.features.0,
        pair(record.cpu, record.quality),
        pair(record.free, record.seen),
        pair(record.app, u16::from_le_bytes([record.class, record.location])),
    ];
    let mut bytes = [0; RECORD_BYTES];
    let (places, _) = bytes.as_chunks_mut();
    places.iter_mut().zip(words).for_each(|(place, word)| *place = word.to_le_bytes());
    bytes
}

fn record_of(bytes: &[u8; RECORD_BYTES]) -> Record {
    let (words, _) = bytes.as_chunks();
    let word = |place: usize| u32::from_le_bytes(words[place]);
    let half = |place: usize| u16::from_le_bytes([bytes[place], bytes[place + 1]]);
    Record {
        price: word(0),
        ring: word(1),
        host: word(2),
        operator: word(3),
        memory: word(4),
        disk: word(5),
        features: Features(word(6)),
        cpu: half(28),
        quality: half(30),
        free: half(32),
        seen: half(34),
        app: half(36),
        class: bytes[38],
        location: bytes[39],
    }
}

const fn pair(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}
