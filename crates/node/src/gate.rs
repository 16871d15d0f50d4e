//! The door of a role: how many connections there may be, in all and from one side, and how long one
//! may be there without a word.
//!
//! Whoever opens thousands of connections fills its own share and nobody else's. A connection that
//! is refused is told why, as far as that is cheap; everything is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};
use welkin_net::{Connection, Incoming, RecvStream, SendStream};
use welkin_types::AccountId;

/// How long a connection may take until its first stream.
pub(crate) const FIRST_STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection on which nothing is under way is kept.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);
/// The most connections from one address, and of one account, at one role.
const SHARE: usize = 512;
/// Refused connections that are told why at the same time; more are refused without a word.
const TOLD_MAX: usize = 64;

/// Closing code: there are too many connections.
pub const CODE_TOO_MANY: u32 = 6;
/// Closing code: nothing was under way for too long.
pub const CODE_IDLE: u32 = 7;
/// Closing code: nothing was said at all.
const CODE_NO_HELLO: u32 = 2;

/// How many connections a role takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// In all.
    pub total: usize,
    /// From one address (of IPv6, one network of 64 bits).
    pub from_address: usize,
    /// Through relays, which show no address.
    pub through_relays: usize,
    /// Of one account, where it is known.
    pub of_account: usize,
}

impl GateLimits {
    /// Shares of a whole: half for relays, 512 for one address and for one account.
    pub const fn of(total: usize) -> Self {
        Self { total, from_address: SHARE, through_relays: total / 2, of_account: SHARE }
    }
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooMany {
    /// In all.
    #[error("there are {0} connections already: try again later")]
    InAll(usize),
    /// From one address.
    #[error("there are {0} connections from your address already: close some")]
    FromAddress(usize),
    /// Through relays.
    #[error("there are {0} connections through relays already: connect directly or try later")]
    ThroughRelays(usize),
    /// Of one account.
    #[error("there are {0} connections of your account already: close some")]
    OfAccount(usize),
}

/// What has happened at a role's door; each only grows, but for `open`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateCounters {
    /// Connections now.
    pub open: u64,
    /// Taken so far.
    pub taken: u64,
    /// Refused: too many in all, from an address, through relays, of an account.
    pub refused: [u64; 4],
    /// Closed because nothing was under way.
    pub idle: u64,
}

/// Where a connection comes from, for its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
    Relay,
}

impl Source {
    fn of(addr: Option<SocketAddr>) -> Self {
        match addr.map(|addr| addr.ip().to_canonical()) {
            None => Self::Relay,
            Some(IpAddr::V4(ip)) => Self::V4(ip.octets()),
            Some(IpAddr::V6(ip)) => {
                let mut network = [0; 8];
                network.copy_from_slice(&ip.octets()[..8]);
                Self::V6(network)
            }
        }
    }
}

/// The door of one role.
pub(crate) struct Gate {
    limits: GateLimits,
    inside: Mutex<Inside>,
    telling: Semaphore,
    taken: AtomicU64,
    refused: [AtomicU64; 4],
    idle: AtomicU64,
}

#[derive(Default)]
struct Inside {
    total: usize,
    sources: BTreeMap<Source, usize>,
    accounts: BTreeMap<AccountId, usize>,
}

