//! `welkin show`: everything about one lease, from this machine, its host and the settlement.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use welkin_node::buyer::{BuyerError, Home, KeptDigests, KeptLease, KeptWait};
use welkin_node::outside;
use welkin_node::settlement::SettlementError;
use welkin_proto::lease::LeaseInfo;
use welkin_proto::settle::{LeaseView, SettleRefusal};
use welkin_proto::{Exit, Receipt, StageTime};
use welkin_types::{CapacityType, LeaseId, LeaseState, Reason, UnixMillis};

use super::list::Queued;
use super::{ask_host, exit_text, quality};
use crate::client::{self, Client};
use crate::market::size;
use crate::{Context, Usage, cli, out};

/// How long the settlement service may take.
const SETTLEMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Shows everything about one lease.
pub(crate) async fn show(context: &Context, args: &cli::Id) -> anyhow::Result<()> {
    let home = client::home(context);
    if args.lease.starts_with("tkt_") {
        return show_wait(context, &home, &args.lease);
    }
    let found = client::find_all(&home, &args.lease)?;
    for (index, kept) in found.into_iter().enumerate() {
        if index > 0 && !context.is_json {
            out::text("\n")?;
        }
        show_one(context, &home, kept).await?;
    }
    Ok(())
}

async fn show_one(context: &Context, home: &Home, kept: KeptLease) -> anyhow::Result<()> {
    let file = home.receipt(kept.lease).map_err(BuyerError::Home)?;
    let receipt = file.and_then(|file| file.verify().ok());
    let (host, settlement) = match Client::open(context).await {
        Ok(client) => {
            let asked = ask(&client, &kept, receipt.is_some()).await;
            client.close().await;
            asked
        }
        Err(error) => {
            out::note(&format!("nobody can be asked: {error:#}"));
            (None, Err("not asked".to_owned()))
        }
    };
    let shown = Shown {
        receipt_path: receipt.is_some().then(|| home.receipt_path(kept.lease)),
        digests: home.digests(kept.lease).map_err(BuyerError::Home)?.unwrap_or_default(),
        logs_here: [
            copied(&home.log_dir(kept.lease), "stdout"),
            copied(&home.log_dir(kept.lease), "stderr"),
        ],
        successor: home.successor(kept.lease).map_err(BuyerError::Home)?.map(|new| new.lease),
        is_placed_again: home
            .task(kept.lease)
            .map_err(BuyerError::Home)?
            .is_some_and(|task| task.is_due(&kept)),
        lease: kept,
        host,
        settlement_problem: settlement.as_ref().err().cloned(),
        settlement: settlement.ok(),
        receipt,
    };
    if context.is_json { out::json(&shown) } else { out::text(&shown.text(outside::now())) }
}

/// Shows a task that waits in a queue.
fn show_wait(context: &Context, home: &Home, ticket: &str) -> anyhow::Result<()> {
    let waits = home.waits().map_err(BuyerError::Home)?;
    let found = waits.iter().find(|wait| wait.ticket.to_string().starts_with(ticket));
    let Some(wait) = found else {
        let text = format!("nothing waits as `{ticket}`");
        return Err(Usage::new(text, "`welkin ps` lists what waits and what runs").into());
    };
    if context.is_json {
        return out::json(&Queued::of(wait));
    }
    out::text(&wait_text(wait, outside::now()))
}

