//! Takes in what hosts announce, and forgets them.

use welkin_proto::{Capability, ContainerOffer};
use welkin_types::{AccountId, ContainerId, NodeId, UnixMillis};

use super::hosts::{Container, Host, WAYS, Words, words_of};
use super::rows::kind_of;
use super::seal::Seal;
use super::slab::NONE;
use super::{
    AnnounceRefusal, CONTAINERS_MAX, Fleet, HOST_BYTES_MAX, HOSTS_MAX, WORDS_BYTES_MAX, rows,
};

impl Fleet {
    /// Takes a host's announcement, which the caller has checked with [`Capability::check`], without
    /// what is needed to show it as it was signed.
    ///
    /// # Errors
    ///
    /// As [`Self::announce_signed`].
    pub fn announce(
        &mut self,
        now: UnixMillis,
        operator: AccountId,
        capability: Capability,
    ) -> Result<(), AnnounceRefusal> {
        self.announce_signed(now, operator, capability, &Seal::default())
    }

    /// Takes a host's announcement, which the caller has checked with [`Capability::check`], and its
    /// signatures.
    ///
    /// Until the first beat a container counts as free as far as it was before; a new one, wholly.
    ///
    /// # Errors
    ///
    /// [`AnnounceRefusal`] saying why not.
    pub fn announce_signed(
        &mut self,
        now: UnixMillis,
        operator: AccountId,
        capability: Capability,
        seal: &Seal,
    ) -> Result<(), AnnounceRefusal> {
        if capability.expires < now {
            return Err(AnnounceRefusal::Expired);
        }
        let containers = &capability.containers;
        if containers.len() > Capability::CONTAINERS_MAX {
            return Err(AnnounceRefusal::Bounds);
        }
        let is_repeated = |(place, offer): (usize, &ContainerOffer)| {
            containers[..place].iter().any(|other| other.id == offer.id)
        };
        if containers.iter().enumerate().any(is_repeated) {
            return Err(AnnounceRefusal::Repeated);
        }
        let node = capability.addr.node;
        let mut known = self.hosts.number(node);
        if let Some(number) = known
            && !self.hosts.hosts.get(number).is_some_and(|host| host.is_listed(now))
        {
            self.forget(number);
            known = None;
        }
        self.check_news(known, &capability)?;
        let (words, places) = words_of(&capability.addr, containers, seal.as_bytes())
            .map_err(|_| AnnounceRefusal::Long { bytes: usize::MAX })?;
        self.check_room(known, containers.len(), words.len())?;
        let number = match known {
            Some(number) => self.renew(number, operator, &capability),
            None => self.add(now, operator, &capability),
        };
        self.hosts.set_words(number, words);
        self.set_containers(number, containers, &places);
        if let Some(host) = self.hosts.hosts.get_mut(number) {
            host.heard = now;
        }
        self.write_host(now, number);
        self.arm(now, number);
        Ok(())
    }

    /// Whether an announcement is newer than the one that is known.
    fn check_news(
        &self,
        known: Option<u32>,
        capability: &Capability,
    ) -> Result<(), AnnounceRefusal> {
        let Some(host) = known.and_then(|number| self.hosts.hosts.get(number)) else {
            return Ok(());
        };
        // A host that lost its disk begins with revision 1 again: it has left before.
        let may_begin_anew = host.has_left || host.is_unconfirmed;
        if capability.issued < host.issued
            || (capability.revision < host.revision && !may_begin_anew)
        {
            let (known, given) = (host.revision, capability.revision);
            return Err(AnnounceRefusal::Outdated { known, given });
        }
        Ok(())
    }

    fn check_room(
        &self,
        known: Option<u32>,
        containers: usize,
        bytes: usize,
    ) -> Result<(), AnnounceRefusal> {
        if bytes > HOST_BYTES_MAX {
            return Err(AnnounceRefusal::Long { bytes });
        }
        let before = known.map_or(0, |number| self.hosts.numbers(number).len());
        if (known.is_none() && self.hosts.hosts.len() >= HOSTS_MAX)
            || self.hosts.containers.len() - before + containers > CONTAINERS_MAX
            || self.hosts.own_bytes + bytes > WORDS_BYTES_MAX
        {
            return Err(AnnounceRefusal::Full);
        }
        Ok(())
    }

    fn add(&mut self, now: UnixMillis, operator: AccountId, capability: &Capability) -> u32 {
        let host = Host {
            node: capability.addr.node,
            operator: self.operators.take(&operator),
            region: self.regions.take(&capability.region),
            revision: capability.revision,
            issued: capability.issued,
            expires: capability.expires,
            sequence: None,
            heard: now,
            due: u64::MAX,
            first: NONE,
            is_draining: false,
            has_left: false,
            is_unconfirmed: false,
            words: Words::Own(Box::default()),
        };
        self.hosts.insert(host)
    }

