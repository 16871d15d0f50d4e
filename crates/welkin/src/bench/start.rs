//! How long a warm start takes, asked for by a client and typed by a person.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use welkin_node::buyer::{Keeper, LeaseEvent, place};
use welkin_types::LeaseState;

use crate::network::{Up, ask};
use crate::percentile_ms;

/// Starts by a client that is there already.
const ROUNDS: usize = 200;
/// Starts by a command that is typed.
const TYPED: usize = 50;
/// The pool refills behind each start.
const PAUSE: Duration = Duration::from_millis(60);

/// `start-warm`
pub(crate) async fn warm() -> anyhow::Result<String> {
    let up = Up::start("", &[])?;
    let buyer = up.buyer().await?;
    let ask = ask(&["true"], 64 << 20, 16 << 20, 1_000);
    let mut running = Vec::new();
    for round in 0..ROUNDS + 10 {
        let began = Instant::now();
        let placed = place(&buyer, &ask, Vec::new(), &mut |_| ()).await?;
        let mut keeper = Keeper::new(Arc::clone(&buyer), placed, String::new(), String::new());
        loop {
            match keeper.next().await {
                Some(LeaseEvent::Stage(stage, _)) if stage.state == LeaseState::Running => {
                    // The first rounds warm caches up.
                    if round >= 10 {
                        running.push(began.elapsed());
                    }
                }
                Some(LeaseEvent::Receipt(_)) => break,
                Some(LeaseEvent::Lost(why)) => bail!("a lease is lost: {why}"),
                Some(_) => (),
                None => bail!("a lease ended without a receipt"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    running.sort();
    let mut typed = Vec::new();
    for _ in 0..TYPED {
        typed.push(type_it(&up)?);
        tokio::time::sleep(PAUSE).await;
    }
    typed.sort();
    Ok(format!(
        "p50_ms={:.2} p99_ms={:.2} typed_p50_ms={:.2} typed_p99_ms={:.2} n={}",
        percentile_ms(&running, 0.5),
        percentile_ms(&running, 0.99),
        percentile_ms(&typed, 0.5),
        percentile_ms(&typed, 0.99),
        running.len()
    ))
}

/// From the command typed to the first byte of the process.
fn type_it(up: &Up) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new(&up.program)
        .arg("--dir")
        .arg(&up.dir)
        .args(["run", "-q", "-y", "-n", "--memory", "64MiB", "--disk", "16MiB", "--", "echo", "x"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = [0; 1];
    if let Some(stdout) = &mut child.stdout {
        stdout.read_exact(&mut first)?;
    }
    let took = began.elapsed();
    ensure!(child.wait()?.success(), "a typed run failed");
    Ok(took)
}
