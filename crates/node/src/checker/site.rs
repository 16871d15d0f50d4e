//! Measures a host's network, place and disk, by this side's clock.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;
use welkin_check::site::{BLOCK_BYTES, Chain, kib_per_s, read_chain};
use welkin_net::{Connection, PathKind, RecvStream, SendStream};
use welkin_proto::exam::{ExamAsk, ExamProbe, ExamRefusal, ExamReply};
use welkin_proto::site::{MeasureKind, MeasureWork, Site, SiteReport};
use welkin_proto::{ALPN_EXAM, NodeAddr};
use welkin_types::Region;

use super::exam::{ExamError, Target, Who, reach};
use crate::connect::Caller;
use crate::outside;
use crate::wire::{self, WireError};

/// Blocks each way: 2 MiB.
const NETWORK_BLOCKS: u32 = 32;
/// Blocks of the disk, 8 MiB, and reads of it.
const DISK_BLOCKS: u32 = 128;
const DISK_STEPS: u32 = 64;
/// How long each measurement may take.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(20);
/// Direct addresses that are tried, and how long each.
const PORTS_MAX: usize = 4;
const PORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a measurement gave no rate.
enum Ended {
    Refused(ExamRefusal),
    /// It broke off, or took too long.
    Broke,
    /// The answer is not what was sent, or what the seed says.
    Wrong,
}

impl From<WireError> for Ended {
    fn from(_: WireError) -> Self {
        Self::Broke
    }
}

/// Measures a container's network and disk. Returns the finding, for a report.
///
/// # Errors
///
/// [`ExamError`] where the host is not reached, or refuses all of it with a good reason.
pub async fn measure(
    who: &Who,
    target: &Target,
    minute: u64,
    from: Option<Region>,
) -> Result<SiteReport, ExamError> {
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let (connection, way_us) = reach(who, &caller).await.map_err(ExamError::Unreachable)?;
    let (ports_named, ports_open) = ports(who, &target.addr).await;
    let rtt_us = u32::try_from(way_us).unwrap_or(u32::MAX);
    let mut site = Site { rtt_us, from, ports_named, ports_open, ..Site::default() };
    let measured = Measured { target, minute, way_us, connection: &connection };
    let mut refused = None;
    for kind in [MeasureKind::Download, MeasureKind::Upload, MeasureKind::Disk] {
        let measuring = measured.measure(kind, &mut site);
        match tokio::time::timeout(MEASURE_TIMEOUT, measuring).await.unwrap_or(Err(Ended::Broke)) {
            Ok(()) => (),
            Err(Ended::Wrong) => site.is_wrong = true,
            Err(Ended::Refused(why)) => refused = Some(why),
            // Nothing is said of what was not finished.
            Err(Ended::Broke) => debug!(host = %target.addr.node, ?kind, "broke off"),
        }
    }
    connection.close(0, b"done");
    let has_rate = site.down_kib_s.or(site.up_kib_s).or(site.write_kib_s).is_some();
    match refused.filter(|why| why.is_fair() && !has_rate && !site.is_wrong) {
        Some(why) => Err(ExamError::NotNow(why)),
        None => {
            let (checker, host, container) = (who.checker, target.addr.node, target.container);
            let turn = who.proof(minute);
            Ok(SiteReport { checker, host, container, minute, site, turn })
        }
    }
}

/// Of the first direct addresses that a host names, how many there are and at how many it answers.
async fn ports(who: &Who, addr: &NodeAddr) -> (u8, u8) {
    let mut dialled = JoinSet::new();
    for direct in addr.direct.iter().copied().take(PORTS_MAX) {
        let only = NodeAddr { node: addr.node, relay: None, direct: vec![direct] };
        let caller = Caller::new(who.endpoint.clone(), only, ALPN_EXAM);
        dialled.spawn(async move {
            let reached = tokio::time::timeout(PORT_TIMEOUT, caller.connection()).await;
            let Ok(Ok(connection)) = reached else { return false };
            // Ways that are known from before are tried, too: it counts where it runs over this one.
            let is_it = connection.path().is_some_and(|path| path.kind == PathKind::Direct(direct));
            connection.close(0, b"done");
            is_it
        });
    }
    let (mut named, mut open) = (0, 0);
    while let Some(done) = dialled.join_next().await {
        named += 1;
        open += u8::from(done.unwrap_or(false));
    }
    (named, open)
}

struct Measured<'a> {
    target: &'a Target,
    minute: u64,
    way_us: u64,
    connection: &'a Connection,
}

