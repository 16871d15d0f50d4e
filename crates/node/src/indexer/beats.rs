//! Heartbeats: who is there, and what of it is free, out of datagrams.
//!
//! A host that has announced itself over a stream is given a session for each container; from then on
//! one datagram of 69 bytes every ten seconds keeps it alive (`welkin_proto::heartbeat`). A million
//! hosts are then some 110 MB and a fifth of a processor, where a million connections would be a
//! hundred times that. One thread ([`serve`](Beats::serve)) takes them in batches; what comes over
//! a stream, where datagrams do not pass, goes the same way ([`Beats::hear`]).
//!
//! Nobody is answered who fails the tag, and nothing is sent that no beat has asked for. So an
//! indexer can't be made to send to others, and holds are pushed only to hosts whose stream is open
//! ([`Config::streams_max`](super::Config::streams_max)): a hold is a courtesy, the buyer is at the
//! host's door within the round trip that telling it another way would take, and the host decides.
//!
//! Sessions are written to `sessions` in the role's folder once a minute and at the end. Keys follow
//! from `heartbeat.key` beside it: an indexer that restarts takes the next beats without a handshake.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, info, warn};
use welkin_match::{Fleet, PERIOD_MS, Presence, SessionsFull, Standing, Taken, key_epoch_of};
use welkin_net::DatagramSocket;
use welkin_proto::heartbeat::{
    BEAT_BYTES, FRAMED_MAX, NOTE_BYTES, Note, STANDBYS_MAX, Secret, Welcome,
};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::standby::Lead;
use crate::identity::{self, IdentityError};
use crate::outside;

mod apply;
mod kept;
mod pokes;
mod serve;
mod standby;
mod tally;

pub use tally::BeatCounters;

use pokes::{Pokes, Reason};
use tally::Tally;

/// The receive buffer: what comes in a tenth of a second from a million hosts, with the kernel's own
/// needs for each packet.
const BUFFER_BYTES: usize = 16 << 20;
/// A host whose stream has ended is there all the same if it has beaten so lately.
const BEATEN_LATELY_MS: u64 = PERIOD_MS * 5 / 4;

/// What the heartbeats of an indexer need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatsConfig {
    /// The indexer's folder: its secret and its sessions.
    pub dir: PathBuf,
    /// Where datagrams come in; with port 0 the port of the last start, if it is free. `None`: they
    /// come over streams only.
    pub listen: Option<SocketAddr>,
    /// The most hosts whose stream stays open.
    pub streams_max: usize,
    /// Further addresses that hosts send every beat to, as a standby's; at most two.
    pub standbys: Vec<SocketAddr>,
}

