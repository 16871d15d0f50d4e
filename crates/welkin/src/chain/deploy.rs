//! `welkin chain deploy`: the whole set of contracts, from one account, to be gone on with at any
//! time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use welkin_chain::deployment::{Deployment, Step};
use welkin_chain::ops::deploy::{Journal, Pace};
use welkin_chain::ops::{Desk, OpsError, calls, verify};
use welkin_chain::outbox::OutboxConfig;
use welkin_chain::rpc::Rpc;
use welkin_chain::sender::{Sender, SenderConfig};
use welkin_node::{Shutdown, outside};
use welkin_types::Usd;

use crate::account::{self, Identity};
use crate::cli::Deploy;
use crate::{Context, Quit, Usage, desk, out, terminal};

/// How often is looked whether a step is in a block.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The exit code of a person's no.
const CANCELLED: u8 = 130;

/// `welkin chain deploy`
pub(crate) async fn deploy(context: &Context, args: &Deploy) -> anyhow::Result<()> {
    let rpc = desk::own_node(context)?;
    let identity = account::identity(context, &args.who)?;
    let path = args.out.with_extension("journal");
    if args.out.exists() {
        let deployment = Deployment::load(&args.out)?;
        let text = format!("{} was written before", args.out.display());
        return finish(context, &rpc, &identity, deployment, &text).await;
    }
    let journal = match Journal::load(&path)? {
        Some(journal) => {
            agrees(&journal, args, &identity, &path)?;
            journal
        }
        None => begin(args, &rpc, &identity).await?,
    };
    let (steps, later) = journal.steps();
    let done = journal.progress(&rpc).await?;
    if args.dry_run {
        return show(context, &journal, &steps, done);
    }
    let rest = steps.len() - done;
    if !args.yes && rest > 0 && terminal::is_interactive() {
        let (root, chain) = (journal.root, journal.chain_id);
        let text = format!("send {rest} transactions as {root} on chain {chain}? [Y/n] ");
        if !terminal::confirm(&text).await? {
            return Err(Quit(CANCELLED).into());
        }
    }
    if done == 0 && !path.exists() {
        journal.save(&path)?;
    }
    send(context, &rpc, &identity, &journal, &steps, done).await?;
    let deployment = journal.deployment();
    deployment.save(&args.out)?;
    // What it says stands in the deployment's file, or follows from it.
    let _ = std::fs::remove_file(&path);
    for step in &later {
        let (operator, call) = (journal.operator, describe(&journal, step));
        out::note(&format!("the operator {operator} has yet to call {call}"));
    }
    let text = format!("written to {}", args.out.display());
    finish(context, &rpc, &identity, deployment, &text).await
}

/// What a new deployment is begun with.
async fn begin(args: &Deploy, rpc: &Rpc, identity: &Identity) -> anyhow::Result<Journal> {
    let Some(price) = &args.ath_price else {
        let hint = "say what an ATH costs at first: `--ath-price 0.05`";
        return Err(Usage::new("--ath-price is missing", hint).into());
    };
    let operator = match &args.operator {
        Some(text) => desk::address("--operator", text)?,
        None => identity.account,
    };
    let of = |error| OpsError::of("look at the chain", error);
    Ok(Journal {
        chain_id: rpc.chain_id().await.map_err(of)?,
        first_block: rpc.block_number().await.map_err(of)?,
        root: identity.account,
        first_nonce: rpc.nonce(identity.account).await.map_err(of)?,
        operator,
        start: rpc.head().await.map_err(of)?.timestamp.to(),
        ath_price_micros: usd("--ath-price", price)?.micros(),
        faucet_micros_max: match &args.faucet {
            Some(text) => Some(usd("--faucet", text)?.micros()),
            None => None,
        },
        pace: if args.trial { Pace::Trial } else { Pace::Network },
    })
}

fn usd(flag: &str, text: &str) -> anyhow::Result<Usd> {
    let amount: Usd =
        text.parse().map_err(|error| Usage::new(format!("{flag}: {error}"), "as in `0.05`"))?;
    if amount.is_zero() {
        return Err(Usage::new(format!("{flag} can't be nothing"), "as in `0.05`").into());
    }
    Ok(amount)
}