impl Measured<'_> {
    async fn measure(&self, kind: MeasureKind, site: &mut Site) -> Result<(), Ended> {
        let blocks = match kind {
            MeasureKind::Download | MeasureKind::Upload => NETWORK_BLOCKS,
            MeasureKind::Disk => DISK_BLOCKS,
        };
        let (minute, container) = (self.minute, self.target.container);
        let work = MeasureWork { minute, container, seed: outside::random(), kind, blocks };
        let (mut send, mut recv) = self.connection.open().await.map_err(|_| Ended::Broke)?;
        let sent = Instant::now();
        wire::send(&mut send, &ExamAsk::Measure(work)).await?;
        match wire::expect::<ExamReply>(&mut recv, MEASURE_TIMEOUT).await? {
            ExamReply::Ready => (),
            ExamReply::Refused(why) => return Err(Ended::Refused(why)),
            _ => return Err(Ended::Wrong),
        }
        match kind {
            // From the question on: a stream's first bytes may be sent last.
            MeasureKind::Download => {
                site.down_kib_s = Some(self.download(&work, sent, &mut recv).await?);
            }
            MeasureKind::Upload => {
                site.up_kib_s = Some(self.upload(&work, &mut send, &mut recv).await?);
            }
            MeasureKind::Disk => self.disk(&work, sent, (&mut send, &mut recv), site).await?,
        }
        Ok(())
    }

    fn rate(&self, blocks: u32, since: Instant) -> u32 {
        let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bytes = u64::from(blocks) * u64::try_from(BLOCK_BYTES).unwrap_or(0);
        kib_per_s(bytes, took, self.way_us)
    }

    async fn download(
        &self,
        work: &MeasureWork,
        sent: Instant,
        recv: &mut RecvStream,
    ) -> Result<u32, Ended> {
        let mut chain = Chain::new(&work.seed);
        for _ in 0..work.blocks {
            let expected = chain.block();
            let mut at = 0;
            while at < expected.len() {
                let chunk = recv.read_chunk(expected.len() - at).await.map_err(|_| Ended::Broke)?;
                let chunk = chunk.ok_or(Ended::Broke)?;
                if expected.get(at..at + chunk.len()) != Some(&*chunk) {
                    return Err(Ended::Wrong);
                }
                at += chunk.len();
            }
        }
        Ok(self.rate(work.blocks, sent))
    }

    async fn upload(
        &self,
        work: &MeasureWork,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<u32, Ended> {
        // Not from the seed, which the host knows.
        let mut chain = Chain::new(&outside::random());
        let (mut hash, sent) = (Sha256::new(), Instant::now());
        for _ in 0..work.blocks {
            let block = chain.block();
            hash.update(&block);
            send.write_all(&block).await.map_err(|_| Ended::Broke)?;
        }
        let said = self.hash(recv).await?;
        let rate = self.rate(work.blocks, sent);
        if said == <[u8; 32]>::from(hash.finalize()) { Ok(rate) } else { Err(Ended::Wrong) }
    }

    async fn disk(
        &self,
        work: &MeasureWork,
        sent: Instant,
        (send, recv): (&mut SendStream, &mut RecvStream),
        site: &mut Site,
    ) -> Result<(), Ended> {
        let end = self.hash(recv).await?;
        let write = self.rate(work.blocks, sent);
        let nonce = outside::random();
        let sent = Instant::now();
        wire::send(send, &ExamProbe { nonce, walkers: 1, steps: DISK_STEPS }).await?;
        let seen = self.hash(recv).await?;
        let read = self.rate(DISK_STEPS, sent);
        let (seed, blocks) = (work.seed, work.blocks);
        let checked = tokio::task::spawn_blocking(move || expected(&seed, blocks, &nonce)).await;
        if checked.map_err(|_| Ended::Broke)? != (end, seen) {
            return Err(Ended::Wrong);
        }
        (site.write_kib_s, site.read_kib_s) = (Some(write), Some(read));
        Ok(())
    }

    async fn hash(&self, recv: &mut RecvStream) -> Result<[u8; 32], Ended> {
        match wire::expect::<ExamReply>(recv, MEASURE_TIMEOUT).await? {
            ExamReply::Hash(hash) => Ok(hash),
            ExamReply::Refused(why) => Err(Ended::Refused(why)),
            _ => Err(Ended::Wrong),
        }
    }
}

/// Where a disk's chain ends, and what is read of it. Blocks are made again where they are read: all of
/// them would take 8 MiB.
fn expected(seed: &[u8; 32], blocks: u32, nonce: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
    let mut chain = Chain::new(seed);
    let mut ends = Vec::new();
    for _ in 0..blocks {
        ends.push(chain.end());
        chain.block();
    }
    let read = |place: u32| {
        let end = usize::try_from(place).ok().and_then(|place| ends.get(place));
        let block = end.map(|end| Chain::from_end(*end).block());
        Ok::<_, std::convert::Infallible>(block.unwrap_or_default())
    };
    let Ok(seen) = read_chain(nonce, blocks, DISK_STEPS, read);
    (chain.end(), seen)
}
