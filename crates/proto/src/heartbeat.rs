//! `WHB1`: one authenticated datagram that says how a container stands.
//!
//! A host that has enrolled with an indexer over an encrypted stream has, for each container, a
//! session number and a key. From then on a beat is one datagram of 69 bytes that carries the whole
//! state, so that none depends on another, and any may be lost:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | kind: 1 beat, 2 ack, 3 poke |
//! | 1–4 | session, little-endian |
//! | 5–12 | counter, little-endian; rises with each datagram of a direction |
//! | 13–52 | [`Vitals`], encrypted |
//! | 53–68 | tag |
//!
//! Encrypted with AES-128-GCM; the nonce is the direction and the counter, and the first 13 bytes
//! are authenticated with it. An answer ([`Note`]) is 37 bytes, fewer than what it answers, and
//! what fails the tag is not answered: nobody can be flooded by way of an indexer. Counters that do
//! not rise are refused by who keeps the session, so that a replayed beat says nothing.
//!
//! A nonce must never come twice under one key, so no counter may: each side begins with the present
//! time in milliseconds, which is beyond all counters that it used before a restart, as long as it
//! sends less than one datagram a millisecond in each session.
//!
//! Keys follow from a secret of the indexer ([`Secret::session_key`]) and are the same after its
//! restart: a million hosts need not enrol again.

use std::fmt;

use aes_gcm::aead::AeadInPlace as _;
use aes_gcm::{Aes128Gcm, KeyInit as _};
use sha2::{Digest as _, Sha256};
use welkin_types::{ContainerId, NodeId};
use zeroize::Zeroize as _;

const HEADER_BYTES: usize = 13;
const TAG_BYTES: usize = 16;
const VITALS_BYTES: usize = 40;
const NOTE_BODY_BYTES: usize = 8;
/// The length of a beat.
pub const BEAT_BYTES: usize = HEADER_BYTES + VITALS_BYTES + TAG_BYTES;
/// The length of an answer.
pub const NOTE_BYTES: usize = HEADER_BYTES + NOTE_BODY_BYTES + TAG_BYTES;

const BEAT: u8 = 1;
const ACK: u8 = 2;
const POKE: u8 = 3;

/// Why a datagram is dropped. Nobody is told: it may come from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatError {
    /// Not the length, or not the kind, of what is awaited.
    #[error("not a heartbeat")]
    Form,
    /// Not made with the session's key, or altered on its way.
    #[error("the tag is wrong")]
    Tag,
    /// A value that no state has.
    #[error("the state is none")]
    Vitals,
}

/// A session's key. Never printed; wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey([u8; 16]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl Drop for SessionKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SessionKey {
    /// A key as it was given at the enrolment.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key, to be given to its host over an encrypted stream.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn cipher(&self) -> Aes128Gcm {
        Aes128Gcm::new((&self.0).into())
    }

    fn seal(&self, direction: Direction, header: &Header, body: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = direction.nonce(header.counter);
        let sealed =
            self.cipher().encrypt_in_place_detached((&nonce).into(), &header.to_bytes(), body);
        // Refused are texts of 64 GiB only.
        sealed.map_or([0; TAG_BYTES], Into::into)
    }

    fn open(
        &self,
        direction: Direction,
        header: &Header,
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), HeartbeatError> {
        let nonce = direction.nonce(header.counter);
        self.cipher()
            .decrypt_in_place_detached((&nonce).into(), &header.to_bytes(), body, tag.into())
            .map_err(|_| HeartbeatError::Tag)
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToIndexer,
    ToHost,
}

impl Direction {
    /// No two datagrams of a session have the same: counters rise in each direction.
    fn nonce(self, counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = match self {
            Self::ToIndexer => 0,
            Self::ToHost => 1,
        };
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }
}

/// What an indexer derives its sessions' keys from. Never printed; wiped on drop.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    /// From 32 secret random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of a container's session in an epoch: the first half of
    /// SHA-256(secret ‖ "welkin/whb1" ‖ epoch ‖ host ‖ container). All parts have fixed lengths and
    /// the secret is never a prefix that others choose, so a bare hash is a sound derivation; half
    /// of the output is withheld, so that it can't be extended.
    pub fn session_key(&self, epoch: u32, host: NodeId, container: ContainerId) -> SessionKey {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(b"welkin/whb1");
        hash.update(epoch.to_be_bytes());
        hash.update(host.as_bytes());
        hash.update(container.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        SessionKey(key)
    }
}