/// A place inside, given back when dropped.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    source: Option<Source>,
    account: Mutex<Option<AccountId>>,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            inside: Mutex::default(),
            telling: Semaphore::new(TOLD_MAX),
            taken: AtomicU64::new(0),
            refused: Default::default(),
            idle: AtomicU64::new(0),
        })
    }

    /// What has happened so far.
    pub(crate) fn counters(&self) -> GateCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateCounters {
            open: self.inside().total as u64,
            taken: read(&self.taken),
            refused: [0, 1, 2, 3].map(|kind| read(&self.refused[kind])),
            idle: read(&self.idle),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection through its handshake, or refuses it.
    pub(crate) async fn admit(self: &Arc<Self>, incoming: Incoming) -> Option<(Connection, Pass)> {
        let source = Source::of(incoming.remote_addr());
        let has_room = self.check(&self.inside(), source);
        let mut pass = match has_room.and_then(|()| self.enter()) {
            Ok(pass) => pass,
            Err(why) => {
                self.refuse(incoming, why).await;
                return None;
            }
        };
        let connection = match incoming.handshake().await {
            Ok(connection) => connection,
            Err(error) => {
                debug!(%error, "no handshake");
                return None;
            }
        };
        // Only now it is known that the peer is where it says: a forged address must not use up
        // the share of whoever really has it.
        if let Err(why) = pass.locate(source) {
            self.count(why);
            connection.close(CODE_TOO_MANY, why.to_string().as_bytes());
            return None;
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some((connection, pass))
    }

    /// Whether there is room for one more from there.
    fn check(&self, inside: &Inside, source: Source) -> Result<(), TooMany> {
        let count = inside.sources.get(&source).copied().unwrap_or(0);
        match source {
            Source::Relay if count >= self.limits.through_relays => {
                Err(TooMany::ThroughRelays(count))
            }
            Source::V4(_) | Source::V6(_) if count >= self.limits.from_address => {
                Err(TooMany::FromAddress(count))
            }
            _ => Ok(()),
        }
    }

    fn enter(self: &Arc<Self>) -> Result<Pass, TooMany> {
        let mut inside = self.inside();
        if inside.total >= self.limits.total {
            return Err(TooMany::InAll(inside.total));
        }
        inside.total += 1;
        Ok(Pass { gate: Arc::clone(self), source: None, account: Mutex::default() })
    }

    fn count(&self, why: TooMany) {
        let kind = match why {
            TooMany::InAll(_) => 0,
            TooMany::FromAddress(_) => 1,
            TooMany::ThroughRelays(_) => 2,
            TooMany::OfAccount(_) => 3,
        };
        let count = self.refused[kind].fetch_add(1, Ordering::Relaxed) + 1;
        // The first, and then ever more rarely: a flood must not fill the log as well.
        if count.is_power_of_two() {
            warn!(%why, count, "connections are refused");
        }
    }

    /// Says why, where not too many are being told: that takes a handshake.
    async fn refuse(&self, incoming: Incoming, why: TooMany) {
        self.count(why);
        let Ok(_permit) = self.telling.try_acquire() else {
            incoming.refuse();
            return;
        };
        if let Ok(connection) = incoming.handshake().await {
            connection.close(CODE_TOO_MANY, why.to_string().as_bytes());
        }
    }

    /// Closes a connection that is there for nothing.
    pub(crate) fn close_idle(&self, connection: &Connection) {
        self.idle.fetch_add(1, Ordering::Relaxed);
        connection.close(CODE_IDLE, b"nothing was under way for too long");
    }

    /// The next stream of a connection whose streams are tasks of `streams`; `None` once it is
    /// lost, or was closed here because nothing is said on it.
    pub(crate) async fn next_stream<T: 'static>(
        &self,
        connection: &Connection,
        is_first: bool,
        streams: &mut JoinSet<T>,
    ) -> Option<(SendStream, RecvStream)> {
        let wait = if is_first { FIRST_STREAM_TIMEOUT } else { IDLE_MAX };
        loop {
            tokio::select! {
                accepted = connection.accept() => return accepted.ok(),
                Some(_) = streams.join_next() => (),
                () = tokio::time::sleep(wait), if streams.is_empty() => {
                    if is_first {
                        self.idle.fetch_add(1, Ordering::Relaxed);
                        connection.close(CODE_NO_HELLO, b"no hello");
                    } else {
                        self.close_idle(connection);
                    }
                    return None;
                }
            }
        }
    }
}

impl Pass {
    /// Counts the connection to the share of where it comes from.
    fn locate(&mut self, source: Source) -> Result<(), TooMany> {
        let mut inside = self.gate.inside();
        self.gate.check(&inside, source)?;
        *inside.sources.entry(source).or_default() += 1;
        self.source = Some(source);
        Ok(())
    }

