//! `welkin host check`: the test that checkers will make, run by oneself, with a remedy for each
//! failure.
//!
//! It examines as a checker does: rows by a fresh secret, verified from the seed alone, a rate by a
//! clock, matched with the class that would be claimed.

mod exam;
mod machine;

use std::time::Duration;

use anyhow::Context as _;
use welkin_node::host::{HostContainer, containers_of};
use welkin_runtime::inventory::{self, Gpu};
use welkin_types::NodeId;

use crate::doctor::{Check, Status, text};
use crate::{Context, Quit, cli, out, roles};

/// How long the whole test may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(600);

/// Tests this machine as checkers will; leaves with 2 where something fails.
pub(crate) async fn check(context: &Context, args: &cli::HostCheck) -> anyhow::Result<()> {
    let search = roles::gpu_search(&context.config.host)?;
    let asked = tokio::task::spawn_blocking(move || inventory::inventory(&search)).await;
    let stock = asked.context("failed to look at this machine")?;
    let mut checks = Vec::new();
    // The host's key is not needed to see what it would lease.
    let key = NodeId::from_bytes([0; 32]);
    match containers_of(&context.config.host, key, &stock.gpus) {
        Ok(containers) => {
            checks.push(machine::offers(&containers));
            checks.push(machine::memory(&containers, stock.memory_bytes));
            checks.extend(hardware(containers, stock.gpus.clone()).await?);
        }
        Err(why) => {
            let remedy = "mend `host.containers`: `welkin config` shows it";
            checks.push(Check::new("offers", Status::Fail, why, remedy));
        }
    }
    checks.push(machine::disk(context).await);
    checks.push(machine::ports(&context.config.host.listen));
    checks.push(machine::clock(context).await);
    checks.extend(machine::health(args.kernel_log.as_deref()));
    report(context, &checks)
}

/// Challenges every container, one after the other so that none slows another.
async fn hardware(containers: Vec<HostContainer>, gpus: Vec<Gpu>) -> anyhow::Result<Vec<Check>> {
    let tested = tokio::task::spawn_blocking(move || {
        let each = containers.iter().flat_map(|container| exam::container(container, &gpus));
        each.collect()
    });
    let tested = tokio::time::timeout(CHECK_TIMEOUT, tested).await;
    let tested = tested.context("the challenge did not end within ten minutes")?;
    tested.context("the challenge ended early")
}

fn report(context: &Context, checks: &[Check]) -> anyhow::Result<()> {
    let failed = checks.iter().filter(|check| check.status == Status::Fail).count();
    if context.is_json {
        checks.iter().try_for_each(out::json)?;
    } else {
        out::text(&text(checks))?;
        if !context.is_quiet {
            out::note(&match failed {
                0 => "\nchecks by others should pass".to_owned(),
                1 => "\n1 check fails: others would find it, too".to_owned(),
                more => format!("\n{more} checks fail: others would find them, too"),
            });
        }
    }
    if failed == 0 { Ok(()) } else { Err(Quit(2).into()) }
}
