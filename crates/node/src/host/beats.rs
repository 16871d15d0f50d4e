//! Heartbeats to one indexer: datagrams, or frames of the stream where datagrams do not pass.
//!
//! [`super::announce`] keeps the announcement and hands over what the indexer gives for it
//! ([`Link::give`]); this task seals the beats and hears the answers. When to beat is said by
//! [`Pulse`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info};
use welkin_lease::Slots;
use welkin_proto::heartbeat::{
    BEAT_BYTES, Enrolment, Header, NOTE_BYTES, Note, STANDBYS_MAX, SessionKey, Vitals, Welcome,
};
use welkin_types::ContainerId;

use super::Host;
use super::health::GpuLoad;
use super::pulse::{Fire, Pulse};
use super::told::Told;
use crate::outside;

/// Periods that are taken from an indexer, in milliseconds.
const PERIODS_MS: std::ops::RangeInclusive<u64> = 1_000..=60_000;
/// Frames that wait for the stream, and answers that come over it.
const FRAMES_MAX: usize = 16;
/// How often a host that stops says so: datagrams may be lost.
const FAREWELLS: usize = 3;
const FAREWELL_PAUSE: Duration = Duration::from_millis(20);

/// On which way an indexer hears a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not known yet.
    Unknown,
    /// Datagrams are answered.
    Datagrams,
    /// Datagrams are not answered: the stream is needed.
    Stream,
}

/// Between the task that keeps the announcement and the one that beats.
#[derive(Debug)]
pub(super) struct Link {
    given: watch::Sender<Option<Arc<Given>>>,
    /// On which way the indexer hears the host.
    pub(super) way: watch::Sender<Way>,
    /// The indexer wants the host to announce itself again.
    pub(super) poked: Notify,
    frames: mpsc::Sender<Vec<u8>>,
    /// Answers that came over the stream.
    pub(super) notes: mpsc::Sender<Vec<u8>>,
}

/// The other ends of a [`Link`].
#[derive(Debug)]
pub(super) struct Ends {
    /// Beats to be sent over the stream.
    pub(super) frames: mpsc::Receiver<Vec<u8>>,
    /// To [`Beater::run`].
    pub(super) notes: mpsc::Receiver<Vec<u8>>,
}

/// What an indexer gave for an announcement, and where beats go.
#[derive(Debug)]
struct Given {
    welcome: Welcome,
    addrs: Vec<SocketAddr>,
}

impl Link {
    /// Takes a poke that has come: the announcement that was answered just now answers it, too.
    pub(super) fn take_poke(&self) {
        let poked = self.poked.notified();
        tokio::pin!(poked);
        let _ = poked.as_mut().enable();
    }

    pub(super) fn new() -> (Self, Ends) {
        let (frames, framed) = mpsc::channel(FRAMES_MAX);
        let (notes, noted) = mpsc::channel(FRAMES_MAX);
        let (given, way) = (watch::channel(None).0, watch::channel(Way::Unknown).0);
        let link = Self { given, way, poked: Notify::new(), frames, notes };
        (link, Ends { frames: framed, notes: noted })
    }

    /// Beats as this says from now on. `reached` is where the indexer was met, `known` where it is
    /// said to be by the network: a standby elsewhere is not believed, or an indexer could have its
    /// hosts send to anybody.
    pub(super) fn give(&self, welcome: Welcome, reached: Option<SocketAddr>, known: &[SocketAddr]) {
        let own = reached.or_else(|| known.first().copied()).filter(|_| welcome.port > 0);
        let own = own.map(|addr| SocketAddr::new(addr.ip(), welcome.port));
        let is_known = |addr: &&SocketAddr| known.iter().any(|known| known.ip() == addr.ip());
        let standbys = welcome.standbys.iter().take(STANDBYS_MAX).filter(is_known);
        let of_family = |addr: &SocketAddr| own.is_some_and(|own| own.is_ipv4() == addr.is_ipv4());
        let addrs = own.into_iter().chain(standbys.copied()).filter(of_family).collect();
        self.way.send_replace(Way::Unknown);
        self.given.send_replace(Some(Arc::new(Given { welcome, addrs })));
    }
}

/// One container's session.
#[derive(Debug)]
struct Session {
    container: ContainerId,
    number: u32,
    key: SessionKey,
    /// Of the last beat.
    counter: u64,
    /// Of the first beat that still waits for its answer.
    asked: Option<u64>,
    /// Answered by a poke up to here.
    poked: u64,
    told: Told,
}

/// Beats to one indexer.
#[derive(Debug)]
pub(super) struct Beater {
    host: Arc<Host>,
    link: Arc<Link>,
    socket: Option<UdpSocket>,
    given: Option<Arc<Given>>,
    sessions: Vec<Session>,
    pulse: Pulse,
    began: Instant,
}

