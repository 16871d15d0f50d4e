//! Sessions as bytes, so that a restarted indexer knows them.
//!
//! `"whb1"`, a version, how many, then 70 bytes for each session. No key is in it: keys follow from
//! the secret. A row that was altered makes a session whose beats fail the tag, which its host mends
//! by enrolling again; so there is no checksum.

use welkin_proto::heartbeat::{Secret, SessionKey};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::leases::Leases;
use super::row::Row;
use super::{NONE, Owner, Presence, SESSIONS_MAX, Standing};

const MAGIC: [u8; 5] = *b"whb1\x01";
const HEAD_BYTES: usize = MAGIC.len() + 4;
const ROW_BYTES: usize = 70;

/// Why a dump can't be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// Not such a dump, or of another version.
    #[error("not a list of sessions that this version reads")]
    Form,
    /// Cut off, or something stands behind it.
    #[error("the list of sessions is incomplete")]
    Length,
    /// A number twice or too high, or a host's sessions out of place.
    #[error("the list of sessions contradicts itself")]
    Rows,
}

impl Presence {
    /// All sessions.
    pub fn dump(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.len() * ROW_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&u32::try_from(self.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (session, (row, owner)) in (0_u32..).zip(self.rows.iter().zip(&self.owners)) {
            if row.standing.is_none() {
                continue;
            }
            bytes.extend_from_slice(&session.to_le_bytes());
            bytes.extend_from_slice(owner.host.as_bytes());
            bytes.extend_from_slice(owner.container.as_bytes());
            bytes.extend_from_slice(&row.counter.to_le_bytes());
            bytes.extend_from_slice(&owner.salt.to_le_bytes());
            bytes.extend_from_slice(&row.epoch.to_le_bytes());
            bytes.extend_from_slice(&row.mean_ms.to_le_bytes());
            bytes.extend_from_slice(&row.deviation_ms.to_le_bytes());
        }
        bytes
    }

    /// The sessions of a dump; each counts as just heard. Beats that were taken after the dump could
    /// be replayed once, until the next true one comes.
    ///
    /// # Errors
    ///
    /// [`DumpError`]; it is to be begun without sessions then.
    pub fn load(secret: Secret, now: UnixMillis, bytes: &[u8]) -> Result<Self, DumpError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(DumpError::Form)?;
        if *magic != MAGIC {
            return Err(DumpError::Form);
        }
        let (count, rest) = rest.split_first_chunk().ok_or(DumpError::Length)?;
        let (rows, after) = rest.as_chunks::<ROW_BYTES>();
        if rows.len() != u32::from_le_bytes(*count) as usize || !after.is_empty() {
            return Err(DumpError::Length);
        }
        let mut presence = Self::new(secret);
        for bytes in rows {
            presence.load_row(now, bytes).ok_or(DumpError::Rows)?;
        }
        let vacant = presence.rows.iter().zip(0..).filter(|(row, _)| row.standing.is_none());
        presence.vacant = vacant.map(|(_, number)| number).collect();
        Ok(presence)
    }

    fn load_row(&mut self, now: UnixMillis, bytes: &[u8; ROW_BYTES]) -> Option<()> {
        let mut rest = &bytes[..];
        let session = u32::from_le_bytes(take(&mut rest)?);
        let number = session as usize;
        // Numbers rise, so none comes twice.
        if number < self.rows.len() || number >= SESSIONS_MAX {
            return None;
        }
        let host = NodeId::from_bytes(take(&mut rest)?);
        let container = ContainerId::from_bytes(take(&mut rest)?);
        let counter = u64::from_le_bytes(take(&mut rest)?);
        let salt = u32::from_le_bytes(take(&mut rest)?);
        let row = Row {
            place: NONE,
            key: SessionKey::from_bytes([0; 16]),
            counter,
            heard: now,
            epoch: u16::from_le_bytes(take(&mut rest)?),
            mean_ms: u16::from_le_bytes(take(&mut rest)?),
            deviation_ms: u16::from_le_bytes(take(&mut rest)?).max(super::DEVIATION_MS_MIN),
            leases: Leases::UNKNOWN,
            standing: Some(Standing::Alive),
        };
        let next = self.directory.get(&self.owners, host).unwrap_or(super::NONE);
        self.rows.resize(number, Row::vacant());
        self.owners.resize(number, Owner::NOBODY);
        self.rows.push(row);
        self.owners.push(Owner { host, container, salt, next });
        self.directory.set(&self.owners, session);
        Some(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}