/// Why heartbeats can't be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeatsError {
    /// The secret that keys follow from can't be had.
    #[error("failed to open the secret of heartbeats")]
    Secret(#[source] IdentityError),
    /// The address can't be bound.
    #[error("failed to listen for heartbeats on {addr}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The sessions of heartbeats. Clones share them.
#[derive(Clone, Debug)]
pub struct Beats(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: BeatsConfig,
    presence: Mutex<Presence>,
    /// Taken by the thread that serves it.
    socket: Mutex<Option<DatagramSocket>>,
    port: u16,
    tally: Tally,
    pokes: Mutex<Pokes>,
    /// Whether it may answer, of several with one key.
    lead: Lead,
    /// Whether hosts are still taken up that are not to be asked to announce themselves.
    is_taking_up: AtomicBool,
}

/// Beats that are being worked on, with the ways on which they came; used again and again.
#[derive(Debug)]
struct Work<P>(Vec<Heard<P>>);

/// A beat that was taken, and what is to be done about it.
#[derive(Debug)]
struct Heard<P> {
    way: P,
    taken: Taken,
    note: Option<Note>,
    /// Whether its container is elsewhere in the fleet than its session says.
    is_moved: bool,
}

impl Beats {
    /// Opens the secret and the sessions of before, and binds the socket.
    ///
    /// # Errors
    ///
    /// [`BeatsError`] where the secret is unusable or the address is taken.
    pub fn open(config: BeatsConfig) -> Result<Self, BeatsError> {
        let secret = identity::secret(&config.dir.join("heartbeat.key"));
        let secret = Secret::from_bytes(secret.map_err(BeatsError::Secret)?);
        let presence = kept::load(&config.dir, secret, outside::now());
        Self::with(config, presence)
    }

    /// As [`Self::open`], with sessions that are there already.
    ///
    /// # Errors
    ///
    /// [`BeatsError::Listen`]
    pub fn with(config: BeatsConfig, presence: Presence) -> Result<Self, BeatsError> {
        Self::build(config, presence, Lead::always())
    }

    fn build(mut config: BeatsConfig, presence: Presence, lead: Lead) -> Result<Self, BeatsError> {
        config.standbys.truncate(STANDBYS_MAX);
        let bind = |addr| kept::bind(&config.dir, addr, BUFFER_BYTES);
        let socket = config.listen.map(bind).transpose()?;
        let bound = socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let shared = Shared {
            port: bound.map_or(0, |addr| addr.port()),
            presence: Mutex::new(presence),
            socket: Mutex::new(socket),
            tally: Tally::default(),
            pokes: Mutex::default(),
            lead,
            is_taking_up: AtomicBool::new(false),
            config,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// The indexer's folder.
    pub(super) fn dir(&self) -> &std::path::Path {
        &self.0.config.dir
    }

    /// The port that datagrams come in at; 0 where none do.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// What has happened so far.
    pub fn counters(&self) -> BeatCounters {
        self.0.tally.read()
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.presence().len()
    }

    /// Bytes that the sessions take.
    pub fn bytes(&self) -> usize {
        self.presence().bytes()
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.0.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many more streams may stay open.
    pub(super) fn keeps_streams(&self, open: usize) -> bool {
        open < self.0.config.streams_max
    }

    /// Takes a host in that has announced these containers.
    pub(super) fn enrol(
        &self,
        host: NodeId,
        containers: &[ContainerId],
        revision: u64,
        keeps_stream: bool,
    ) -> Result<Welcome, SessionsFull> {
        let (now, salt) = (outside::now(), u32::from_le_bytes(outside::random()));
        let containers = if containers.is_empty() { &[apply::NO_CONTAINER] } else { containers };
        let sessions = self.presence().enrol(now, host, containers, salt)?;
        self.0.tally.enrolled.add(1);
        Ok(Welcome {
            revision,
            period_ms: u32::try_from(PERIOD_MS).unwrap_or(u32::MAX),
            keeps_stream,
            port: self.0.port,
            standbys: self.0.config.standbys.clone(),
            key_epoch: key_epoch_of(now),
            sessions,
        })
    }

    /// When a host was last heard in any way, its enrolment included.
    pub(super) fn heard(&self, host: NodeId) -> Option<UnixMillis> {
        self.presence().heard(host)
    }

    /// Whether a host that was heard over its stream at `then` last has beaten by datagram since, and
    /// lately.
    pub(super) fn beats_without_stream(&self, host: NodeId, then: UnixMillis) -> bool {
        let now = outside::now();
        let is_lately = |heard: UnixMillis| now.0.saturating_sub(heard.0) <= BEATEN_LATELY_MS;
        let beaten = self.presence().beaten(host);
        beaten.is_some_and(|beaten| beaten > then && is_lately(beaten))
    }

    /// Takes beats that came in a frame of a stream. Returns the answers, one after the other; `None`
    /// where these are no beats.
    pub(super) fn hear_frame(&self, fleet: &Mutex<Fleet>, frame: &[u8]) -> Option<Vec<u8>> {
        let (beats, rest) = frame.as_chunks::<BEAT_BYTES>();
        if !rest.is_empty() || beats.len() > FRAMED_MAX {
            return None;
        }
        self.0.tally.framed.add(beats.len() as u64);
        let mut notes = Vec::new();
        let datagrams = beats.iter().map(|beat| ((), &beat[..]));
        self.hear(&mut Work(Vec::new()), fleet, datagrams, |(), note| {
            notes.extend_from_slice(note);
        });
        Some(notes)
    }

    /// Takes beats, each with the way back for its answer. Sessions and fleet are locked once each,
    /// one after the other.
    fn hear<'a, P: Copy>(
        &self,
        work: &mut Work<P>,
        fleet: &Mutex<Fleet>,
        datagrams: impl Iterator<Item = (P, &'a [u8])> + Clone,
        mut answer: impl FnMut(P, &[u8; NOTE_BYTES]),
    ) {
        let now = outside::now();
        let Work(work) = work;
        work.clear();
        if !self.0.lead.is_held() {
            return;
        }
        {
            let mut presence = self.presence();
            std::hint::black_box(presence.fetch(datagrams.clone().map(|(_, datagram)| datagram)));
            for (way, datagram) in datagrams {
                match presence.beat(now, datagram) {
                    Ok(taken) => {
                        if taken.has_missed {
                            self.0.tally.missed.add(1);
                        }
                        work.push(Heard { way, taken, note: None, is_moved: false });
                    }
                    Err(why) => self.0.tally.dropped(why),
                }
            }
        }
        if work.is_empty() {
            return;
        }
        self.0.tally.taken.add(work.len() as u64);
        {
            let mut fleet = fleet.lock().unwrap_or_else(PoisonError::into_inner);
            let places = work.iter().filter_map(|Heard { taken, .. }| {
                taken.place.map(|place| (place, apply::state_of(taken)))
            });
            std::hint::black_box(fleet.fetch(places));
            // Of one batch no host is asked twice.
            let mut poked = Vec::new();
            for Heard { taken, note, is_moved, .. } in work.iter_mut() {
                let before = taken.place;
                let is_known = apply::beat(&mut fleet, now, taken);
                *is_moved = taken.place != before;
                let is_poked = poked.contains(&taken.host);
                *note = self.note(now, taken, (is_known, is_poked));
                if *note == Some(Note::Poke) {
                    poked.push(taken.host);
                }
            }
        }
        let is_over = |heard: &Heard<P>| {
            heard.note.is_none() && !heard.is_moved && !heard.taken.vitals.is_leaving
        };
        if work.iter().all(is_over) {
            return;
        }
        let mut presence = self.presence();
        for Heard { way, taken, note, is_moved } in work.iter() {
            if *is_moved {
                presence.set_place(taken.session, taken.place);
            }
            if *note == Some(Note::Poke) {
                presence.asked(now, taken.host);
            }
            let sealed = note.and_then(|note| presence.answer(taken, note));
            if let Some(note) = sealed {
                self.0.tally.answered.add(1);
                answer(*way, &note);
            }
            if taken.vitals.is_leaving {
                presence.end(taken.host);
                debug!(host = %taken.host, "a host says that it stops");
            }
        }
    }

    /// What is said to a beat.
    fn note(
        &self,
        now: UnixMillis,
        taken: &Taken,
        (is_known, is_poked): (bool, bool),
    ) -> Option<Note> {
        let reason = match (is_known && !taken.has_old_key, taken.is_asking) {
            (false, _) => Some(Reason::Unknown).filter(|_| taken.may_be_asked),
            (true, true) => Some(Reason::Leases),
            (true, false) => None,
        };
        let reason = reason.filter(|_| !taken.vitals.is_leaving && !is_poked);
        if reason.is_some_and(|reason| self.may_poke(now, reason)) {
            self.0.tally.poked.add(1);
            return Some(Note::Poke);
        }
        taken.vitals.wants_note.then_some(Note::Ack)
    }

    fn may_poke(&self, now: UnixMillis, reason: Reason) -> bool {
        if self.0.is_taking_up.load(Ordering::Acquire) {
            return false;
        }
        self.0.pokes.lock().unwrap_or_else(PoisonError::into_inner).take(now, reason)
    }

    /// Looks at the next `count` sessions. Who is suspect is not offered, by the same silence; who is
    /// gone is dropped.
    fn sweep(&self, fleet: &Mutex<Fleet>, count: usize) {
        let now = outside::now();
        let mut presence = self.presence();
        let changed = presence.sweep_part(now, count);
        if changed.is_empty() {
            return;
        }
        let is_gone = |host: &NodeId| {
            let mut sessions = presence.sessions_of(*host);
            sessions.all(|session| presence.standing(session) == Some(Standing::Gone))
        };
        let gone = changed.iter().filter(|(_, standing)| *standing == Standing::Gone);
        let hosts = gone.filter_map(|(session, _)| presence.owner(*session));
        let gone: Vec<NodeId> = hosts.map(|(host, _)| host).filter(is_gone).collect();
        drop(presence);
        let mut fleet = fleet.lock().unwrap_or_else(PoisonError::into_inner);
        for host in gone {
            fleet.leave(now, host);
            self.0.tally.gone.add(1);
            info!(%host, "a host is silent and given up");
        }
    }

    /// Writes the sessions down; a failure is told, and costs enrolments after a restart.
    fn keep(&self) {
        let dump = self.presence().dump();
        if let Err(error) = kept::write(&self.0.config.dir, &dump) {
            warn!(%error, "sessions of heartbeats are not kept: hosts must enrol after a restart");
        }
    }
}