    /// Says whose connection it is.
    ///
    /// # Errors
    ///
    /// [`TooMany::OfAccount`] where the account has too many; the connection is to be closed.
    pub(crate) fn identify(&self, account: AccountId) -> Result<(), TooMany> {
        let mut known = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == Some(account) {
            return Ok(());
        }
        let mut inside = self.gate.inside();
        let count = inside.accounts.get(&account).copied().unwrap_or(0);
        if count >= self.gate.limits.of_account {
            drop(inside);
            let why = TooMany::OfAccount(count);
            self.gate.count(why);
            return Err(why);
        }
        inside.accounts.insert(account, count + 1);
        if let Some(before) = known.replace(account) {
            leave(&mut inside.accounts, &before);
        }
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let account = *self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inside = self.gate.inside();
        inside.total = inside.total.saturating_sub(1);
        if let Some(source) = self.source {
            leave(&mut inside.sources, &source);
        }
        if let Some(account) = account {
            leave(&mut inside.accounts, &account);
        }
    }
}

/// One less; what has none left is forgotten.
fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.counters())
    }
}

/// What is under way on a connection, for those whose streams are not all in one place.
#[derive(Clone, Debug)]
pub(crate) struct Busy(Arc<Mutex<(usize, Instant)>>);

/// Something under way; over when dropped.
#[derive(Debug)]
pub(crate) struct Work(Busy);