    /// The new announcement of a host that is known and listed.
    fn renew(&mut self, number: u32, operator: AccountId, capability: &Capability) -> u32 {
        let operator = self.operators.take(&operator);
        let region = self.regions.take(&capability.region);
        let Some(host) = self.hosts.hosts.get_mut(number) else { return number };
        self.operators.give_back(std::mem::replace(&mut host.operator, operator));
        self.regions.give_back(std::mem::replace(&mut host.region, region));
        host.revision = capability.revision;
        host.issued = capability.issued;
        host.expires = capability.expires;
        host.sequence = None;
        host.has_left = false;
        host.is_unconfirmed = false;
        number
    }

    /// Replaces a host's containers; those that it has again keep their numbers.
    fn set_containers(&mut self, host: u32, offers: &[ContainerOffer], places: &[(u32, u32)]) {
        let mut before = self.hosts.numbers(host);
        let mut first = NONE;
        for (offer, at) in offers.iter().zip(places).rev() {
            let again = before.iter().position(|number| {
                self.hosts.containers.get(*number).is_some_and(|known| known.id == offer.id)
            });
            let again = again.map(|place| before.swap_remove(place));
            first = self.set_container(host, offer, (*at, first), again);
        }
        before.into_iter().for_each(|number| self.forget_container(number));
        if let Some(host) = self.hosts.hosts.get_mut(host) {
            host.first = first;
        }
    }

    /// Adds a container, or renews the one that it was before.
    fn set_container(
        &mut self,
        host: u32,
        offer: &ContainerOffer,
        (at, next): ((u32, u32), u32),
        again: Option<u32>,
    ) -> u32 {
        let node = self.hosts.hosts.get(host).map_or(NodeId::from_bytes([0; 32]), |host| host.node);
        let (slots, kind) = (rows::small(offer.slots), self.kinds.take(&kind_of(offer)));
        let apps: Vec<_> = offer.apps.iter().map(|app| self.apps.take(app)).collect();
        let number = match again {
            Some(number) => {
                self.remove_rows(number);
                number
            }
            None => self.new_container(host, node, offer, slots),
        };
        if let Some(container) = self.hosts.containers.get_mut(number) {
            let before = std::mem::replace(&mut container.kind, kind);
            if before != NONE {
                self.kinds.give_back(before);
            }
            let apps = Some(apps.into_boxed_slice()).filter(|apps| !apps.is_empty());
            let before = std::mem::replace(&mut container.apps, apps).unwrap_or_default();
            before.iter().for_each(|app| self.apps.give_back(*app));
            (container.at, container.next, container.slots) = (at, next, slots);
            container.free = container.free.min(slots);
            container.spot_used = container.spot_used.min(slots - container.free);
            container.is_said = false;
        }
        self.insert_rows(number, offer);
        number
    }

    fn new_container(
        &mut self,
        host: u32,
        node: NodeId,
        offer: &ContainerOffer,
        slots: u16,
    ) -> u32 {
        let kept = self.holds.of(node, offer.id).count();
        let container = Container {
            id: offer.id,
            host,
            next: NONE,
            rows: [NONE; WAYS],
            kind: NONE,
            at: (0, 0),
            score: self.scores.number(node, offer.id).unwrap_or(NONE),
            apps: None,
            slots,
            free: slots,
            spot_used: 0,
            kept: u16::try_from(kept).unwrap_or(u16::MAX),
            quality: 0,
            online_bp: None,
            checks: 0,
            is_said: false,
        };
        self.hosts.containers.insert(container)
    }

    fn forget_container(&mut self, number: u32) {
        self.remove_rows(number);
        if let Some(container) = self.hosts.containers.remove(number) {
            self.kinds.give_back(container.kind);
            let apps = container.apps.unwrap_or_default();
            apps.iter().for_each(|app| self.apps.give_back(*app));
        }
    }

    /// Forgets a host. Its holds end in their time, and its scores are kept for when it is back.
    pub(super) fn forget(&mut self, number: u32) {
        for container in self.hosts.numbers(number) {
            self.forget_container(container);
        }
        if let Some(host) = self.hosts.remove(number) {
            self.operators.give_back(host.operator);
            self.regions.give_back(host.region);
        }
    }

    /// A container's score is gone.
    pub(super) fn forget_score(&mut self, now: UnixMillis, node: NodeId, id: ContainerId) {
        let Some(host) = self.hosts.number(node).and_then(|number| self.hosts.hosts.get(number))
        else {
            return;
        };
        let Some((place, _)) = self.hosts.container(host, id) else { return };
        if let Some(container) = self.hosts.containers.get_mut(place) {
            container.score = NONE;
        }
        self.write_rows(now, place);
    }
}