/// What was begun goes on as it was begun: flags may repeat it, and not change it.
fn agrees(
    journal: &Journal,
    args: &Deploy,
    identity: &Identity,
    path: &Path,
) -> anyhow::Result<()> {
    let mut differs = Vec::new();
    if journal.root != identity.account {
        differs.push(format!("it was begun by {}, this is {}", journal.root, identity.account));
    }
    if let Some(text) = &args.ath_price
        && usd("--ath-price", text)?.micros() != journal.ath_price_micros
    {
        differs.push("--ath-price".to_owned());
    }
    if let Some(text) = &args.operator
        && desk::address("--operator", text)? != journal.operator
    {
        differs.push("--operator".to_owned());
    }
    if args.trial && journal.pace != Pace::Trial {
        differs.push("--trial".to_owned());
    }
    if let Some(text) = &args.faucet
        && Some(usd("--faucet", text)?.micros()) != journal.faucet_micros_max
    {
        differs.push("--faucet".to_owned());
    }
    if differs.is_empty() {
        return Ok(());
    }
    let text = format!("a deployment is under way with other settings: {}", differs.join("; "));
    let hint = format!("leave them out, or begin anew with another --out ({})", path.display());
    Err(Usage::new(text, hint).into())
}

fn describe(journal: &Journal, step: &Step) -> String {
    let name = step.contract.name();
    if step.is_deployment {
        return format!("deploy {name}");
    }
    let place = journal.places().of(step.contract);
    let text = calls::show(&journal.places(), place, &step.input);
    text.chars().take(100).collect()
}

fn show(context: &Context, journal: &Journal, steps: &[Step], done: usize) -> anyhow::Result<()> {
    for (number, step) in steps.iter().enumerate() {
        let (what, is_done) = (describe(journal, step), number < done);
        if context.is_json {
            out::json(&json!({"step": number + 1, "what": what, "done": is_done}))?;
        } else {
            let state = if is_done { "done" } else { "to do" };
            out::text(&format!("{:>3} {state:<6} {what}\n", number + 1))?;
        }
    }
    if !context.is_json && !context.is_quiet {
        out::note("nothing was sent");
    }
    Ok(())
}

/// Sends what is left, one step after the other.
async fn send(
    context: &Context,
    rpc: &Rpc,
    identity: &Identity,
    journal: &Journal,
    steps: &[Step],
    done: usize,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let config = SenderConfig {
        chain_id: journal.chain_id,
        outbox: OutboxConfig { look_every: LOOK_EVERY, ..OutboxConfig::default() },
        is_gas_free: false,
        clock: Arc::new(outside::now),
    };
    let (sender, work) = Sender::new(rpc.clone(), identity.key()?, config);
    shutdown.spawn_until_asked("deploy-sender", work);
    let places = journal.places();
    for (number, step) in steps.iter().enumerate().skip(done) {
        let to = (!step.is_deployment).then(|| places.of(step.contract));
        let what = describe(journal, step);
        let sending = sender.send(to, step.input.clone(), false);
        let receipt = desk::patiently(context, &sender, sending).await;
        let receipt = receipt
            .map_err(|error| OpsError::of_send(what.clone(), error))
            .context("the deployment broke off: run the same command again to go on")?;
        // Where a number was taken by something else, all places after it would be others.
        if step.is_deployment && receipt.contract_address != Some(places.of(step.contract)) {
            let name = step.contract.name();
            return Err(OpsError::unfit(
                format!("`{name}` came to stand elsewhere: the account sent something in between"),
                "begin anew with another --out, and use the account for nothing else meanwhile",
            )
            .into());
        }
        let (hash, block) = (receipt.transaction_hash, receipt.block_number.to::<u64>());
        if context.is_json {
            let of = steps.len();
            let step = number + 1;
            out::json(&json!({"step": step, "of": of, "what": what, "transaction": hash,
                "block": block, "gas_used": receipt.gas_used.to::<u64>()}))?;
        } else if !context.is_quiet {
            out::note(&format!("{:>3}/{} {what}", number + 1, steps.len()));
        }
    }
    shutdown.finish(Duration::from_millis(200)).await;
    Ok(())
}

/// Looks at everything once more, and says where it stands.
async fn finish(
    context: &Context,
    rpc: &Rpc,
    identity: &Identity,
    deployment: Deployment,
    text: &str,
) -> anyhow::Result<()> {
    let desk = Desk::new(rpc.clone(), deployment, identity.account);
    let found = verify::verify(&desk).await?;
    let wrong: Vec<_> = found.iter().filter(|finding| finding.wrong.is_some()).collect();
    if context.is_json {
        out::json(&deployment)?;
    } else {
        for (contract, place) in deployment.contracts.each() {
            out::text(&format!("{:<11} {place}\n", contract.name()))?;
        }
        out::note(&format!(
            "{text}; {} of {} checks are right",
            found.len() - wrong.len(),
            found.len()
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let about: Vec<_> = wrong.iter().map(|finding| finding.about.as_str()).collect();
    Err(OpsError::unfit(
        format!("not all is as it should be: {}", about.join(", ")),
        "`welkin chain verify --deployment FILE` says what",
    )
    .into())
}
