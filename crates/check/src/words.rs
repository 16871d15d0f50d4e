//! What hosts have signed of themselves, which is all that a checker believes of where they are and
//! what they have.
//!
//! A row of an indexer's list is the indexer's word. It is believed where it says what the host's key
//! has signed, and of two signed words the newer counts, whoever shows it: so an indexer that shows an
//! older one, or one of its own making, changes nothing. How many slots are free, no host signs.
//!
//! 1. [`Words::list`] tells rows that agree with the newest known word from hosts of which something
//!    else is said, or nothing known: what they have signed is to be asked for, where that was said.
//! 2. [`Word::open`] verifies what was shown, [`Words::take`] keeps it if it is newer.
//! 3. The same rows are believed, or not, when they are listed again.
//!
//! A host that works for the checker's own account is not believed in: nobody judges what is its own, and
//! such a report would not count.
//!
//! Of each host some 80 bytes are kept, not what it signed: its date and a hash of what checkers use.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use welkin_proto::index::Listing;
use welkin_proto::{
    Capability, CapabilityError, ContainerOffer, Domain, NodeAddr, SignatureError, Signed, encode,
};
use welkin_types::{AccountId, NodeId, UnixMillis};

use crate::TARGETS_MAX;
use crate::checker::LISTED_MS;

/// By how much a host's clock may be ahead, in milliseconds: a word that is dated later would be the
/// newest for as long.
pub const AHEAD_MS_MAX: u64 = 600_000;
/// What was not listed for so long is forgotten: an announcement holds half as long.
const KEPT_MS: u64 = 86_400_000;

/// Why what was shown of a host is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// The host has not signed it.
    #[error("it is not signed by the host")]
    Forged(#[source] SignatureError),
    /// It can't be true, or holds no more.
    #[error("what the host signed does not hold")]
    Unsound(#[source] CapabilityError),
    /// It is dated later than any clock can be.
    #[error("it is dated {ahead_ms} ms ahead")]
    Ahead {
        /// By how much.
        ahead_ms: u64,
    },
    /// The host has signed something newer.
    #[error("the host has signed something newer")]
    Outdated,
    /// As many hosts are known as may be.
    #[error("{TARGETS_MAX} hosts are known, and further ones are left out")]
    Full,
}

impl WordError {
    /// Whether somebody has made it up, as opposed to a host that is wrong or a word that is old.
    pub const fn is_forged(&self) -> bool {
        matches!(self, Self::Forged(_))
    }
}

/// The order of two words of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Date {
    issued: UnixMillis,
    revision: u64,
}

/// What checkers use of a word.
type Print = [u8; 16];

/// What a host has signed, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    date: Date,
    capability: Capability,
    /// Who is paid.
    account: AccountId,
}

impl Word {
    /// Verifies what was shown of this host.
    ///
    /// # Errors
    ///
    /// [`WordError`] saying why it is not believed.
    pub fn open(
        domain: &Domain,
        now: UnixMillis,
        host: NodeId,
        signed: &Signed<Capability>,
    ) -> Result<Self, WordError> {
        let capability = signed.open_by(domain, host).map_err(WordError::Forged)?;
        // With the account: a delegation that is for another node, which anybody can copy, says nothing.
        let account = capability.check(domain, host, now).map_err(WordError::Unsound)?;
        let ahead_ms = capability.issued.0.saturating_sub(now.0);
        if ahead_ms > AHEAD_MS_MAX {
            return Err(WordError::Ahead { ahead_ms });
        }
        let date = Date { issued: capability.issued, revision: capability.revision };
        Ok(Self { date, capability, account })
    }

    /// Where the host says that it is.
    pub const fn addr(&self) -> &NodeAddr {
        &self.capability.addr
    }

    /// Whether it was signed after another word of the host.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.date > other.date
    }

    /// Its containers as rows, with what is free by an indexer's rows: of one that it does not list,
    /// nothing.
    pub fn rows(&self, told: &[Listing]) -> Vec<Listing> {
        let Some(first) = told.first() else { return Vec::new() };
        let row = |offer: &ContainerOffer| {
            let said = told.iter().find(|row| row.container.id == offer.id);
            let free = said.map_or(0, |row| row.free.min(offer.slots));
            let (addr, container) = (self.capability.addr.clone(), offer.clone());
            Listing { addr, operator: self.account, container, free, ..first.clone() }
        };
        self.capability.containers.iter().map(row).collect()
    }

    fn print(&self) -> Option<Print> {
        print(&self.capability.addr, self.account, self.capability.containers.iter())
    }
}

/// What is kept of a host's newest word.
#[derive(Clone, Copy, Debug)]
struct Known {
    date: Date,
    print: Print,
    listed: UnixMillis,
    /// When the announcement ends; then it is asked for a newer one.
    expires: UnixMillis,
    /// Whether it works for the checker's own account.
    is_own: bool,
}

