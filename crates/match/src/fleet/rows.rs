//! The containers as rows of the index, written as soon as something changes.
//!
//! A kind of hardware or a region whose number is too large for the index shares a row number with
//! others like it. What is found is compared with what was announced, so that costs time only.

use welkin_proto::ContainerOffer;
use welkin_types::{CapacityType, Feature, UnixMillis};

use super::hosts::{Host, Kind, WAYS};
use super::slab::NONE;
use super::{Fleet, UNCONFIRMED_CUT_BP};
use crate::index::{APPS_MAX, Features, PRICE_MAX, Row, RowId, SLOTS_MAX, ring_of};

/// The class and the location that others share.
pub(crate) const OTHER_CLASS: u8 = 254;
pub(crate) const OTHER_LOCATION: u8 = 127;

/// The ways of leasing, in the order of a container's rows, and the feature that tells each.
pub(crate) const CAPACITIES: [(CapacityType, Features); WAYS] = [
    (CapacityType::OnDemand, Features::ON_DEMAND),
    (CapacityType::Spot, Features::SPOT),
    (CapacityType::Reserved, Features::RESERVED),
];

impl Fleet {
    /// Puts a container into the index, with nothing free: a row for each way of leasing it.
    pub(super) fn insert_rows(&mut self, number: u32, offer: &ContainerOffer) {
        let Some(container) = self.hosts.containers.get(number) else { return };
        let Some(host) = self.hosts.hosts.get(container.host) else { return };
        let apps = container.apps.as_deref().unwrap_or_default().iter();
        let row = Row {
            host: container.host,
            operator: host.operator,
            class: class_of(container.kind),
            location: location_of(host.region),
            apps: apps.filter_map(|app| app_of(*app)).collect(),
            ..row_of(host, offer)
        };
        let mut rows = [NONE; WAYS];
        for (place, (capacity, feature)) in rows.iter_mut().zip(CAPACITIES) {
            let Some(price) = offer.price_of(capacity) else { continue };
            let price = price_of(price.hour().micros());
            let row = Row { price, features: row.features | feature, ..row.clone() };
            // A row within bounds is refused only where the index is full.
            if let Ok(row) = self.index.insert(&row) {
                *place = row.number();
                self.own_row(row, number);
            }
        }
        if let Some(container) = self.hosts.containers.get_mut(number) {
            (container.rows, container.quality) = (rows, 0);
        }
    }

    pub(super) fn own_row(&mut self, row: RowId, container: u32) {
        let place = row.number() as usize;
        if self.owners.len() <= place {
            self.owners.resize(place + 1, NONE);
        }
        self.owners[place] = container;
    }

    /// Takes a container out of the index.
    pub(super) fn remove_rows(&mut self, number: u32) {
        let Some(container) = self.hosts.containers.get_mut(number) else { return };
        for row in std::mem::replace(&mut container.rows, [NONE; WAYS]) {
            if row != NONE {
                self.index.remove(RowId(row));
                self.owners[row as usize] = NONE;
            }
        }
    }

    /// Tells the index how a container stands.
    pub(crate) fn write_rows(&mut self, now: UnixMillis, number: u32) {
        let Some(container) = self.hosts.containers.get(number) else { return };
        let Some(host) = self.hosts.hosts.get(container.host) else { return };
        let quality = self.quality(now, host, container);
        let has_other_quality = quality != container.quality;
        let rows = container.rows;
        let free = CAPACITIES.map(|(way, _)| self.free(now, (host, container), (None, way)));
        for (row, free) in rows.into_iter().zip(free).filter(|(row, _)| *row != NONE) {
            if has_other_quality {
                self.index.set_quality(RowId(row), quality);
            }
            self.index.beat(RowId(row), now.0 / 1_000, small(free));
        }
        if has_other_quality && let Some(container) = self.hosts.containers.get_mut(number) {
            container.quality = quality;
        }
    }

