//! Sessions that another indexer with the same secret has begun.

use welkin_proto::heartbeat::SessionKey;
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::row::Row;
use super::{NONE, Owner, Presence, SESSIONS_MAX};

/// A session as it is kept elsewhere: its key follows from this, its host and the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Which container's.
    pub container: ContainerId,
    /// Its number.
    pub session: u32,
    /// The epoch of its key.
    pub epoch: u16,
    /// What its key follows from beside the epoch and the names.
    pub salt: u32,
}

impl Presence {
    /// The sessions of a host, to be kept elsewhere.
    pub fn records_of(&self, host: NodeId) -> Vec<SessionRecord> {
        let record = |session: u32| {
            let (row, owner) = (&self.rows[session as usize], &self.owners[session as usize]);
            SessionRecord {
                container: owner.container,
                session,
                epoch: row.epoch,
                salt: owner.salt,
            }
        };
        self.sessions_of(host).map(record).collect()
    }

    /// Takes up sessions that were kept elsewhere; each counts as just heard. A number that is taken
    /// or too high is left out: its host finds that nobody answers, and enrols again. Beats that were
    /// taken elsewhere could be replayed once, until the next true one comes. Returns how many were
    /// taken up.
    pub fn adopt(
        &mut self,
        now: UnixMillis,
        hosts: impl IntoIterator<Item = (NodeId, Vec<SessionRecord>)>,
    ) -> usize {
        let before = self.len();
        // Numbers that are nobody's are found anew at the end.
        self.vacant.clear();
        for (host, records) in hosts {
            for record in records {
                self.adopt_one(now, host, record);
            }
        }
        let vacant = self.rows.iter().zip(0..).filter(|(row, _)| row.standing.is_none());
        self.vacant = vacant.map(|(_, number)| number).collect();
        self.len() - before
    }

    fn adopt_one(&mut self, now: UnixMillis, host: NodeId, record: SessionRecord) {
        let number = record.session as usize;
        let is_taken = self.rows.get(number).is_some_and(|row| row.standing.is_some());
        let is_twice = self
            .sessions_of(host)
            .any(|session| self.owners[session as usize].container == record.container);
        if is_taken || is_twice || number >= SESSIONS_MAX {
            return;
        }
        if number >= self.rows.len() {
            self.rows.resize(number + 1, Row::vacant());
            self.owners.resize(number + 1, Owner::NOBODY);
        }
        // The key is found with the first beat.
        let keyless = SessionKey::from_bytes([0; 16]);
        let next = self.directory.get(&self.owners, host).unwrap_or(NONE);
        self.rows[number] = Row::new(now, record.epoch, keyless);
        self.owners[number] = Owner { host, container: record.container, salt: record.salt, next };
        self.directory.set(&self.owners, record.session);
    }
}
