//! `welkin ps`: one line for each lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::JoinSet;
use welkin_node::buyer::{BuyerError, Home, KeptGang, KeptLease, KeptWait};
use welkin_node::outside;
use welkin_proto::NodeAddr;
use welkin_proto::lease::LeaseInfo;
use welkin_types::{Billing, LeaseId, LeaseState, NodeId, Price, Reason, UnixMillis, Usd};

use super::ask_host;
use crate::client::{self, Client};
use crate::{Context, cli, out};

/// Hosts that are asked at the same time.
const ASKED_MAX: usize = 64;
/// Characters of a command that are shown.
const COMMAND_CHARS_MAX: usize = 30;

/// What the hosts that answered say, by host.
type Said = BTreeMap<NodeId, Vec<LeaseInfo>>;

/// Lists leases.
pub(crate) async fn ps(context: &Context, args: &cli::Ps) -> anyhow::Result<()> {
    let home = client::home(context);
    let (mut leases, damaged) = home.leases().map_err(BuyerError::Home)?;
    for error in damaged {
        tracing::warn!(error = %welkin_node::chain(&error), "a lease can't be read");
    }
    let waits = home.waits().map_err(BuyerError::Home)?;
    if leases.is_empty() && waits.is_empty() {
        // A folder without a network is a mistake rather than an empty list.
        client::network(context)?;
    }
    if !args.all {
        leases.retain(|kept| !kept.state().0.is_final() || is_placed_again(&home, kept));
    }
    let said = ask_hosts(context, &leases).await;
    let now = outside::now();
    let rows: Vec<Row> = leases.iter().map(|kept| row(&home, kept, &said)).collect();
    if context.is_json {
        waits.iter().try_for_each(|wait| out::json(&Queued::of(wait)))?;
        return rows.iter().try_for_each(out::json);
    }
    if rows.is_empty() && waits.is_empty() {
        out::note(match args.all {
            true => "there are no leases yet: `welkin run -- CMD` makes one",
            false => "no lease is running; `welkin ps -a` lists those that have ended",
        });
        return Ok(());
    }
    out::text(&table(&waits, &rows, now))
}

/// Whether the agent looks for another container for it.
fn is_placed_again(home: &Home, kept: &KeptLease) -> bool {
    let task = kept.may_be_replaced().then(|| home.task(kept.lease).ok().flatten()).flatten();
    task.is_some_and(|task| task.is_due(kept))
}

/// Asks the hosts of all leases that have not ended, at the same time.
async fn ask_hosts(context: &Context, leases: &[KeptLease]) -> Said {
    // The newest lease comes first and knows the newest address.
    let mut hosts: BTreeMap<NodeId, NodeAddr> = BTreeMap::new();
    for kept in leases.iter().filter(|kept| !kept.state().0.is_final()) {
        hosts.entry(kept.host.node).or_insert_with(|| kept.host.clone());
    }
    let mut said = Said::new();
    if hosts.is_empty() {
        return said;
    }
    let client = match Client::open(context).await {
        Ok(client) => client,
        Err(error) => {
            out::note(&format!("no host can be asked: {error:#}"));
            return said;
        }
    };
    let mut asking = JoinSet::new();
    for (node, addr) in hosts {
        if asking.len() >= ASKED_MAX {
            said.extend(asking.join_next().await.and_then(Result::ok).flatten());
        }
        let buyer = Arc::clone(&client.buyer);
        asking.spawn(async move { Some((node, ask_host(&buyer, &addr, None).await?)) });
    }
    while let Some(answer) = asking.join_next().await {
        said.extend(answer.ok().flatten());
    }
    client.close().await;
    said
}

/// One lease as it is listed; money in millionths of a dollar.
#[derive(Debug, Serialize)]
struct Row {
    lease: LeaseId,
    name: String,
    /// Its place among several nodes.
    gang: Option<KeptGang>,
    /// The state, or `unknown` where the host does not say.
    state: &'static str,
    reason: &'static str,
    /// The state last heard of, where the present one is not known.
    last_known: Option<LeaseState>,
    billing: Option<Billing>,
    ordered: UnixMillis,
    seconds: u64,
    cost: Usd,
    price: Price,
    host: NodeId,
    command: String,
    /// How often the task was placed before.
    tries: u32,
    /// The lease whose place it took.
    replaces: Option<LeaseId>,
}

fn row(home: &Home, kept: &KeptLease, said: &Said) -> Row {
    let price = kept.order.message.price;
    let (known, why) = kept.state();
    let mut row = Row {
        lease: kept.lease,
        name: kept.name.clone(),
        gang: kept.gang,
        state: known.as_str(),
        reason: why.code(),
        last_known: None,
        billing: Some(known.billing()),
        ordered: kept.ordered(),
        seconds: kept.promised,
        cost: price.cost(kept.promised),
        price,
        host: kept.host.node,
        command: kept.command.clone(),
        tries: kept.tries,
        replaces: kept.replaces,
    };
    if known.is_final() {
        if let Ok(Some(file)) = home.receipt(kept.lease)
            && let Ok(receipt) = file.receipt.open(&file.domain)
        {
            (row.seconds, row.cost) = (receipt.usage.seconds, receipt.cost);
        }
        return row;
    }
    let infos = said.get(&kept.host.node);
    match infos.and_then(|infos| infos.iter().find(|info| info.lease == kept.lease)) {
        Some(info) => {
            let (state, reason) = info.state();
            (row.state, row.reason) = (state.as_str(), reason.code());
            row.billing = Some(state.billing());
            (row.seconds, row.cost) = (info.seconds, price.cost(info.seconds));
        }
        None => {
            row.state = "unknown";
            row.reason = if infos.is_some() { "not_on_host" } else { "host_unreachable" };
            row.last_known = Some(known);
            row.billing = None;
        }
    }
    row
}