/// The plain part of a datagram: whose it is. Nothing in it is to be believed before the tag is
/// checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    /// The session.
    pub session: u32,
    /// Which of the session's datagrams in this direction.
    pub counter: u64,
}

impl Header {
    /// Reads the header of what may be a beat.
    ///
    /// # Errors
    ///
    /// [`HeartbeatError::Form`] where it is none.
    pub fn of_beat(datagram: &[u8]) -> Result<Self, HeartbeatError> {
        Self::read(datagram, BEAT_BYTES, |kind| kind == BEAT)
    }

    /// Reads the header of what may be an answer.
    ///
    /// # Errors
    ///
    /// [`HeartbeatError::Form`] where it is none.
    pub fn of_note(datagram: &[u8]) -> Result<Self, HeartbeatError> {
        Self::read(datagram, NOTE_BYTES, |kind| kind == ACK || kind == POKE)
    }

    fn read(
        datagram: &[u8],
        length: usize,
        is_kind: impl Fn(u8) -> bool,
    ) -> Result<Self, HeartbeatError> {
        let header: &[u8; HEADER_BYTES] = datagram.first_chunk().ok_or(HeartbeatError::Form)?;
        let [kind, s0, s1, s2, s3, counter @ ..] = *header;
        if datagram.len() != length || !is_kind(kind) {
            return Err(HeartbeatError::Form);
        }
        let session = u32::from_le_bytes([s0, s1, s2, s3]);
        Ok(Self { kind, session, counter: u64::from_le_bytes(counter) })
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind;
        bytes[1..5].copy_from_slice(&self.session.to_le_bytes());
        bytes[5..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }
}

/// The whole present state of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Takes no new leases.
    pub is_draining: bool,
    /// Free slots, at most [`crate::Capability::SLOTS_MAX`].
    pub free: u16,
    /// By GPU of the container: whether no lease has it.
    pub gpus_free: u16,
    /// By GPU: how busy it is, in percent.
    pub gpu_busy_percent: [u8; 8],
    /// GPU memory that no lease has, in GiB.
    pub gpu_memory_free_gib: u16,
    /// The hottest GPU, in degrees Celsius; 0 where unknown.
    pub gpu_temperature_max_c: u8,
    /// Orders that wait.
    pub queue: u8,
    /// Which price counts: rises with each change.
    pub price_sequence: u32,
    /// The capability that it belongs to.
    pub revision: u32,
    /// How often the set of leases has changed.
    pub lease_epoch: u32,
    /// The leases it carries: the exclusive or of the first 8 bytes of their ids. Who knows of
    /// another set has lost something.
    pub lease_digest: u64,
}

/// Highest bits that are not used yet must be 0.
const DRAINING: u8 = 1;

impl Vitals {
    fn to_bytes(self) -> [u8; VITALS_BYTES] {
        let mut bytes = [0; VITALS_BYTES];
        bytes[0] = if self.is_draining { DRAINING } else { 0 };
        bytes[1] = self.queue;
        bytes[2..4].copy_from_slice(&self.free.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gpus_free.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.gpu_memory_free_gib.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.gpu_busy_percent);
        bytes[16..20].copy_from_slice(&self.price_sequence.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.revision.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.lease_epoch.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.lease_digest.to_le_bytes());
        bytes[36] = self.gpu_temperature_max_c;
        bytes
    }

