//! Whether a device holds its memory: filled once, looked at some seconds apart.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use welkin_check::challenge::residency::{self, Fill, Probe, Session, Walk};
use welkin_check::challenge::standard_look;
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::ALPN_EXAM;
use welkin_proto::exam::{
    ExamAsk, ExamProbe, ExamRefusal, ExamReply, ExamReport, FillWork, Verdict, WalkEnd,
};

use super::exam::{ExamError, Target, Who, reach};
use crate::connect::Caller;
use crate::outside;
use crate::wire::{self, WireError};

/// Probes of what was filled once. All must be right and one in time: a lost packet only makes late.
const PROBES: u32 = 3;
/// How long filling may take. Who is slow at that is not late: the walks are timed.
const FILL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a walk is waited for, in all.
const WALK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the host may take to end its side.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How a checker looks at memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The shortest and the longest pause before a probe; within it, nobody knows when.
    pub pause: (Duration, Duration),
    /// What the machine may take beside the work; the session's own where nothing is said.
    pub slack: Option<Duration>,
}

impl Default for Pace {
    /// Three probes within a minute.
    fn default() -> Self {
        Self { pause: (Duration::from_secs(3), Duration::from_secs(18)), slack: None }
    }
}

/// What ended a session early.
enum Ended {
    Refused(ExamRefusal),
    /// It answered what is no answer, or nothing.
    Gone,
}

/// Has one of a container's devices filled and looks at it three times. Returns the finding, for a
/// report.
///
/// # Errors
///
/// [`ExamError`] where nothing can be said of the memory.
pub async fn look(
    who: &Who,
    target: &Target,
    minute: u64,
    pace: Pace,
) -> Result<ExamReport, ExamError> {
    let host = target.addr.node;
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let (connection, way_us) = reach(who, &caller).await.map_err(ExamError::Unreachable)?;
    let mut session = standard_look(&target.resources);
    if let Some(slack) = pace.slack {
        session.slack_us = u64::try_from(slack.as_micros()).unwrap_or(u64::MAX);
    }
    // Farther than that the way is longer than what is measured.
    if way_us > session.limit_us() / 4 {
        return Err(ExamError::Void);
    }
    let device = u32::from_le_bytes(outside::random()) % target.devices();
    let looked = Look { target, minute, device, session, way_us, pace }.run(&connection).await;
    connection.close(0, b"done");
    let verdict = match looked {
        Ok(true) => Verdict::Resident { mib: session.mib() },
        Ok(false) => Verdict::NotResident,
        Err(Ended::Refused(why)) if why.is_fair() => return Err(ExamError::NotNow(why)),
        Err(Ended::Refused(why)) => Verdict::Refused(why),
        Err(Ended::Gone) => Verdict::NotResident,
    };
    let (checker, container, evidence) = (who.checker, target.container, None);
    let (n, rounds, turn) = (0, PROBES, who.proof(minute));
    Ok(ExamReport { checker, host, container, minute, n, rounds, verdict, evidence, turn })
}

struct Look<'a> {
    target: &'a Target,
    minute: u64,
    device: u32,
    session: Session,
    way_us: u64,
    pace: Pace,
}

impl Look<'_> {
    /// Whether the memory is there.
    async fn run(&self, connection: &Connection) -> Result<bool, Ended> {
        let Session { units, double_rounds, .. } = self.session;
        let fill = Fill { seed: outside::random(), units, double_rounds };
        let (mut send, mut recv) = connection.open().await.map_err(|_| Ended::Gone)?;
        let work = FillWork {
            minute: self.minute,
            container: self.target.container,
            device: self.device,
            seed: fill.seed,
            units,
            double_rounds,
        };
        wire::send(&mut send, &ExamAsk::Fill(work)).await?;
        match wire::expect::<ExamReply>(&mut recv, FILL_TIMEOUT).await? {
            ExamReply::Filled => (),
            ExamReply::Refused(why) => return Err(Ended::Refused(why)),
            _ => return Err(Ended::Gone),
        }
        let mut is_in_time = false;
        for _ in 0..PROBES {
            tokio::time::sleep(self.pause()).await;
            let Some(in_time) = self.probe(fill, &mut send, &mut recv).await? else {
                return Ok(false);
            };
            is_in_time |= in_time;
        }
        let _ = send.finish();
        // The host counts it as done once it has heard so.
        let _ = tokio::time::timeout(END_TIMEOUT, wire::recv::<ExamReply>(&mut recv)).await;
        Ok(is_in_time)
    }

    /// Whether a probe was answered in time; none if the answer was wrong.
    async fn probe(
        &self,
        fill: Fill,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<Option<bool>, Ended> {
        let Session { walkers, steps, chosen, .. } = self.session;
        let probe = Probe { nonce: outside::random(), walkers, steps };
        let sent = Instant::now();
        wire::send(send, &ExamProbe { nonce: probe.nonce, walkers, steps }).await?;
        let reply = wire::expect::<ExamReply>(recv, WALK_TIMEOUT).await?;
        let took_us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        let ends = match reply {
            ExamReply::Walked(ends) => ends,
            ExamReply::Refused(why) => return Err(Ended::Refused(why)),
            _ => return Err(Ended::Gone),
        };
        let is_in_time = self.session.is_in_time(took_us, self.way_us);
        debug!(host = %self.target.addr.node, took_us, is_in_time, "memory answered");
        let draw = |_| u32::from_le_bytes(outside::random()) % walkers.max(1);
        let chosen: Vec<_> = (0..chosen).map(draw).collect();
        let verified = tokio::task::spawn_blocking(move || is_right(&fill, &probe, &ends, &chosen));
        let is_right = verified.await.map_err(|_| Ended::Gone)?;
        Ok(is_right.then_some(is_in_time))
    }

    /// Nobody knows when the next probe comes.
    fn pause(&self) -> Duration {
        let (least, most) = self.pace.pause;
        least
            + most.saturating_sub(least) * u32::from(u16::from_le_bytes(outside::random())) / 65_536
    }
}

/// Whether the chosen walks end where the seed says. What is drawn twice is looked at twice.
fn is_right(fill: &Fill, probe: &Probe, ends: &[WalkEnd], chosen: &[u32]) -> bool {
    let ends: Vec<_> =
        ends.iter().map(|end| Walk::on_its_way(end.place, end.seen.into())).collect();
    residency::verify(fill, probe, &ends, chosen)
}

impl From<WireError> for Ended {
    fn from(_: WireError) -> Self {
        Self::Gone
    }
}
