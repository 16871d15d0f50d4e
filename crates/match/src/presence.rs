//! Who is there: the sessions of heartbeats, and when a silent one counts as gone.
//!
//! A million sessions fit into one machine: one takes about 110 bytes, and a beat costs a look-up, a
//! decryption and a few additions. Each container of a host has one. Whether a session is alive follows from its own rhythm (an accrual detector, as
//! Hayashibara and others describe it, with the deviation in place of the probability): the time
//! since its last beat is compared with the mean and the deviation of the times between its beats.
//!
//! One blip of the network must not end leases. So a session that misses beats is first *suspect*:
//! it is offered no more, and nothing else happens. It is *gone* only much later, and while more
//! than a few of all sessions fell silent together nobody is declared gone at all: then it is in
//! all likelihood this indexer that is cut off.

use welkin_proto::heartbeat::{
    Enrolment, Header, HeartbeatError, NOTE_BYTES, Note, Secret, Vitals,
};
use welkin_types::{ContainerId, NodeId, UnixMillis};

mod adopt;
mod directory;
mod dump;
mod leases;
mod row;

pub use adopt::SessionRecord;
pub use dump::DumpError;

use directory::Directory;
use leases::Leases;
use row::Row;

/// The most sessions.
pub const SESSIONS_MAX: usize = 1 << 21;
/// How often a host beats, in milliseconds; it varies that by a fifth.
pub const PERIOD_MS: u64 = 10_000;
/// How long keys are new, in milliseconds. Those of the epoch before are good too; who has older ones
/// is asked to enrol again.
pub const KEY_EPOCH_MS: u64 = 24 * 3_600_000;
/// A session is suspect when it is silent for so many deviations beyond its mean …
const SUSPECT_DEVIATIONS: u64 = 4;
/// … and gone after so many.
const GONE_DEVIATIONS: u64 = 12;
/// At least so many periods must have passed before a session is suspect, or gone.
const SUSPECT_PERIODS: u64 = 2;
const GONE_PERIODS: u64 = 6;
/// While more than this share of all sessions is suspect, in hundredths, none is declared gone …
const CUT_OFF_PERCENT: usize = 20;
/// … but for no longer than this.
const HOLD_DOWN_MS_MAX: u64 = 10 * 60_000;
/// A session that is gone is kept for so long after its last beat: its host may have been cut off.
const FORGET_MS: u64 = 30 * 60_000;
/// The least deviation that is believed, in milliseconds: a tenth of the period.
const DEVIATION_MS_MIN: u16 = 1_000;
/// No session.
const NONE: u32 = u32::MAX;

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It beats.
    Alive,
    /// It misses beats: it is not offered, and may come back.
    Suspect,
    /// It is given up.
    Gone,
}

/// Why a beat is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeatDropped {
    /// No such session: whoever sent it must enrol again, if it is a host at all.
    #[error("there is no such session")]
    Unknown,
    /// A later beat is known: replayed, or overtaken on its way.
    #[error("a later beat is known")]
    Old,
    /// Not a beat of this session.
    #[error(transparent)]
    Bad(#[from] HeartbeatError),
}

/// There are [`SESSIONS_MAX`] sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this indexer has {SESSIONS_MAX} sessions and takes no more: enrol with another")]
pub struct SessionsFull;

/// A beat that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The session.
    pub session: u32,
    /// The beat's counter, for the answer.
    pub counter: u64,
    /// Whose it is.
    pub host: NodeId,
    /// Which of its containers.
    pub container: ContainerId,
    /// What it says.
    pub vitals: Vitals,
    /// What the session was before.
    pub was: Standing,
    /// Whether its key is so old that the host should enrol again.
    pub has_old_key: bool,
    /// Whether it shows that an earlier one with other leases was never heard.
    pub has_missed: bool,
    /// Whether something is missed for which the host is to be asked to announce itself; see
    /// [`Presence::asked`].
    pub is_asking: bool,
    /// Whether the host may be asked for another reason: it was not just now.
    pub may_be_asked: bool,
    /// What [`Presence::set_place`] gave the session, if anything.
    pub place: Option<u32>,
}