impl Busy {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((0, Instant::now()))))
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was said.
    pub(crate) fn note(&self) {
        self.lock().1 = Instant::now();
    }

    /// Something begins.
    pub(crate) fn begin(&self) -> Work {
        self.lock().0 += 1;
        Work(self.clone())
    }

    /// Completes once nothing was under way for [`IDLE_MAX`].
    pub(crate) async fn idle(&self) {
        loop {
            let (count, since) = *self.lock();
            let end = if count > 0 { Instant::now() + IDLE_MAX } else { since + IDLE_MAX };
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.0 = state.0.saturating_sub(1);
        state.1 = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use welkin_net::{ConnectionLost, Endpoint, EndpointConfig};

    use super::*;

    const LIMITS: GateLimits =
        GateLimits { total: 8, from_address: 3, through_relays: 2, of_account: 2 };

    fn from(text: &str) -> Source {
        Source::of(Some(text.parse().unwrap()))
    }

    fn enter(gate: &Arc<Gate>, source: Source) -> Result<Pass, TooMany> {
        let mut pass = gate.enter()?;
        pass.locate(source).map(|()| pass)
    }

    #[test]
    fn each_side_has_its_share_and_gives_it_back() {
        let gate = Gate::new(LIMITS);
        let one: Vec<_> = (0..3).map(|_| enter(&gate, from("192.0.2.1:9")).unwrap()).collect();
        assert_eq!(enter(&gate, from("192.0.2.1:8")).err(), Some(TooMany::FromAddress(3)));
        // The same address in its other form, and another network of the same size.
        assert!(enter(&gate, from("[::ffff:192.0.2.1]:8")).is_err());
        let _six = enter(&gate, from("[2001:db8::1]:1")).unwrap();
        let _too = enter(&gate, from("[2001:db8::2]:1")).unwrap();
        assert_eq!(Source::of(None), Source::Relay);
        let _relayed = [enter(&gate, Source::Relay).unwrap(), enter(&gate, Source::Relay).unwrap()];
        assert_eq!(enter(&gate, Source::Relay).err(), Some(TooMany::ThroughRelays(2)));
        let _last = enter(&gate, from("192.0.2.2:1")).unwrap();
        assert_eq!(enter(&gate, from("192.0.2.3:1")).err(), Some(TooMany::InAll(8)));
        drop(one);
        assert!(enter(&gate, from("192.0.2.1:8")).is_ok());
        assert_eq!(gate.counters().open, 5);
    }

    #[test]
    fn an_account_is_counted_once_for_each_connection() {
        let gate = Gate::new(LIMITS);
        let account = AccountId::from_bytes([1; 20]);
        let passes: Vec<_> =
            (1..4).map(|n| enter(&gate, from(&format!("192.0.2.{n}:9"))).unwrap()).collect();
        for _ in 0..5 {
            assert_eq!(passes[0].identify(account), Ok(()));
            assert_eq!(passes[1].identify(account), Ok(()));
        }
        assert_eq!(passes[2].identify(account), Err(TooMany::OfAccount(2)));
        assert_eq!(passes[0].identify(AccountId::from_bytes([2; 20])), Ok(()));
        assert_eq!(passes[2].identify(account), Ok(()));
        drop(passes);
        assert!(gate.inside().accounts.is_empty() && gate.inside().sources.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_keeps_a_connection() {
        let busy = Busy::new();
        let work = busy.begin();
        assert!(tokio::time::timeout(10 * IDLE_MAX, busy.idle()).await.is_err());
        drop(work);
        let began = Instant::now();
        busy.idle().await;
        assert!(began.elapsed() >= IDLE_MAX && began.elapsed() < 3 * IDLE_MAX);
    }

    async fn endpoint(ip: [u8; 4]) -> Endpoint {
        let mut config = EndpointConfig::new(crate::outside::random());
        config.listen = vec![(ip, 0).into()];
        config.alpns = vec![b"gate".to_vec()];
        Endpoint::bind(config).await.unwrap()
    }

    #[tokio::test]
    async fn a_crowd_is_told_why_and_others_come_in() {
        let gate = Gate::new(LIMITS);
        let server = endpoint([127, 0, 0, 1]).await;
        let addr = server.addr();
        let serving = Arc::clone(&gate);
        let shutdown = crate::Shutdown::default();
        let inner = shutdown.clone();
        shutdown.spawn_until_asked("accept", async move {
            while let Some(incoming) = server.accept().await {
                let gate = Arc::clone(&serving);
                inner.spawn_until_asked("serve", async move {
                    if let Some((connection, _pass)) = gate.admit(incoming).await {
                        let mut none = JoinSet::<()>::new();
                        while gate.next_stream(&connection, true, &mut none).await.is_some() {}
                    }
                });
            }
        });
        let crowd = endpoint([127, 0, 0, 2]).await;
        let connect = async |from: &Endpoint| {
            from.connect(&addr, b"gate", Duration::from_secs(10)).await.unwrap()
        };
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(connect(&crowd).await);
        }
        let (mut told, mut began) = (0, Instant::now());
        while told < 7 {
            assert!(began.elapsed() < Duration::from_secs(5), "{told} were told");
            tokio::time::sleep(Duration::from_millis(10)).await;
            told = held.iter().filter(|held| held.close_reason().is_some()).count();
        }
        for refused in held.iter().filter_map(Connection::close_reason) {
            let ConnectionLost::ClosedByPeer { code, reason } = refused else { panic!() };
            assert_eq!(code, u64::from(CODE_TOO_MANY));
            assert!(reason.starts_with(b"there are 3 connections from your address"), "{reason:?}");
        }
        // Meanwhile somebody else comes in, and stays.
        let elsewhere = endpoint([127, 0, 0, 3]).await;
        let other = connect(&elsewhere).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(other.close_reason().is_none());
        assert_eq!(
            gate.counters(),
            GateCounters { open: 4, taken: 4, refused: [0, 7, 0, 0], idle: 0 }
        );
        // Who says nothing goes after a while, and makes room.
        began = Instant::now();
        for connection in &held {
            connection.closed().await;
        }
        assert!(began.elapsed() < 2 * FIRST_STREAM_TIMEOUT);
        let again = connect(&crowd).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(again.close_reason().is_none());
        shutdown.finish(Duration::from_secs(1)).await;
    }
}
