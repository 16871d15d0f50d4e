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
//! | 5–12 | counter, little-endian; rises with each beat of a session |
//! | 13–52 | [`Vitals`], encrypted |
//! | 53–68 | tag |
//!
//! Encrypted with AES-128-GCM; the nonce is the kind and the counter, and the first 13 bytes are
//! authenticated with it. An answer ([`Note`]) is 29 bytes, less than half of what it answers, and
//! what fails the tag is not answered: nobody can be flooded by way of an indexer. Counters that do
//! not rise are refused by who keeps the session, so that a replayed beat says nothing.
//!
//! A nonce must never come twice under one key with two texts. A host counts its beats and gets
//! another key with each enrolment, so it may begin at 1. An answer has no text: it is a tag over the
//! counter of the beat that it answers, and whoever says it twice, also after a restart and also a
//! standby, says the same. It goes to where its beat came from, and nothing is ever sent to a host
//! that has not just beaten: so a host may change its address with each beat.
//!
//! Keys follow from a secret of the indexer ([`Secret::session_key`]) and are the same after its
//! restart: a million hosts need not enrol again.
//!
//! Where datagrams do not pass, the same bytes travel in frames of the stream
//! ([`crate::index::HostToIndexer::Beats`], [`crate::index::IndexerToHost::Notes`]).

use std::fmt;
use std::net::SocketAddr;

use aes_gcm::aead::AeadInPlace as _;
use aes_gcm::{Aes128Gcm, KeyInit as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::{ContainerId, NodeId};
use zeroize::Zeroize as _;

const HEADER_BYTES: usize = 13;
const TAG_BYTES: usize = 16;
const VITALS_BYTES: usize = 40;
/// The length of a beat.
pub const BEAT_BYTES: usize = HEADER_BYTES + VITALS_BYTES + TAG_BYTES;
/// The most beats, and the most answers, in one frame of a stream.
pub const FRAMED_MAX: usize = 64;
/// The most addresses beside the indexer's own that take the same beats.
pub const STANDBYS_MAX: usize = 2;
/// The length of an answer.
pub const NOTE_BYTES: usize = HEADER_BYTES + TAG_BYTES;

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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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

    fn seal(&self, header: &Header, body: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = header.nonce();
        let sealed =
            self.cipher().encrypt_in_place_detached((&nonce).into(), &header.to_bytes(), body);
        // Refused are texts of 64 GiB only.
        sealed.map_or([0; TAG_BYTES], Into::into)
    }

    fn open(
        &self,
        header: &Header,
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), HeartbeatError> {
        let nonce = header.nonce();
        self.cipher()
            .decrypt_in_place_detached((&nonce).into(), &header.to_bytes(), body, tag.into())
            .map_err(|_| HeartbeatError::Tag)
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

    /// The key of a container's session: the first half of
    /// SHA-256(secret ‖ "welkin/whb1" ‖ epoch ‖ salt ‖ host ‖ container). All parts have fixed
    /// lengths and the secret is never a prefix that others choose, so a bare hash is a sound
    /// derivation; half of the output is withheld, so that it can't be extended.
    ///
    /// `salt` is another with each enrolment: beats of before it are then not to be replayed.
    pub fn session_key(
        &self,
        epoch: u16,
        salt: u32,
        host: NodeId,
        container: ContainerId,
    ) -> SessionKey {
        let mut hash = self.begin(b"welkin/whb1");
        hash.update(epoch.to_be_bytes());
        hash.update(salt.to_be_bytes());
        hash.update(host.as_bytes());
        hash.update(container.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        SessionKey(key)
    }

    /// Numbers that nobody else can foresee, for tables whose keys strangers choose.
    pub fn table_seed(&self) -> [u64; 8] {
        let mut seed = [0; 8];
        for (half, parts) in (0_u8..).zip(seed.chunks_exact_mut(4)) {
            let mut hash = self.begin(b"welkin/seed");
            hash.update([half]);
            let bytes: [u8; 32] = hash.finalize().into();
            for (part, bytes) in parts.iter_mut().zip(bytes.as_chunks().0) {
                *part = u64::from_le_bytes(*bytes);
            }
        }
        seed
    }

    fn begin(&self, label: &[u8; 11]) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(label);
        hash
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

    /// No two texts of a session have the same: see the module's page.
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = self.kind;
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        nonce
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
    /// Wants an answer: an acknowledgement, or a poke.
    pub wants_note: bool,
    /// Goes now: its host stops, and all of its sessions end.
    pub is_leaving: bool,
    /// Free slots, at most [`crate::Capability::SLOTS_MAX`].
    pub free: u16,
    /// By GPU of the container: whether no lease has it.
    pub gpus_free: u16,
    /// By GPU: how busy it is, in percent; 0 where unknown.
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
    /// How often beats of this session have told another set of leases than the one before. Who hears
    /// a count that neither is the last one nor follows it has missed one of them.
    pub lease_epoch: u32,
    /// The leases it carries: the exclusive or of the first 8 bytes of their ids. Who knows of
    /// another set has lost something.
    pub lease_digest: u64,
    /// Slots that spot leases use, at most [`crate::Capability::SLOTS_MAX`]: they can be had back.
    pub spot_used: u16,
}

// The flags; bits that are not used yet must be 0.
const DRAINING: u8 = 1;
const WANTS_NOTE: u8 = 2;
const LEAVING: u8 = 4;

impl Vitals {
    fn to_bytes(self) -> [u8; VITALS_BYTES] {
        let mut bytes = [0; VITALS_BYTES];
        let flags = [
            (self.is_draining, DRAINING),
            (self.wants_note, WANTS_NOTE),
            (self.is_leaving, LEAVING),
        ];
        bytes[0] = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
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
        bytes[37..39].copy_from_slice(&self.spot_used.to_le_bytes());
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
            wants_note: bytes[0] & WANTS_NOTE != 0,
            is_leaving: bytes[0] & LEAVING != 0,
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
            spot_used: u16::from_le_bytes(part(bytes, 37)),
        };
        let is_sound = bytes[0] & !(DRAINING | WANTS_NOTE | LEAVING) == 0
            && bytes[39] == 0
            && u32::from(vitals.free.max(vitals.spot_used)) <= crate::Capability::SLOTS_MAX
            && vitals.gpu_busy_percent.iter().all(|percent| *percent <= 100);
        if is_sound { Ok(vitals) } else { Err(HeartbeatError::Vitals) }
    }

    /// A beat with this state.
    pub fn seal(&self, key: &SessionKey, session: u32, counter: u64) -> [u8; BEAT_BYTES] {
        let header = Header { kind: BEAT, session, counter };
        let mut body = self.to_bytes();
        let tag = key.seal(&header, &mut body);
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
        key.open(&header, &mut body, &tag)?;
        Self::from_bytes(&body)
    }
}

/// An indexer's answer to a beat; the counter in its header says to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The beat was taken.
    Ack,
    /// The host is to announce itself again: the indexer knows another revision of it, or none, or
    /// its keys are old, or it has missed a beat that told of other leases.
    Poke,
}