/// Whose a session is, and the next one of the same host.
#[derive(Clone, Debug)]
struct Owner {
    host: NodeId,
    container: ContainerId,
    /// What the session's key follows from, beside the names and the epoch.
    salt: u32,
    next: u32,
}

impl Owner {
    const NOBODY: Self = Self {
        host: NodeId::from_bytes([0; 32]),
        container: ContainerId::from_bytes([0; 16]),
        salt: 0,
        next: NONE,
    };
}

/// All sessions of an indexer, by number.
#[derive(Clone, Debug)]
pub struct Presence {
    secret: Secret,
    rows: Vec<Row>,
    /// Apart from the rows, which every beat and every sweep touches.
    owners: Vec<Owner>,
    /// The first session of each host.
    directory: Directory,
    vacant: Vec<u32>,
    suspects: usize,
    /// Since when too many are suspect.
    cut_off: Option<UnixMillis>,
    /// Where the next part of a sweep begins.
    cursor: usize,
}

impl Presence {
    /// No sessions yet; their keys will follow from this secret.
    pub fn new(secret: Secret) -> Self {
        let directory = Directory::new(secret.table_seed());
        Self {
            secret,
            rows: Vec::new(),
            owners: Vec::new(),
            directory,
            vacant: Vec::new(),
            suspects: 0,
            cut_off: None,
            cursor: 0,
        }
    }

    /// Begins the sessions of a host's containers, which are at most
    /// [`welkin_proto::Capability::CONTAINERS_MAX`] and differ; those of containers that it had and
    /// has no more end. Each gets another key, also one that keeps its number, and counts as just
    /// heard. `salt` is to be random.
    ///
    /// # Errors
    ///
    /// [`SessionsFull`]; then nothing is changed.
    pub fn enrol(
        &mut self,
        now: UnixMillis,
        host: NodeId,
        containers: &[ContainerId],
        salt: u32,
    ) -> Result<Vec<Enrolment>, SessionsFull> {
        let before: Vec<u32> = self.sessions_of(host).collect();
        if self.len() - before.len() + containers.len() > SESSIONS_MAX {
            return Err(SessionsFull);
        }
        self.directory.remove(&self.owners, host);
        let number = |presence: &Self, container| {
            let is_its = |session: &u32| presence.owners[*session as usize].container == container;
            before.iter().copied().find(is_its)
        };
        let kept: Vec<Option<u32>> = containers.iter().map(|of| number(self, *of)).collect();
        for session in before.iter().filter(|session| !kept.contains(&Some(**session))) {
            self.vacate(*session);
        }
        let epoch = epoch_of(now);
        let leases = before.first().map_or(Leases::UNKNOWN, |old| self.rows[*old as usize].leases);
        let leases = leases.anew();
        let mut next = NONE;
        let mut enrolled = Vec::with_capacity(containers.len());
        for (container, kept) in containers.iter().copied().zip(kept) {
            let key = self.secret.session_key(epoch, salt, host, container);
            let row = Row { leases, ..Row::new(now, epoch, key.clone()) };
            let owner = Owner { host, container, salt, next };
            let session = self.place(kept, row, owner);
            next = session;
            enrolled.push(Enrolment { container, session, key });
        }
        if next != NONE {
            self.directory.set(&self.owners, next);
        }
        Ok(enrolled)
    }

    fn place(&mut self, kept: Option<u32>, row: Row, owner: Owner) -> u32 {
        if let Some(session) = kept.or_else(|| self.vacant.pop()) {
            let place = &mut self.rows[session as usize];
            self.suspects -= usize::from(place.standing == Some(Standing::Suspect));
            (*place, self.owners[session as usize]) = (row, owner);
            return session;
        }
        self.rows.push(row);
        self.owners.push(owner);
        // Fewer than SESSIONS_MAX.
        u32::try_from(self.rows.len() - 1).unwrap_or(NONE)
    }

    fn vacate(&mut self, session: u32) {
        let row = std::mem::replace(&mut self.rows[session as usize], Row::vacant());
        self.suspects -= usize::from(row.standing == Some(Standing::Suspect));
        self.owners[session as usize] = Owner::NOBODY;
        self.vacant.push(session);
    }

