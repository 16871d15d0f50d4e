//! Many leases at once on one host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::task::JoinSet;
use welkin_node::buyer::{Buyer, Keeper, LeaseEvent, place};
use welkin_types::LeaseState;

use crate::network::{Up, ask};
use crate::percentile_ms;

/// `leases-200`: that many leases, all running at the same time.
pub(crate) async fn many(count: usize) -> anyhow::Result<String> {
    let config = format!(
        "[up]\nhosts = 1\n[host]\npool = 8\n[[host.containers]]\ncpu_milli = 10\nmemory_mib = 16\n\
         disk_mib = 4\nslots = {count}\nusd_per_hour = \"0.01\"\n"
    );
    let up = Up::start(&config, &[])?;
    let buyer = up.buyer().await?;
    let before = up.rss_kib();
    let (all, mut running) = tokio::sync::mpsc::channel(count);
    let mut leases = JoinSet::new();
    let stop = Arc::new(tokio::sync::Notify::new());
    for _ in 0..count {
        leases.spawn(one(Arc::clone(&buyer), all.clone(), Arc::clone(&stop)));
    }
    drop(all);
    let mut starts = Vec::new();
    let mut rss = 0;
    while let Some(took) = running.recv().await {
        starts.push(took);
        if starts.len() == count {
            rss = up.rss_kib();
            stop.notify_waiters();
        }
    }
    let mut failed = 0;
    while let Some(result) = leases.join_next().await {
        if let Err(error) = result? {
            failed += 1;
            crate::say(&format!("a lease failed: {error:#}"));
        }
    }
    starts.sort();
    #[expect(clippy::cast_precision_loss, reason = "megabytes with two decimals")]
    let per_lease = rss.saturating_sub(before) as f64 / 1_024.0 / count as f64;
    Ok(format!(
        "failed={failed} rss_mib_per_lease={per_lease:.3} p99_start_ms={:.1} p50_start_ms={:.1} n={}",
        percentile_ms(&starts, 0.99),
        percentile_ms(&starts, 0.5),
        starts.len()
    ))
}

async fn one(
    buyer: Arc<Buyer>,
    running: tokio::sync::mpsc::Sender<Duration>,
    stop: Arc<tokio::sync::Notify>,
) -> anyhow::Result<()> {
    let ask = ask(&["sleep", "600"], 16 << 20, 4 << 20, 10);
    let began = Instant::now();
    let stopping = stop.notified();
    tokio::pin!(stopping);
    stopping.as_mut().enable();
    let placed = place(&buyer, &ask, Vec::new(), &mut |_| ()).await?;
    let mut keeper = Keeper::new(buyer, placed, String::new(), String::new());
    let mut is_stopping = false;
    loop {
        let event = tokio::select! {
            event = keeper.next() => event,
            () = &mut stopping, if !is_stopping => {
                is_stopping = true;
                keeper.stop(Duration::from_secs(5)).await;
                continue;
            }
        };
        match event {
            Some(LeaseEvent::Stage(stage, detail)) => match stage.state {
                LeaseState::Running => running.send(began.elapsed()).await?,
                LeaseState::Failed | LeaseState::Lost | LeaseState::Expired => {
                    bail!("{} ({}) {}", stage.state, stage.reason, detail.unwrap_or_default());
                }
                _ => (),
            },
            Some(LeaseEvent::Receipt(_)) => return Ok(()),
            Some(LeaseEvent::Lost(why)) => bail!("lost: {why}"),
            Some(_) => (),
            None => bail!("ended without a receipt"),
        }
    }
}