    fn from_bytes(bytes: &[u8; VITALS_BYTES]) -> Result<Self, HeartbeatError> {
        fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            let mut part = [0; N];
            part.copy_from_slice(&bytes[at..at + N]);
            part
        }
        let vitals = Self {
            is_draining: bytes[0] & DRAINING != 0,
            queue: bytes[1],
            free: u16::from_le_bytes(part(bytes, 2)),
            gpus_free: u16::from_le_bytes(part(bytes, 4)),
            gpu_memory_free_gib: u16::from_le_bytes(part(bytes, 6)),
            gpu_busy_percent: part(bytes, 8),
            price_sequence: u32::from_le_bytes(part(bytes, 16)),
            revision: u32::from_le_bytes(part(bytes, 20)),
            lease_epoch: u32::from_le_bytes(part(bytes, 24)),
            lease_digest: u64::from_le_bytes(part(bytes, 28)),
            gpu_temperature_max_c: bytes[36],
        };
        let is_sound = bytes[0] & !DRAINING == 0
            && bytes[37..] == [0; 3]
            && u32::from(vitals.free) <= crate::Capability::SLOTS_MAX
            && vitals.gpu_busy_percent.iter().all(|percent| *percent <= 100);
        if is_sound { Ok(vitals) } else { Err(HeartbeatError::Vitals) }
    }

    /// A beat with this state.
    pub fn seal(&self, key: &SessionKey, session: u32, counter: u64) -> [u8; BEAT_BYTES] {
        let header = Header { kind: BEAT, session, counter };
        let mut body = self.to_bytes();
        let tag = key.seal(Direction::ToIndexer, &header, &mut body);
        let mut datagram = [0; BEAT_BYTES];
        datagram[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        datagram[HEADER_BYTES..HEADER_BYTES + VITALS_BYTES].copy_from_slice(&body);
        datagram[HEADER_BYTES + VITALS_BYTES..].copy_from_slice(&tag);
        datagram
    }

    /// Reads a beat of the session that its [`Header::of_beat`] names.
    ///
    /// # Errors
    ///
    /// [`HeartbeatError`]
    pub fn open(key: &SessionKey, datagram: &[u8]) -> Result<Self, HeartbeatError> {
        let header = Header::of_beat(datagram)?;
        let (body, tag) = split(datagram)?;
        let mut body = body;
        key.open(Direction::ToIndexer, &header, &mut body, &tag)?;
        Self::from_bytes(&body)
    }
}

/// An indexer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The beat with this counter was taken.
    Ack {
        /// Which.
        counter: u64,
    },
    /// Something waits for the host at the indexer's stream.
    Poke {
        /// Why, for whoever reads a log; hosts do the same for all.
        reason: u64,
    },
}

impl Note {
    /// A datagram with this answer; `counter` is the direction's own.
    pub fn seal(&self, key: &SessionKey, session: u32, counter: u64) -> [u8; NOTE_BYTES] {
        let (kind, value) = match self {
            Self::Ack { counter } => (ACK, *counter),
            Self::Poke { reason } => (POKE, *reason),
        };
        let header = Header { kind, session, counter };
        let mut body = value.to_le_bytes();
        let tag = key.seal(Direction::ToHost, &header, &mut body);
        let mut datagram = [0; NOTE_BYTES];
        datagram[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        datagram[HEADER_BYTES..HEADER_BYTES + NOTE_BODY_BYTES].copy_from_slice(&body);
        datagram[HEADER_BYTES + NOTE_BODY_BYTES..].copy_from_slice(&tag);
        datagram
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// [`HeartbeatError`]
    pub fn open(key: &SessionKey, datagram: &[u8]) -> Result<Self, HeartbeatError> {
        let header = Header::of_note(datagram)?;
        let (body, tag) = split(datagram)?;
        let mut body: [u8; NOTE_BODY_BYTES] = body;
        key.open(Direction::ToHost, &header, &mut body, &tag)?;
        let value = u64::from_le_bytes(body);
        Ok(if header.kind == ACK {
            Self::Ack { counter: value }
        } else {
            Self::Poke { reason: value }
        })
    }
}

fn split<const N: usize>(datagram: &[u8]) -> Result<([u8; N], [u8; TAG_BYTES]), HeartbeatError> {
    let rest = datagram.get(HEADER_BYTES..).ok_or(HeartbeatError::Form)?;
    let (body, tag) = rest.split_first_chunk::<N>().ok_or(HeartbeatError::Form)?;
    let tag = <[u8; TAG_BYTES]>::try_from(tag).map_err(|_| HeartbeatError::Form)?;
    Ok((*body, tag))
}

#[cfg(test)]
mod tests;