impl Beater {
    pub(super) fn new(host: Arc<Host>, link: Arc<Link>) -> Self {
        let pulse = Pulse::new(0, *PERIODS_MS.end(), false);
        let began = Instant::now();
        Self { host, link, socket: None, given: None, sessions: Vec::new(), pulse, began }
    }

    /// Beats for ever.
    pub(super) async fn run(&mut self, notes: &mut mpsc::Receiver<Vec<u8>>) {
        let mut given = self.link.given.subscribe();
        let host = Arc::clone(&self.host);
        // Registered again before each look at the host's state, so that no change falls between.
        let mut changed = Box::pin(host.changed.notified());
        changed.as_mut().enable();
        let mut answer = [0; NOTE_BYTES + 1];
        loop {
            let due = self.began + Duration::from_millis(self.pulse.next());
            tokio::select! {
                has_given = given.changed() => {
                    if has_given.is_err() {
                        return;
                    }
                    let given = given.borrow_and_update().clone();
                    self.begin(given).await;
                }
                () = &mut changed => {
                    changed.set(host.changed.notified());
                    changed.as_mut().enable();
                    self.pulse.changed(self.now());
                }
                () = tokio::time::sleep_until(due) => self.fire().await,
                length = receive(self.socket.as_ref(), &mut answer) => {
                    self.hear(&answer[..length]);
                }
                Some(frame) = notes.recv() => {
                    frame.chunks(NOTE_BYTES).for_each(|note| self.hear_framed(note));
                }
            }
            self.tell_way();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn begin(&mut self, given: Option<Arc<Given>>) {
        let Some(given) = given else { return };
        let session = |enrolment: &Enrolment| Session {
            container: enrolment.container,
            number: enrolment.session,
            key: enrolment.key.clone(),
            counter: 0,
            asked: None,
            poked: 0,
            told: Told::default(),
        };
        self.sessions = given.welcome.sessions.iter().map(session).collect();
        let is_other = self.socket_is_v4() != given.addrs.first().map(SocketAddr::is_ipv4);
        if is_other {
            self.socket = match given.addrs.first() {
                Some(addr) => bind(addr).await,
                None => None,
            };
        }
        let period =
            u64::from(given.welcome.period_ms).clamp(*PERIODS_MS.start(), *PERIODS_MS.end());
        self.pulse = Pulse::new(self.now(), period, self.socket.is_some());
        self.given = Some(given);
    }

    fn socket_is_v4(&self) -> Option<bool> {
        Some(self.socket.as_ref()?.local_addr().ok()?.is_ipv4())
    }

    async fn fire(&mut self) {
        let jitter = u64::from(u16::from_le_bytes(outside::random())) * 1_000 / 65_535;
        let vitals = self.vitals();
        match self.pulse.fire(self.now(), jitter) {
            Fire::Rest => (),
            Fire::Beat { is_datagram, is_framed, asks } => {
                if is_framed {
                    let mut frame = Vec::with_capacity(self.sessions.len() * BEAT_BYTES);
                    for index in 0..self.sessions.len() {
                        frame.extend_from_slice(&self.seal(index, &vitals, false));
                    }
                    // Where no stream is open or it is stuck, the next beat says it all.
                    let _ = self.link.frames.try_send(frame);
                }
                if is_datagram {
                    self.sessions.iter_mut().for_each(|session| session.asked = None);
                    self.send(&vitals, asks, |_| true).await;
                }
            }
            Fire::Repeat => self.send(&vitals, true, |session| session.asked.is_some()).await,
        }
    }

    async fn send(&mut self, vitals: &[Vitals], asks: bool, is_due: impl Fn(&Session) -> bool) {
        let Some(given) = self.given.clone() else { return };
        for index in 0..self.sessions.len() {
            if !is_due(&self.sessions[index]) {
                continue;
            }
            let beat = self.seal(index, vitals, asks);
            let Some(socket) = &self.socket else { return };
            for addr in &given.addrs {
                // What does not get out is not answered, and that is noticed.
                let _ = socket.send_to(&beat, addr).await;
            }
        }
    }

    fn seal(&mut self, index: usize, vitals: &[Vitals], asks: bool) -> [u8; BEAT_BYTES] {
        let session = &mut self.sessions[index];
        session.counter += 1;
        if asks && session.asked.is_none() {
            session.asked = Some(session.counter);
        }
        let vitals = vitals.get(index).copied().unwrap_or_default();
        let lease_epoch = session.told.tell(vitals.lease_digest);
        let vitals = Vitals { wants_note: asks, lease_epoch, ..vitals };
        vitals.seal(&session.key, session.number, session.counter)
    }

    /// How each container stands, in the order of the sessions, except for what is counted when it is
    /// said.
    fn vitals(&self) -> Vec<Vitals> {
        let loads = self.host.health.loads();
        let (free, spot, digests, gpus) = {
            // One lock for all: they belong together.
            let slots = self.host.slots();
            let gpus = |session: &Session| gpus_told(&slots, session.container, &loads);
            let gpus: Vec<_> = self.sessions.iter().map(gpus).collect();
            (slots.all_unleased(), slots.all_preemptible(), slots.lease_digests(), gpus)
        };
        let revision = self.given.as_ref().map_or(0, |given| given.welcome.revision);
        let is_draining = self.host.draining.load(Ordering::Acquire);
        let of = |(session, gpus): (&Session, Vitals)| {
            let of_its = |counts: &[(ContainerId, u32)]| {
                let count = counts.iter().find(|(id, _)| *id == session.container);
                count.map_or(0, |(_, count)| u16::try_from(*count).unwrap_or(u16::MAX))
            };
            Vitals {
                is_draining,
                free: of_its(&free),
                spot_used: of_its(&spot),
                #[expect(clippy::cast_possible_truncation, reason = "its lower half is compared")]
                revision: revision as u32,
                lease_digest: digests.get(&session.container).copied().unwrap_or(0),
                ..gpus
            }
        };
        self.sessions.iter().zip(gpus).map(of).collect()
    }

    /// Hears an answer that came as a datagram.
    fn hear(&mut self, note: &[u8]) {
        if self.hear_any(note).is_some() && self.sessions.iter().all(|one| one.asked.is_none()) {
            self.pulse.answered();
        }
    }

    fn hear_framed(&mut self, note: &[u8]) {
        let _ = self.hear_any(note);
    }

    /// Anybody may send anything here: what is no answer to a beat of ours changes nothing.
    fn hear_any(&mut self, note: &[u8]) -> Option<()> {
        let header = Header::of_note(note).ok()?;
        let session = self.sessions.iter_mut().find(|one| one.number == header.session)?;
        if header.counter > session.counter {
            return None;
        }
        let note = Note::open(&session.key, note).ok()?;
        let is_asked = session.asked.is_some_and(|asked| header.counter >= asked);
        let is_new_poke = note == Note::Poke && header.counter > session.poked;
        if is_asked {
            session.asked = None;
        }
        if is_new_poke {
            session.poked = header.counter;
            debug!("an indexer asks for a new announcement");
            self.link.poked.notify_one();
        }
        (is_asked || is_new_poke).then_some(())
    }

    fn tell_way(&self) {
        let way = match (self.pulse.is_proven(), self.pulse.is_framed()) {
            (true, _) => Way::Datagrams,
            (false, true) => Way::Stream,
            (false, false) => return,
        };
        let has_changed = self.link.way.send_if_modified(|present| {
            let before = std::mem::replace(present, way);
            before != way
        });
        if has_changed {
            let is_framed = way == Way::Stream;
            info!(is_framed, "an indexer hears this host");
        }
    }

    /// Tells the indexer that this host stops.
    pub(super) async fn leave(&mut self) {
        let vitals = Vitals { is_leaving: true, ..Vitals::default() };
        let vitals = vec![vitals; self.sessions.len()];
        if self.socket.is_none() {
            // The end of the stream says it.
            return;
        }
        for _ in 0..FAREWELLS {
            self.send(&vitals, false, |_| true).await;
            tokio::time::sleep(FAREWELL_PAUSE).await;
        }
    }
}

async fn bind(to: &SocketAddr) -> Option<UdpSocket> {
    let any = if to.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    match UdpSocket::bind(any).await {
        Ok(socket) => Some(socket),
        Err(error) => {
            debug!(%error, "no socket for heartbeats: they go over the stream");
            None
        }
    }
}

/// The length of the next datagram that is as long as an answer.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8; NOTE_BYTES + 1]) -> usize {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.recv_from(buffer).await {
            Ok((NOTE_BYTES, _)) => return NOTE_BYTES,
            Ok(_) => (),
            // As where nobody listens at the other end; told by silence soon enough.
            Err(_) => tokio::time::sleep(FAREWELL_PAUSE).await,
        }
    }
}

/// What is said of a container's GPUs: which are free, how busy and how hot they are. Of what no
/// sensor says anything it is 0.
fn gpus_told(slots: &Slots, container: ContainerId, loads: &BTreeMap<String, GpuLoad>) -> Vitals {
    let mut vitals = Vitals::default();
    for (index, (gpu, is_free)) in slots.devices_told(container).into_iter().enumerate() {
        let load = loads.get(gpu).copied().unwrap_or_default();
        if let Some(bit) = u32::try_from(index).ok().and_then(|index| 1_u16.checked_shl(index)) {
            vitals.gpus_free |= if is_free { bit } else { 0 };
        }
        if let Some(busy) = vitals.gpu_busy_percent.get_mut(index) {
            *busy = load.busy_percent;
        }
        vitals.gpu_temperature_max_c = vitals.gpu_temperature_max_c.max(load.temperature_c);
    }
    vitals
}