/// A task that waits, as it is listed: it has no lease and no host yet.
#[derive(Debug, Serialize)]
pub(super) struct Queued<'a> {
    #[serde(flatten)]
    wait: &'a KeptWait,
    state: LeaseState,
    reason: &'static str,
    billing: Billing,
}

impl<'a> Queued<'a> {
    pub(super) const fn of(wait: &'a KeptWait) -> Self {
        let (state, reason) = (LeaseState::Queued, Reason::HostsBusy.code());
        Self { wait, state, reason, billing: state.billing() }
    }
}

fn queued_cells(wait: &KeptWait, now: UnixMillis) -> Vec<String> {
    let queued = Queued::of(wait);
    vec![
        out::short(&wait.ticket),
        if wait.name.is_empty() { "-".to_owned() } else { wait.name.clone() },
        format!("{} {}/{}", queued.state, wait.position, wait.of),
        queued.reason.to_owned(),
        queued.billing.to_string(),
        out::duration(now.since(wait.since)),
        "0".to_owned(),
        Usd::ZERO.to_string(),
        "-".to_owned(),
        "-".to_owned(),
        cut(&wait.command, COMMAND_CHARS_MAX),
    ]
}

fn table(waits: &[KeptWait], rows: &[Row], now: UnixMillis) -> String {
    let head = [
        "LEASE", "NAME", "STATE", "REASON", "BILLING", "AGE", "SECONDS", "COST", "PRICE/H", "HOST",
        "COMMAND",
    ];
    let cells = |row: &Row| {
        vec![
            out::short(&row.lease),
            name(row),
            row.last_known
                .map_or_else(|| row.state.to_owned(), |last| format!("{} [{last}]", row.state)),
            row.reason.to_owned(),
            row.billing.map_or_else(|| "?".to_owned(), |billing| billing.to_string()),
            out::duration(now.since(row.ordered)),
            row.seconds.to_string(),
            row.cost.to_string(),
            row.price.hour().to_string(),
            out::short(&row.host),
            cut(&row.command, COMMAND_CHARS_MAX),
        ]
    };
    let waits = waits.iter().map(|wait| queued_cells(wait, now));
    out::table(&head, &waits.chain(rows.iter().map(cells)).collect::<Vec<_>>())
}

/// The name, and the rank of one of several nodes: `train/1`.
fn name(row: &Row) -> String {
    match (&row.gang, row.name.is_empty()) {
        (None, true) => "-".to_owned(),
        (None, false) => row.name.clone(),
        (Some(member), true) => format!("{}/{}", out::short(&member.gang), member.rank),
        (Some(member), false) => format!("{}/{}", row.name, member.rank),
    }
}

/// The beginning of a text on one line.
fn cut(text: &str, chars_max: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= chars_max {
        return text.chars().map(plain).collect();
    }
    text.chars().take(chars_max - 1).map(plain).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::kept;
    use super::*;
    use welkin_proto::StageTime;

    fn home() -> Home {
        Home::new("/nonexistent".into())
    }

    #[test]
    fn what_the_host_says_wins_and_silence_is_said() {
        let kept = kept(LeaseState::Starting);
        let info = LeaseInfo {
            lease: kept.lease,
            name: String::new(),
            stages: vec![StageTime {
                state: LeaseState::Running,
                reason: Reason::Normal,
                at: UnixMillis(2_000),
            }],
            seconds: 90,
            covered: 88,
            exit: None,
            cpu_us: 0,
            memory_bytes: 0,
        };
        let asked = |infos: &[LeaseInfo]| Said::from([(kept.host.node, infos.to_vec())]);
        let rows = [
            row(&home(), &kept, &asked(&[info])),
            row(&home(), &kept, &asked(&[])),
            row(&home(), &kept, &Said::new()),
        ];
        let wait = crate::waiting::tests::kept(UnixMillis(81_000));
        insta::assert_snapshot!(table(&[wait], &rows, UnixMillis(201_000)), @r"
        LEASE         NAME   STATE               REASON            BILLING  AGE       SECONDS  COST       PRICE/H  HOST          COMMAND
        tkt_01010101  train  queued 3/12         hosts_busy        off      2 m 0 s   0        $0.00      -        -             python train.py
        lse_01010101  train  running             normal            on       3 m 20 s  90       $0.001     $0.04    nod_07070707  python train.py --epochs 3 --…
        lse_01010101  train  unknown [starting]  not_on_host       ?        3 m 20 s  60       $0.000666  $0.04    nod_07070707  python train.py --epochs 3 --…
        lse_01010101  train  unknown [starting]  host_unreachable  ?        3 m 20 s  60       $0.000666  $0.04    nod_07070707  python train.py --epochs 3 --…
        ");
    }

    #[test]
    fn a_command_is_cut_to_one_line() {
        assert_eq!(cut("echo a\necho b", 30), "echo a echo b");
        assert_eq!(cut("aaaaaaaaaa", 4), "aaa…");
        assert_eq!(cut("äöüß", 4), "äöüß");
    }
}
