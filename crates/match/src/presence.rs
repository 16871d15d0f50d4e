//! Who is there: the sessions of heartbeats, and when a silent one counts as gone.
//!
//! A million sessions fit into one machine: a row is about 64 bytes, and a beat costs a look-up and
//! a few additions. Whether a session is alive follows from its own rhythm (an accrual detector, as
//! Hayashibara and others describe it, with the deviation in place of the probability): the time
//! since its last beat is compared with the mean and the deviation of the times between its beats.
//!
//! One blip of the network must not end leases. So a session that misses beats is first *suspect*:
//! it is offered no more, and nothing else happens. It is *gone* only much later, and while more
//! than a few of all sessions fell silent together nobody is declared gone at all: then it is in
//! all likelihood this indexer that is cut off.

use std::net::SocketAddr;

use welkin_proto::heartbeat::{Header, HeartbeatError, SessionKey, Vitals};
use welkin_types::UnixMillis;

/// The most sessions.
pub const SESSIONS_MAX: usize = 1 << 21;
/// How often a host beats, in milliseconds; it varies that by a fifth.
pub const PERIOD_MS: u64 = 10_000;
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
/// The least deviation that is believed, in milliseconds: a tenth of the period.
const DEVIATION_MS_MIN: u32 = 1_000;

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
    /// The beat's counter, for the acknowledgement.
    pub counter: u64,
    /// What it says.
    pub vitals: Vitals,
    /// What the session was before.
    pub was: Standing,
    /// Whether the host's address has changed.
    pub has_moved: bool,
}

#[derive(Clone, Debug)]
struct Row {
    key: SessionKey,
    counter: u64,
    /// When it was last heard.
    heard: UnixMillis,
    from: Option<SocketAddr>,
    /// Mean and mean deviation of the times between regular beats, in milliseconds.
    mean_ms: u32,
    deviation_ms: u32,
    standing: Standing,
}

/// All sessions of an indexer, by number.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    rows: Vec<Option<Row>>,
    vacant: Vec<u32>,
    suspects: usize,
    /// Since when too many are suspect.
    cut_off: Option<UnixMillis>,
}

impl Presence {
    /// Begins a session; its number may have been another's before. It counts as just heard.
    ///
    /// # Errors
    ///
    /// [`SessionsFull`]
    pub fn enrol(&mut self, now: UnixMillis, key: SessionKey) -> Result<u32, SessionsFull> {
        let row = Row {
            key,
            counter: 0,
            heard: now,
            from: None,
            mean_ms: u32::try_from(PERIOD_MS).unwrap_or(u32::MAX),
            deviation_ms: DEVIATION_MS_MIN,
            standing: Standing::Alive,
        };
        if let Some(session) = self.vacant.pop() {
            self.rows[session as usize] = Some(row);
            return Ok(session);
        }
        let session = u32::try_from(self.rows.len()).map_err(|_| SessionsFull)?;
        if self.rows.len() >= SESSIONS_MAX {
            return Err(SessionsFull);
        }
        self.rows.push(Some(row));
        Ok(session)
    }

    /// Ends a session.
    pub fn end(&mut self, session: u32) {
        let Some(row) = self.rows.get_mut(session as usize) else { return };
        if let Some(row) = row.take() {
            self.suspects -= usize::from(row.standing == Standing::Suspect);
            self.vacant.push(session);
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.rows.len() - self.vacant.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How a session stands.
    pub fn standing(&self, session: u32) -> Option<Standing> {
        self.row(session).map(|row| row.standing)
    }

    /// Where a session's host was last heard from, and the key to answer with.
    pub fn way_to(&self, session: u32) -> Option<(SocketAddr, &SessionKey)> {
        let row = self.row(session)?;
        Some((row.from?, &row.key))
    }

    fn row(&self, session: u32) -> Option<&Row> {
        self.rows.get(session as usize)?.as_ref()
    }

    /// Takes a datagram. The cheap tests come first: a flood of old or made-up ones costs little.
    ///
    /// # Errors
    ///
    /// [`BeatDropped`]; then nothing is changed, and nothing is to be answered.
    pub fn beat(
        &mut self,
        now: UnixMillis,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Taken, BeatDropped> {
        let Header { session, counter, .. } = Header::of_beat(datagram)?;
        let row = self.rows.get_mut(session as usize).and_then(Option::as_mut);
        let row = row.ok_or(BeatDropped::Unknown)?;
        if counter <= row.counter {
            return Err(BeatDropped::Old);
        }
        let vitals = Vitals::open(&row.key, datagram)?;
        let was = row.standing;
        row.learn(now);
        row.counter = counter;
        row.heard = row.heard.max(now);
        row.standing = Standing::Alive;
        let has_moved = row.from.replace(from) != Some(from);
        self.suspects -= usize::from(was == Standing::Suspect);
        Ok(Taken { session, counter, vitals, was, has_moved })
    }

    /// Looks who has fallen silent; to be called about once a second. Returns whose standing has
    /// changed for the worse.
    pub fn sweep(&mut self, now: UnixMillis) -> Vec<(u32, Standing)> {
        let mut changed = Vec::new();
        let mut silent = Vec::new();
        for (session, row) in (0..).zip(&mut self.rows) {
            let Some(row) = row else { continue };
            match (row.standing, row.silence(now)) {
                (Standing::Alive, Standing::Suspect | Standing::Gone) => {
                    row.standing = Standing::Suspect;
                    self.suspects += 1;
                    changed.push((session, Standing::Suspect));
                }
                (Standing::Suspect, Standing::Gone) => silent.push(session),
                _ => (),
            }
        }
        if self.is_cut_off(now) {
            return changed;
        }
        for session in silent {
            if let Some(row) = self.rows[session as usize].as_mut() {
                row.standing = Standing::Gone;
                self.suspects -= 1;
                changed.push((session, Standing::Gone));
            }
        }
        changed
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

impl Row {
    /// Learns the rhythm from a beat. Beats at once on a change come out of it and say nothing
    /// about it, nor does the first one after a silence.
    fn learn(&mut self, now: UnixMillis) {
        let apart = now.0.saturating_sub(self.heard.0);
        if self.counter == 0 || !(PERIOD_MS / 2..=PERIOD_MS * 2).contains(&apart) {
            return;
        }
        let apart = u32::try_from(apart).unwrap_or(u32::MAX);
        let off = apart.abs_diff(self.mean_ms);
        // Moving averages of 8 beats.
        self.mean_ms = self.mean_ms / 8 * 7 + self.mean_ms % 8 * 7 / 8 + apart / 8;
        let deviation = self.deviation_ms / 8 * 7 + off / 8;
        self.deviation_ms = deviation.max(DEVIATION_MS_MIN);
    }

    /// What its silence alone says.
    fn silence(&self, now: UnixMillis) -> Standing {
        let silent = now.0.saturating_sub(self.heard.0);
        let beyond = silent.saturating_sub(u64::from(self.mean_ms));
        let is_beyond = |deviations: u64, periods: u64| {
            beyond > deviations * u64::from(self.deviation_ms) && silent > periods * PERIOD_MS
        };
        if is_beyond(GONE_DEVIATIONS, GONE_PERIODS) {
            Standing::Gone
        } else if is_beyond(SUSPECT_DEVIATIONS, SUSPECT_PERIODS) {
            Standing::Suspect
        } else {
            Standing::Alive
        }
    }
}

#[cfg(test)]
mod tests;