fn wait_text(wait: &KeptWait, now: UnixMillis) -> String {
    let mut lines = Lines(String::new());
    let (state, reason) = (LeaseState::Queued, Reason::HostsBusy);
    lines.line("ticket", wait.ticket);
    if !wait.name.is_empty() {
        lines.line("name", &wait.name);
    }
    lines.line("state", format!("{state} ({reason}), billing {}", state.billing()));
    lines.line("position", format!("{} of {}", wait.position, wait.of));
    lines.line("why", &wait.why);
    lines.line("command", &wait.command);
    if let Some(indexer) = wait.indexer {
        lines.line("at", format!("the indexer {indexer}"));
    }
    let age = out::duration(now.since(wait.since));
    lines.line("since", format!("{} ({age} ago)", wait.since));
    let left = out::duration(wait.until.since(now));
    lines.line("until", format!("{} (at most {left} more)", wait.until));
    if let Some(estimate) = wait.estimate_ms {
        let left = Duration::from_millis(estimate).saturating_sub(now.since(wait.updated));
        lines.line("estimate", format!("{} (by what became free lately)", out::duration(left)));
    }
    lines.0
}

/// Asks the host, unless the receipt says it all, and the settlement service.
async fn ask(
    client: &Client,
    kept: &KeptLease,
    is_over: bool,
) -> (Option<LeaseInfo>, Result<LeaseView, String>) {
    let host = async {
        if is_over {
            return None;
        }
        ask_host(&client.buyer, &kept.host, Some(kept.lease)).await?.into_iter().next()
    };
    let settlement = async {
        match timeout(SETTLEMENT_TIMEOUT, client.buyer.settle().lease(kept.lease)).await {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(SettlementError::Refused(SettleRefusal::UnknownLease))) => {
                Err("nothing was set aside for it".to_owned())
            }
            Ok(Err(error)) => Err(welkin_node::chain(&error)),
            Err(_) => Err("the settlement service does not answer".to_owned()),
        }
    };
    tokio::join!(host, settlement)
}