/// Rows of an indexer, told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What agrees with what the hosts have signed.
    pub believed: Vec<Listing>,
    /// Of whom it is to be asked what they have signed, with what was said of them.
    pub wanted: BTreeMap<NodeId, Vec<Listing>>,
}

/// The newest word of each host.
#[derive(Clone, Debug)]
pub struct Words {
    hosts: BTreeMap<NodeId, Known>,
    max: usize,
    own: Option<AccountId>,
    /// When it was last looked for what is to be forgotten.
    swept: UnixMillis,
}

impl Default for Words {
    fn default() -> Self {
        Self::with_room_for(TARGETS_MAX)
    }
}

impl Words {
    /// Words of so many hosts at most.
    pub const fn with_room_for(max: usize) -> Self {
        Self { hosts: BTreeMap::new(), max, own: None, swept: UnixMillis(0) }
    }

    /// The same, for a checker of this account: hosts of it are left out.
    #[must_use]
    pub fn of_account(self, own: AccountId) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Tells rows apart, of which a host's are together.
    pub fn list(&mut self, now: UnixMillis, rows: Vec<Listing>) -> Told {
        let mut by_host = BTreeMap::<NodeId, Vec<Listing>>::new();
        for row in rows {
            by_host.entry(row.addr.node).or_default().push(row);
        }
        let mut told = Told::default();
        for (host, rows) in by_host {
            match self.hosts.get_mut(&host) {
                Some(known) if known.expires >= now && print_of(&rows) == Some(known.print) => {
                    known.listed = known.listed.max(now);
                    if !known.is_own {
                        told.believed.extend(rows);
                    }
                }
                _ => drop(told.wanted.insert(host, rows)),
            }
        }
        told
    }

    /// Keeps a word, if none is newer.
    ///
    /// # Errors
    ///
    /// [`WordError::Outdated`], or [`WordError::Full`]; then nothing is changed.
    pub fn take(&mut self, now: UnixMillis, word: &Word) -> Result<(), WordError> {
        let host = word.capability.addr.node;
        let known = self.hosts.get(&host).map(|known| known.date);
        if known.is_some_and(|date| date > word.date) {
            return Err(WordError::Outdated);
        }
        // Of two of the same date the first one stays: else who shows them in turn could move a host.
        if known == Some(word.date) {
            return Ok(());
        }
        self.forget(now);
        if known.is_none() && self.hosts.len() >= self.max {
            return Err(WordError::Full);
        }
        let Some(print) = word.print() else { return Err(WordError::Full) };
        let is_own = self.own == Some(word.account);
        let ends = now.after(Duration::from_millis(KEPT_MS));
        let expires = word.capability.expires.min(ends);
        self.hosts.insert(host, Known { date: word.date, print, listed: now, expires, is_own });
        Ok(())
    }

    /// How many hosts are known.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Forgets what was not listed for a day, and where there is no room, for an hour; each at most once
    /// a minute, for there may be many to look at.
    fn forget(&mut self, now: UnixMillis) {
        let is_full = self.hosts.len() >= self.max;
        let pause = if is_full { 60_000 } else { LISTED_MS };
        if now.0 < self.swept.0.saturating_add(pause) {
            return;
        }
        self.swept = now;
        let kept = if is_full { LISTED_MS } else { KEPT_MS };
        self.hosts.retain(|_, known| known.listed.0.saturating_add(kept) >= now.0);
    }
}

/// Of a host's rows; none where they name several addresses or accounts.
fn print_of(rows: &[Listing]) -> Option<Print> {
    let first = rows.first()?;
    let is_one = rows.iter().all(|row| row.addr == first.addr && row.operator == first.operator);
    let print = print(&first.addr, first.operator, rows.iter().map(|row| &row.container));
    print.filter(|_| is_one)
}

/// The address, the account, and of each container what a checker goes by, in whatever order they are
/// listed: not its price, which changes often.
fn print<'a>(
    addr: &NodeAddr,
    account: AccountId,
    containers: impl Iterator<Item = &'a ContainerOffer>,
) -> Option<Print> {
    let mut hash = Sha256::new();
    hash.update(encode(&(addr, account)).ok()?);
    let mut containers: Vec<_> = containers.collect();
    containers.sort_unstable_by_key(|container| container.id);
    for container in containers {
        let ContainerOffer { id, class, resources, slots, .. } = container;
        hash.update(encode(&(id, class, resources, slots)).ok()?);
    }
    let mut print = Print::default();
    print.copy_from_slice(&hash.finalize()[..16]);
    Some(print)
}

#[cfg(test)]
mod tests;