    /// Ends all sessions of a host.
    pub fn end(&mut self, host: NodeId) {
        let sessions: Vec<u32> = self.sessions_of(host).collect();
        self.directory.remove(&self.owners, host);
        sessions.into_iter().for_each(|session| self.vacate(session));
    }

    /// The sessions of a host.
    pub fn sessions_of(&self, host: NodeId) -> impl Iterator<Item = u32> {
        let mut next = self.directory.get(&self.owners, host).unwrap_or(NONE);
        std::iter::from_fn(move || {
            let session = next;
            next = self.owners.get(session as usize)?.next;
            Some(session)
        })
    }

    /// When a host was last heard, by any of its sessions; an enrolment counts.
    pub fn heard(&self, host: NodeId) -> Option<UnixMillis> {
        self.sessions_of(host).map(|session| self.rows[session as usize].heard).max()
    }

    /// When a host has beaten last, by any of its sessions, since it enrolled.
    pub fn beaten(&self, host: NodeId) -> Option<UnixMillis> {
        let rows = self.sessions_of(host).map(|session| &self.rows[session as usize]);
        rows.filter(|row| row.counter > 0).map(|row| row.heard).max()
    }

    /// How many sessions there are.
    pub const fn len(&self) -> usize {
        self.rows.len() - self.vacant.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are suspect.
    pub const fn suspects(&self) -> usize {
        self.suspects
    }

    /// Bytes that the sessions take.
    pub const fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.owners.capacity() * size_of::<Owner>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.directory.bytes()
    }

    /// How a session stands.
    pub fn standing(&self, session: u32) -> Option<Standing> {
        self.rows.get(session as usize)?.standing
    }

    /// Whose a session is.
    pub fn owner(&self, session: u32) -> Option<(NodeId, ContainerId)> {
        self.standing(session)?;
        self.owners.get(session as usize).map(|owner| (owner.host, owner.container))
    }

    /// Takes a datagram. The cheap tests come first: a flood of old or made-up ones costs little.
    ///
    /// # Errors
    ///
    /// [`BeatDropped`]; then nothing is changed, and nothing is to be answered.
    pub fn beat(&mut self, now: UnixMillis, datagram: &[u8]) -> Result<Taken, BeatDropped> {
        let Header { session, counter, .. } = Header::of_beat(datagram)?;
        let row = self.rows.get_mut(session as usize).ok_or(BeatDropped::Unknown)?;
        let was = row.standing.ok_or(BeatDropped::Unknown)?;
        if counter <= row.counter {
            return Err(BeatDropped::Old);
        }
        let Owner { host, container, salt, .. } = self.owners[session as usize];
        if row.is_keyless() {
            row.key = self.secret.session_key(row.epoch, salt, host, container);
        }
        let vitals = Vitals::open(&row.key, datagram)?;
        row.learn(now);
        row.counter = counter;
        row.heard = row.heard.max(now);
        row.standing = Some(Standing::Alive);
        let has_missed = row.leases.hear(&vitals);
        let is_asking = row.leases.is_asking(now);
        let may_be_asked = row.leases.may_be_asked(now);
        let has_old_key = row.epoch.saturating_add(1) < epoch_of(now);
        let place = Some(row.place).filter(|place| *place != NONE);
        self.suspects -= usize::from(was == Standing::Suspect);
        Ok(Taken {
            session,
            counter,
            host,
            container,
            vitals,
            was,
            has_old_key,
            has_missed,
            is_asking,
            may_be_asked,
            place,
        })
    }

    /// A host was asked to announce itself: for what it has missed, in whichever of its sessions, it is not
    /// to be asked again in this minute.
    pub fn asked(&mut self, now: UnixMillis, host: NodeId) {
        let mut next = self.directory.get(&self.owners, host).unwrap_or(NONE);
        while let Some(owner) = self.owners.get(next as usize) {
            if let Some(row) = self.rows.get_mut(next as usize) {
                row.leases.asked(now);
            }
            next = owner.next;
        }
    }

