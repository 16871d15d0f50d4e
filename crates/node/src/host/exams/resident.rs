//! Memory that a checker has filled, and looks at some seconds apart. Until then the device is idle;
//! an order ends it at once and gives the memory back.

use std::sync::Arc;
use std::time::Duration;

use welkin_check::challenge::residency::{self, Fill, Probe, Walk};
use welkin_check::challenge::{device_bytes, standard_look};
use welkin_net::{RecvStream, SendStream};
use welkin_proto::exam::{EXAM_PROBES_MAX, ExamProbe, ExamRefusal, ExamReply, FillWork, WalkEnd};
use welkin_types::NodeId;

use super::devices::{self, Lent};
use super::serve::{Ended, WORK_TIMEOUT, offer, say, stopped, why_not};
use super::{Taken, Wanted};
use crate::host::Host;
use crate::wire;

/// How long memory is kept between two probes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(25);

/// Fills memory and answers probes until the checker has seen enough.
pub(super) async fn resident(
    host: &Arc<Host>,
    checker: NodeId,
    work: FillWork,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Ended> {
    let FillWork { minute, container, device, seed, units, double_rounds } = work;
    let offer = offer(host, container).filter(|offer| {
        let bytes = u64::from(units) * residency::UNIT_BYTES;
        work.is_bounded() && bytes <= device_bytes(&offer.resources)
    });
    let offer = offer.ok_or(Ended::Refused(ExamRefusal::TooLarge))?;
    // As of products: no more than checkers ask for, and nothing is held against an old list.
    let most = standard_look(&offer.resources);
    if units > most.units || double_rounds > most.double_rounds {
        return Err(Ended::Refused(ExamRefusal::TooMany));
    }
    let wanted = Wanted { minute, container, assigned: container, device, seed, shape: None };
    let taken = host.exams.take(host, checker, wanted).await.map_err(Ended::Refused)?;
    taken.begin_work();
    let filled = tokio::time::timeout(WORK_TIMEOUT, fill(host, work, &taken)).await;
    let mut lent = filled.map_err(|_| Ended::Refused(ExamRefusal::TooLarge))??;
    taken.end_work();
    lent = say_unless(send, &ExamReply::Filled, lent, &taken).await?;
    for _ in 0..EXAM_PROBES_MAX {
        let next = tokio::time::timeout(PROBE_TIMEOUT, wire::recv::<ExamProbe>(recv));
        let next = tokio::select! {
            next = next => next.map_err(|_| wire::WireError::Late(PROBE_TIMEOUT))??,
            () = stopped(&taken.stop) => {
                // What the device holds comes free before anything else is said.
                let _ = tokio::task::spawn_blocking(move || drop(lent)).await;
                return Err(Ended::Refused(ExamRefusal::Ordered));
            }
        };
        let Some(probe) = next else { break };
        if !probe.is_bounded() {
            return Err(Ended::Refused(ExamRefusal::NothingToOpen));
        }
        if probe.walkers > most.walkers || probe.steps > most.steps {
            return Err(Ended::Refused(ExamRefusal::TooMany));
        }
        taken.begin_work();
        let (back, ends) = walk(lent, probe, &taken).await?;
        taken.end_work();
        lent = say_unless(send, &ExamReply::Walked(ends), back, &taken).await?;
    }
    // Giving memory back may take a moment.
    let _ = tokio::task::spawn_blocking(move || drop(lent)).await;
    Ok(())
}

/// Says something, unless an order comes first: a checker that does not read keeps no memory from it.
async fn say_unless(
    send: &mut SendStream,
    reply: &ExamReply,
    lent: Lent,
    taken: &Taken<'_>,
) -> Result<Lent, Ended> {
    tokio::select! {
        said = say(send, reply) => said.map(|()| lent).map_err(Ended::from),
        () = stopped(&taken.stop) => {
            let _ = tokio::task::spawn_blocking(move || drop(lent)).await;
            Err(Ended::Refused(ExamRefusal::Ordered))
        }
    }
}

async fn fill(host: &Arc<Host>, work: FillWork, taken: &Taken<'_>) -> Result<Lent, Ended> {
    let (on, until) = (Arc::clone(host), taken.stop.clone());
    let filled = tokio::task::spawn_blocking(move || {
        let mut lent = devices::lend(&on, work.container, work.device)?;
        let FillWork { seed, units, double_rounds, .. } = work;
        let fill = Fill { seed, units, double_rounds };
        let done = lent.work(|device| device.fill(&fill, &until));
        done.map(|()| lent).map_err(|error| why_not(&error))
    });
    let filled = filled.await.map_err(|_| Ended::Refused(ExamRefusal::Failed))?;
    filled.map_err(Ended::Refused)
}

async fn walk(
    mut lent: Lent,
    probe: ExamProbe,
    taken: &Taken<'_>,
) -> Result<(Lent, Vec<WalkEnd>), Ended> {
    let until = taken.stop.clone();
    let walked = tokio::task::spawn_blocking(move || {
        let ExamProbe { nonce, walkers, steps } = probe;
        let probe = Probe { nonce, walkers, steps };
        let done = lent.work(|device| device.walk(&probe, &until));
        (lent, done)
    });
    let (lent, done) = walked.await.map_err(|_| Ended::Refused(ExamRefusal::Failed))?;
    let walks = done.map_err(|error| Ended::Refused(why_not(&error)))?;
    let end = |walk: &Walk| WalkEnd { place: walk.place(), seen: walk.seen().into() };
    Ok((lent, walks.iter().map(end).collect()))
}