    /// Tells the index how all containers of a host stand.
    pub(super) fn write_host(&mut self, now: UnixMillis, host: u32) {
        let Some(known) = self.hosts.hosts.get(host) else { return };
        let mut next = known.first;
        while let Some(container) = self.hosts.containers.get(next) {
            let number = std::mem::replace(&mut next, container.next);
            self.write_rows(now, number);
        }
    }

    /// The online score as it counts in a search: of a host that was not heard since a restart a
    /// little less.
    pub(super) fn quality(
        &self,
        now: UnixMillis,
        host: &Host,
        container: &super::hosts::Container,
    ) -> u16 {
        let online = self.score_of(now, container).0.unwrap_or(0);
        if host.is_unconfirmed { online.saturating_sub(UNCONFIRMED_CUT_BP) } else { online }
    }
}

/// A container's own part of its row. Sizes are rounded down, as they are in a search.
fn row_of(host: &Host, offer: &ContainerOffer) -> Row {
    let has = &offer.resources;
    Row {
        host: NONE,
        operator: NONE,
        class: OTHER_CLASS,
        location: OTHER_LOCATION,
        price: price_of(offer.price.hour().micros()),
        quality: 0,
        free: 0,
        cpu: cpu_of(has.cpu_milli),
        memory: memory_of(has.memory_bytes),
        disk: disk_of(has.disk_bytes),
        features: features_of(offer),
        ring: ring_of(&[host.node.as_bytes(), offer.id.as_bytes()]),
        apps: Vec::new(),
    }
}

fn features_of(offer: &ContainerOffer) -> Features {
    let features = offer.features.iter().map(|feature| feature_of(*feature));
    let driver = offer.driver.map_or(Features::default(), Features::driver);
    features.fold(Features::isolation(offer.tier) | driver, |all, feature| all | feature)
}

/// A feature as the index knows it.
pub(crate) const fn feature_of(feature: Feature) -> Features {
    match feature {
        Feature::H264 => Features::NVENC,
        Feature::Hevc => Features::HEVC,
        Feature::Av1 => Features::AV1,
        Feature::Fabric => Features::FABRIC,
        Feature::Attested => Features::ATTESTED,
        Feature::GpuConfidential => Features::GPU_CONFIDENTIAL,
        Feature::Direct => Features::DIRECT,
        Feature::Ipv6 => Features::IPV6,
        Feature::Windows => Features::WINDOWS,
    }
}

/// The application that is ready nowhere.
pub(crate) const NO_APP: u16 = u16::MAX - 1;
const _: () = assert!(NO_APP as usize == APPS_MAX - 1);

/// An application's number in the index. Of more than it has numbers for nothing is known.
pub(crate) fn app_of(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|app| *app < NO_APP)
}

/// The class of a kind of hardware.
pub(crate) fn class_of(kind: u32) -> u8 {
    u8::try_from(kind).map_or(OTHER_CLASS, |class| class.min(OTHER_CLASS))
}

/// The location of a region.
pub(crate) fn location_of(region: u32) -> u8 {
    u8::try_from(region).map_or(OTHER_LOCATION, |location| location.min(OTHER_LOCATION))
}

pub(super) fn kind_of(offer: &ContainerOffer) -> Kind {
    Kind::of(&offer.resources)
}

/// Slots as the index counts them.
pub(crate) fn small(slots: u32) -> u16 {
    u16::try_from(slots).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
}

/// A price as the index counts, at most its highest.
pub(crate) fn price_of(micros: u64) -> u32 {
    u32::try_from(micros).unwrap_or(PRICE_MAX).min(PRICE_MAX)
}

/// Whole hundredths of a core.
pub(crate) fn cpu_of(milli: u32) -> u16 {
    u16::try_from(milli / 10).unwrap_or(u16::MAX)
}

/// Whole pages of 64 KiB.
pub(crate) fn memory_of(bytes: u64) -> u32 {
    u32::try_from(bytes >> 16).unwrap_or(u32::MAX)
}

/// Whole MiB.
pub(crate) fn disk_of(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}