    /// Reads a little of what each of these beats will need, and returns something of it. Nothing here
    /// waits for anything else, so a processor fetches all of it from memory at once, where the beats
    /// one after the other would wait for each.
    pub fn fetch<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) -> u64 {
        let sessions = datagrams.filter_map(|datagram| Header::of_beat(datagram).ok());
        sessions.fold(0, |sum, Header { session, .. }| {
            let Some(row) = self.rows.get(session as usize) else { return sum };
            let [first, .., last] = *row.key.as_bytes();
            let owner = self
                .owners
                .get(session as usize)
                .map_or(0, |owner| u64::from(owner.host.as_bytes()[0]) ^ u64::from(owner.next));
            sum ^ u64::from(first ^ last) ^ row.heard.0 ^ u64::from(row.mean_ms) ^ owner
        })
    }

    /// Notes where the caller has a session's container: it comes with the next beat.
    pub fn set_place(&mut self, session: u32, place: Option<u32>) {
        if let Some(row) = self.rows.get_mut(session as usize) {
            row.place = place.unwrap_or(NONE);
        }
    }

    /// An answer to a beat that was taken.
    pub fn answer(&self, taken: &Taken, note: Note) -> Option<[u8; NOTE_BYTES]> {
        let row = self.rows.get(taken.session as usize)?;
        let is_its = row.standing.is_some() && row.counter >= taken.counter;
        is_its.then(|| note.seal(&row.key, taken.session, taken.counter))
    }

    /// Looks who has fallen silent. Returns whose standing has changed for the worse.
    pub fn sweep(&mut self, now: UnixMillis) -> Vec<(u32, Standing)> {
        self.cursor = 0;
        self.sweep_part(now, usize::MAX)
    }

    /// Looks at the next `count` sessions, from the first again after the last: so that a sweep of a
    /// million holds nothing up. All are to be looked at about every two seconds.
    pub fn sweep_part(&mut self, now: UnixMillis, count: usize) -> Vec<(u32, Standing)> {
        let begin = if self.cursor < self.rows.len() { self.cursor } else { 0 };
        let end = begin.saturating_add(count).min(self.rows.len());
        self.cursor = end;
        let mut changed = Vec::new();
        let (mut silent, mut forgotten) = (Vec::new(), Vec::new());
        for (row, number) in self.rows[begin..end].iter_mut().zip(begin..) {
            let Some(standing) = row.standing else { continue };
            let session = u32::try_from(number).unwrap_or(NONE);
            match (standing, row.silence(now)) {
                (Standing::Alive, Standing::Suspect | Standing::Gone) => {
                    row.standing = Some(Standing::Suspect);
                    self.suspects += 1;
                    changed.push((session, Standing::Suspect));
                }
                (Standing::Suspect, Standing::Gone) => silent.push(session),
                (Standing::Gone, _) if now.0.saturating_sub(row.heard.0) > FORGET_MS => {
                    forgotten.push(session);
                }
                _ => (),
            }
        }
        self.forget(&forgotten);
        if !self.is_cut_off(now) {
            for session in silent {
                self.rows[session as usize].standing = Some(Standing::Gone);
                self.suspects -= 1;
                changed.push((session, Standing::Gone));
            }
        }
        changed
    }

    /// Ends the sessions of hosts of which every session is gone for long.
    fn forget(&mut self, sessions: &[u32]) {
        for session in sessions {
            let Some((host, _)) = self.owner(*session) else { continue };
            let is_gone = |of: u32| self.standing(of) == Some(Standing::Gone);
            if self.sessions_of(host).all(is_gone) {
                self.end(host);
            }
        }
    }

    /// Whether so many are silent that it is rather this indexer that is cut off.
    fn is_cut_off(&mut self, now: UnixMillis) -> bool {
        // Of a handful no share says anything.
        let is_many = self.suspects > 2 && self.suspects * 100 > self.len() * CUT_OFF_PERCENT;
        if !is_many {
            self.cut_off = None;
            return false;
        }
        let since = *self.cut_off.get_or_insert(now);
        now.0.saturating_sub(since.0) < HOLD_DOWN_MS_MAX
    }
}

/// Which keys are given now.
pub fn epoch_of(now: UnixMillis) -> u16 {
    u16::try_from(now.0 / KEY_EPOCH_MS).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