impl Note {
    /// A datagram with this answer to the beat with this counter.
    pub fn seal(self, key: &SessionKey, session: u32, counter: u64) -> [u8; NOTE_BYTES] {
        let kind = match self {
            Self::Ack => ACK,
            Self::Poke => POKE,
        };
        let header = Header { kind, session, counter };
        let tag = key.seal(&header, &mut []);
        let mut datagram = [0; NOTE_BYTES];
        datagram[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        datagram[HEADER_BYTES..].copy_from_slice(&tag);
        datagram
    }

    /// Reads an answer of the session that its [`Header::of_note`] names.
    ///
    /// # Errors
    ///
    /// [`HeartbeatError`]
    pub fn open(key: &SessionKey, datagram: &[u8]) -> Result<Self, HeartbeatError> {
        let header = Header::of_note(datagram)?;
        let ([], tag) = split(datagram)?;
        key.open(&header, &mut [], &tag)?;
        Ok(if header.kind == ACK { Self::Ack } else { Self::Poke })
    }
}

/// What an indexer gives to a host that it takes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The revision of the capability that is taken.
    pub revision: u64,
    /// How often to beat where nothing changes, in milliseconds; it is to vary by a fifth.
    pub period_ms: u32,
    /// Whether the stream is to stay open: holds come over it, and its end is noticed at once. Where
    /// there are too many hosts for that, one whose datagrams are acknowledged closes it.
    pub keeps_stream: bool,
    /// The port for beats, at the address at which the indexer was reached; 0: it takes them over
    /// the stream only.
    pub port: u16,
    /// Further addresses that every beat goes to, as of a standby; at most [`STANDBYS_MAX`].
    pub standbys: Vec<SocketAddr>,
    /// Which keys these are.
    pub key_epoch: u16,
    /// The sessions of the host's containers.
    pub sessions: Vec<Enrolment>,
}

/// A container's session of heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The container.
    pub container: ContainerId,
    /// Its number at this indexer.
    pub session: u32,
    /// Its key; counters begin anew with it.
    pub key: SessionKey,
}

fn split<const N: usize>(datagram: &[u8]) -> Result<([u8; N], [u8; TAG_BYTES]), HeartbeatError> {
    let rest = datagram.get(HEADER_BYTES..).ok_or(HeartbeatError::Form)?;
    let (body, tag) = rest.split_first_chunk::<N>().ok_or(HeartbeatError::Form)?;
    let tag = <[u8; TAG_BYTES]>::try_from(tag).map_err(|_| HeartbeatError::Form)?;
    Ok((*body, tag))
}

#[cfg(test)]
mod tests;