/// Bytes of one output that were copied to this machine.
fn copied(folder: &Path, name: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let is_segment = |file: &std::ffi::OsStr| {
        let number = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| is_segment(&entry.file_name()))
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

/// All that is known of a lease.
#[derive(Debug, Serialize)]
struct Shown {
    lease: KeptLease,
    /// The lease that took its place after its host was lost.
    successor: Option<LeaseId>,
    /// Whether another one is being looked for.
    is_placed_again: bool,
    /// What the host says, where it was asked and answered.
    host: Option<LeaseInfo>,
    /// What the settlement service says.
    settlement: Option<LeaseView>,
    /// Why it says nothing.
    settlement_problem: Option<String>,
    receipt: Option<Receipt>,
    receipt_path: Option<std::path::PathBuf>,
    /// What buyer and host measured of it.
    digests: KeptDigests,
    /// Bytes of standard output and error that were copied here.
    logs_here: [u64; 2],
}

/// Lines of a label and a value.
struct Lines(String);

impl Lines {
    fn line(&mut self, label: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{label:<12}{value}");
    }
}

impl Shown {
    fn stages(&self) -> &[StageTime] {
        match (&self.receipt, &self.host) {
            (Some(receipt), _) => &receipt.stages,
            (None, Some(info)) => &info.stages,
            (None, None) => &self.lease.stages,
        }
    }

    fn state(&self) -> (LeaseState, Reason) {
        let last = self.stages().last();
        last.map_or_else(|| self.lease.state(), |stage| (stage.state, stage.reason))
    }

    fn is_sure(&self) -> bool {
        self.receipt.is_some() || self.host.is_some() || self.lease.state().0.is_final()
    }

    fn text(&self, now: UnixMillis) -> String {
        let mut lines = Lines(String::new());
        self.order(&mut lines, now);
        self.stage_lines(&mut lines);
        self.use_lines(&mut lines);
        self.money(&mut lines);
        self.logs(&mut lines);
        for line in quality::lines(&self.digests) {
            lines.line("quality", line);
        }
        if let Some(detail) = &self.lease.detail {
            lines.line("detail", detail);
        }
        lines.0
    }

    fn order(&self, lines: &mut Lines, now: UnixMillis) {
        let (kept, order) = (&self.lease, &self.lease.order.message);
        let (state, reason) = self.state();
        lines.line("lease", kept.lease);
        if !kept.name.is_empty() {
            lines.line("name", &kept.name);
        }
        if self.is_sure() {
            let bills = match kept.terms.reservation {
                Some(_) => "by its reservation".to_owned(),
                None => state.billing().to_string(),
            };
            lines.line("state", format!("{state} ({reason}), billing {bills}"));
        } else {
            lines.line("state", format!("unknown (host_unreachable), last known: {state}"));
        }
        lines.line("command", &kept.command);
        lines.line("host", &kept.host);
        lines.line("operator", order.operator);
        lines.line("container", order.container);
        if let Some(matched) = kept.matched {
            lines.line("matched by", format!("{} for {}", matched.indexer, matched.account));
        }
        lines.line("price", order.price);
        if kept.terms.capacity == CapacityType::Spot {
            lines.line("terms", format!("spot, {} s notice", kept.terms.notice_seconds));
        }
        if let Some(reservation) = kept.terms.reservation {
            lines.line("terms", format!("reserved: {reservation} pays for it"));
        }
        lines.line("budget", order.budget);
        let age = out::duration(now.since(order.issued));
        lines.line("ordered", format!("{} ({age} ago)", order.issued));
        if !state.is_final() {
            let keeper = if kept.by_agent { "the agent" } else { "a command in the foreground" };
            lines.line("kept by", keeper);
        }
        if kept.tries > 0 {
            lines.line("tries", format!("{} before this one", kept.tries));
        }
        if let Some(old) = kept.replaces {
            lines.line("replaces", old);
        }
        if let Some(here) = kept.checkpoint.as_ref().and_then(|kept| kept.here.as_ref()) {
            lines.line("checkpoint", here.display());
        }
        if let Some(new) = self.successor {
            lines.line("again", format!("placed again as {new}"));
        } else if self.is_placed_again {
            lines.line("again", "the agent looks for another container");
        }
    }

    fn stage_lines(&self, lines: &mut Lines) {
        lines.0.push('\n');
        let mut before: Option<UnixMillis> = None;
        for stage in self.stages() {
            let later = before.map_or_else(String::new, |before| {
                format!("  + {}", out::duration(stage.at.since(before)))
            });
            before = Some(stage.at);
            let name = stage.state.as_str();
            lines.line(name, format!("{}  {}{later}", stage.at, stage.reason));
        }
        lines.0.push('\n');
    }

    fn use_lines(&self, lines: &mut Lines) {
        let exit: Option<&Exit> = match (&self.receipt, &self.host) {
            (Some(receipt), _) => receipt.exit.as_ref(),
            (None, info) => info.as_ref().and_then(|info| info.exit.as_ref()),
        };
        if let Some(exit) = exit {
            lines.line("exit", exit_text(exit));
        }
        let used = match (&self.receipt, &self.host) {
            (Some(receipt), _) => {
                let usage = &receipt.usage;
                Some((usage.seconds, usage.cpu_us, usage.memory_peak_bytes, "at most"))
            }
            (None, Some(info)) => Some((info.seconds, info.cpu_us, info.memory_bytes, "now")),
            (None, None) => None,
        };
        if let Some((seconds, cpu_us, memory_bytes, when)) = used {
            let cpu = out::duration(Duration::from_micros(cpu_us));
            let memory = size(memory_bytes);
            let text = format!("{seconds} s billed, {cpu} of processor, {memory} memory {when}");
            lines.line("usage", text);
        }
    }

    fn money(&self, lines: &mut Lines) {
        let (promised, price) = (self.lease.promised, self.lease.order.message.price);
        lines.line("vouchers", format!("{promised} s promised: {}", price.cost(promised)));
        match &self.settlement {
            Some(view) => {
                let LeaseView { held, paid, fee, refunded, closed, transaction, .. } = view;
                let end = if *closed { "closed" } else { "open" };
                let text = format!(
                    "{end}: held {held}, paid {paid} (fee {fee} in it), refunded {refunded}"
                );
                lines.line("settlement", text);
                if let Some(transaction) = transaction {
                    lines.line("transaction", transaction);
                }
            }
            None => lines.line("settlement", self.settlement_problem.as_deref().unwrap_or("?")),
        }
        match &self.receipt_path {
            Some(path) => lines.line("receipt", path.display()),
            None => lines.line("receipt", "none yet"),
        }
    }

    fn logs(&self, lines: &mut Lines) {
        let [stdout, stderr] = self.logs_here;
        let here = format!("{} stdout, {} stderr copied here", size(stdout), size(stderr));
        match &self.receipt {
            Some(receipt) => {
                let logs = &receipt.logs;
                let printed = (size(logs.stdout_bytes), size(logs.stderr_bytes));
                lines.line("logs", format!("{} stdout, {} stderr; {here}", printed.0, printed.1));
            }
            None => lines.line("logs", here),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::kept;
    use super::*;

    #[test]
    fn what_waits_is_shown_with_its_reason() {
        let wait = crate::waiting::tests::kept(UnixMillis(81_000));
        insta::assert_snapshot!(wait_text(&wait, UnixMillis(201_000)), @r"
        ticket      tkt_01010101010101010101010101010101
        name        train
        state       queued (hosts_busy), billing off
        position    3 of 12
        why         all 4 rtx4090 busy
        command     python train.py
        since       1970-01-01T00:01:21.000Z (2 m 0 s ago)
        until       1970-01-01T00:12:21.000Z (at most 9 m 0 s more)
        estimate    3 m 0 s (by what became free lately)
        ");
    }

    fn shown(host: Option<LeaseInfo>) -> Shown {
        Shown {
            lease: kept(LeaseState::Running),
            successor: None,
            is_placed_again: false,
            host,
            settlement: None,
            settlement_problem: Some("the settlement service does not answer".to_owned()),
            receipt: None,
            receipt_path: None,
            digests: KeptDigests::default(),
            logs_here: [2_048, 0],
        }
    }

    #[test]
    fn a_lease_whose_host_is_silent() {
        insta::assert_snapshot!(shown(None).text(UnixMillis(91_000)), @r"
        lease       lse_01010101010101010101010101010101
        name        train
        state       unknown (host_unreachable), last known: running
        command     python train.py --epochs 3 --resume auto
        host        nod_0707070707070707070707070707070707070707070707070707070707070707@127.0.0.1:7401
        operator    0x0202020202020202020202020202020202020202
        container   ctr_05050505050505050505050505050505
        price       $0.04/h
        budget      $5.00
        ordered     1970-01-01T00:00:01.000Z (1 m 30 s ago)
        kept by     the agent

        pulling     1970-01-01T00:00:01.012Z  normal
        running     1970-01-01T00:00:01.260Z  normal  + 248 ms

        vouchers    60 s promised: $0.000666
        settlement  the settlement service does not answer
        receipt     none yet
        logs        2 KiB stdout, 0 B stderr copied here
        ");
    }

    #[test]
    fn a_running_lease() {
        let lease = kept(LeaseState::Running);
        let info = LeaseInfo {
            lease: lease.lease,
            name: lease.name.clone(),
            stages: lease.stages,
            seconds: 61,
            covered: 60,
            exit: None,
            cpu_us: 4_200_000,
            memory_bytes: 12 << 20,
        };
        let text = shown(Some(info)).text(UnixMillis(91_000));
        assert!(text.contains("running (normal), billing on"), "{text}");
        assert!(text.contains("61 s billed, 4 s of processor, 12 MiB memory now"), "{text}");
    }

    #[test]
    fn copies_are_counted_without_their_index() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("stdout.000000", 5), ("stdout.000002", 7), ("stdout.idx", 16)] {
            std::fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!((copied(dir.path(), "stdout"), copied(dir.path(), "stderr")), (12, 0));
    }
}
