//! What is on offer, and where a task would run: questions to an indexer that cost nothing.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use welkin_node::buyer::Ask;
use welkin_proto::exam::Verified;
use welkin_proto::index::Listing;
use welkin_proto::site::SiteView;
use welkin_proto::{ContainerOffer, Offer};
use welkin_types::task::{ByteRange, CpuRange, GpuAsk, Needs, Text};
use welkin_types::{CapacityType, ContainerId, Gpu, NodeId, Price, Region, Resources, Tier, Usd};

use crate::client::Client;
use crate::{Context, Usage, cli, gang, out, task};

mod history;
mod sites;
mod watch;

/// Offers that a plan shows.
const PLANNED_MAX: u8 = 5;

/// Lists what is on offer, cheapest first.
pub(crate) async fn offers(context: &Context, args: &cli::Offers) -> anyhow::Result<()> {
    if let Some(class) = &args.history {
        return history::history(context, args, class).await;
    }
    let needs = needs(args)?;
    let is_filtered = needs.is_some();
    let client = Client::open(context).await?;
    if args.watch {
        let watched = watch::watch(context, &client, needs, &args.every).await;
        client.close().await;
        return watched;
    }
    let (rows, verified, sites) =
        tokio::join!(client.buyer.offers(needs), client.buyer.verified(), client.buyer.sites());
    client.close().await;
    let mut rows = rows?;
    rows.sort_by_key(|row| (row.container.price, row.addr.node, row.container.id));
    let verified = by_container(verified);
    let sites: BTreeMap<_, _> =
        sites.into_iter().flatten().map(|site| ((site.host, site.container), site)).collect();
    if context.is_json {
        let shown = |row| {
            let (verified, measured) = (verified.get(&key(row)), sites.get(&key(row)));
            out::json(&Shown { listing: row, verified, measured })
        };
        return rows.iter().try_for_each(shown);
    }
    if rows.is_empty() {
        out::note(if is_filtered {
            "nothing on offer meets this; `welkin offers` alone lists everything"
        } else {
            "nothing is on offer: no host has announced itself (`welkin up` starts some)"
        });
        return Ok(());
    }
    let table = listing_table(&rows, Some(&verified));
    out::text(&table)?;
    for site in rows.iter().filter_map(|row| sites.get(&key(row))) {
        sites::doubts(site).into_iter().for_each(|doubt| out::note(&doubt));
    }
    Ok(())
}

/// A row of the market with what challenges found of it.
#[derive(serde::Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    listing: &'a Listing,
    verified: Option<&'a Verified>,
    measured: Option<&'a SiteView>,
}

type ByContainer = BTreeMap<(NodeId, ContainerId), Verified>;

/// Nothing where it can't be had: offers are shown all the same.
fn by_container<E>(rows: Result<Vec<Verified>, E>) -> ByContainer {
    let rows = rows.into_iter().flatten();
    rows.map(|row| ((row.host, row.container), row)).collect()
}

const fn key(row: &Listing) -> (NodeId, ContainerId) {
    (row.addr.node, row.container.id)
}

/// The class that was proved; `-` where nobody has challenged it lately.
fn proved(verified: Option<&Verified>) -> String {
    let Some(verified) = verified else { return "-".to_owned() };
    if verified.absent > verified.resident {
        return "no memory".to_owned();
    }
    if verified.proved + verified.failed == 0 {
        return "-".to_owned();
    }
    verified.class.as_ref().map_or_else(|| "not proved".to_owned(), ToString::to_string)
}

/// Shows where a task would run and what it would cost.
pub(crate) async fn plan(context: &Context, args: &cli::Plan) -> anyhow::Result<()> {
    let (spec, folder) = task::spec(&args.task)?;
    if let Some(Text(id)) = &spec.price.reserve {
        let text = "a task with a reservation runs there, and costs nothing beside it";
        return Err(Usage::new(text, format!("see `welkin reservations show {id}`")).into());
    }
    let task::Job { ask, gang, .. } = task::job(&spec, &folder)?;
    let client = Client::open(context).await?;
    let offers = match gang {
        Some(gang) => client.buyer.gang_candidates(&ask.needs, gang, false, Vec::new()).await,
        None => client.buyer.candidates(&ask.needs, PLANNED_MAX, false, Vec::new()).await,
    };
    client.close().await;
    let offers = offers?;
    let Some(first) = offers.first() else {
        bail!("the indexer answered with no offer that it has signed for this account");
    };
    if context.is_json {
        return offers.iter().try_for_each(out::json);
    }
    let nodes = gang.map_or_else(String::new, |_| nodes(&ask, &offers));
    out::text(&(offer_table(&offers) + "\n" + &nodes + &terms(&ask, first)))?;
    if !context.is_quiet {
        out::note("nothing was leased");
    }
    Ok(())
}

/// What several nodes cost together, whose offers are all of the table.
fn nodes(ask: &Ask, offers: &[Offer]) -> String {
    let total = gang::total(offers).unwrap_or_default();
    let mut text = format!("nodes           {}, all of them or none\n", offers.len());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "in all          {total} ({} a minute)", total.cost(60));
    if let Some(all) = ask.budget {
        let _ = writeln!(text, "budget in all   {all}, an equal part for each node");
    }
    text
}

/// What the flags ask for; `None` where there are none.
fn needs(args: &cli::Offers) -> anyhow::Result<Option<Needs>> {
    let gpu = flag::<GpuAsk>("gpu", args.gpu.as_ref())?;
    let cpu = flag::<CpuRange>("cpu", args.cpu.as_ref())?;
    let memory = flag::<ByteRange>("memory", args.memory.as_ref())?;
    let max_per_hour = flag::<Usd>("max-price", args.max_price.as_ref())?;
    let regions = args.region.iter().map(|name| flag::<Region>("region", Some(name)));
    let regions: Vec<_> =
        regions.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    let is_asked = gpu.is_some() || cpu.is_some() || memory.is_some() || max_per_hour.is_some();
    if !is_asked && regions.is_empty() {
        return Ok(None);
    }
    Ok(Some(Needs {
        cpu_milli_min: cpu.map_or(0, |range| range.min_milli),
        memory_bytes_min: memory.map_or(0, |range| range.min),
        disk_bytes_min: 0,
        gpu,
        isolation_min: Tier::None,
        max_per_hour,
        regions,
        ..Needs::default()
    }))
}

fn flag<T: FromStr<Err: Display>>(flag: &str, text: Option<&String>) -> anyhow::Result<Option<T>> {
    text.map(|text| text.parse()).transpose().map_err(|error| {
        let text = format!("--{flag}: {error}");
        Usage::new(text, "`welkin run --help` shows the forms").into()
    })
}

/// Without what challenges found where that was not asked for.
fn listing_table(rows: &[Listing], verified: Option<&ByContainer>) -> String {
    let mut head = vec![
        "CONTAINER",
        "CLASS",
        "REGION",
        "CPU",
        "MEMORY",
        "DISK",
        "GPU",
        "PRICE/H",
        "SPOT/H",
        "RESERVED/H",
        "FREE",
        "ONLINE",
    ];
    head.extend(verified.map(|_| "VERIFIED"));
    head.extend(["TIER", "HOST"]);
    let cells = |row: &Listing| {
        let container = &row.container;
        let mut cells = vec![
            out::short(&container.id),
            container.class.to_string(),
            row.region.to_string(),
            cores(container.resources.cpu_milli),
            size(container.resources.memory_bytes),
            size(container.resources.disk_bytes),
            gpus(&container.resources.gpus),
            container.price.hour().to_string(),
            spot(container),
            container
                .reserved
                .map_or_else(|| "-".to_owned(), |terms| terms.price.hour().to_string()),
            format!("{}/{}", row.free, container.slots),
            out::percent(row.online_bp),
        ];
        cells.extend(verified.map(|verified| proved(verified.get(&key(row)))));
        cells.extend([container.tier.to_string(), out::short(&row.addr.node)]);
        cells
    };
    out::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// What a container costs as spot and how much that saves: `$2.10 -50 %`; `-` where it is not.
fn spot(container: &ContainerOffer) -> String {
    let Some(terms) = container.spot else { return "-".to_owned() };
    let (spot, whole) = (terms.price.hour().micros(), container.price.hour().micros());
    let saved = u128::from(whole.saturating_sub(spot)) * 100 / u128::from(whole.max(1));
    format!("{} -{saved} %", terms.price.hour())
}

fn offer_table(offers: &[Offer]) -> String {
    let head = [
        "",
        "CONTAINER",
        "CLASS",
        "REGION",
        "TYPE",
        "PRICE/H",
        "A MINUTE",
        "ONLINE",
        "TIER",
        "HOST",
    ];
    let cells = |(index, offer): (usize, &Offer)| {
        vec![
            (index + 1).to_string(),
            out::short(&offer.container),
            offer.class.to_string(),
            offer.region.to_string(),
            offer.capacity.to_string(),
            offer.price.hour().to_string(),
            offer.price.cost(60).to_string(),
            out::percent(offer.online_bp),
            offer.tier.to_string(),
            out::short(&offer.addr.node),
        ]
    };
    out::table(&head, &offers.iter().enumerate().map(cells).collect::<Vec<_>>())
}

/// What the lease would get at the best offer, and how long its money would last.
fn terms(ask: &Ask, first: &Offer) -> String {
    let launch = &ask.launch;
    let gets = Resources {
        cpu_milli: launch.cpu_milli,
        memory_bytes: launch.memory_bytes,
        disk_bytes: launch.disk_bytes,
        gpus: first.resources.gpus.clone(),
    };
    let limit = match launch.run_seconds_max {
        0 => "none".to_owned(),
        seconds => format!("{} of running", out::duration(Duration::from_secs(seconds))),
    };
    let notice = match first.capacity {
        CapacityType::Spot => {
            let seconds = first.notice_seconds;
            format!("{seconds} s, when an order on demand needs the container")
        }
        CapacityType::OnDemand | CapacityType::Reserved => "it is not taken back".to_owned(),
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "the lease gets  {gets}");
    let _ = writeln!(text, "budget          {}", budget(ask.budget, first.price));
    let _ = writeln!(text, "notice          {notice}");
    let _ = writeln!(text, "time limit      {limit}");
    let _ = writeln!(text, "waits           up to {} for a container", out::duration(ask.queue));
    text
}

fn budget(budget: Option<Usd>, price: Price) -> String {
    let Some(budget) = budget else {
        return format!("none said: thirty days of the price ({})", price.cost(30 * 86_400));
    };
    match price.seconds_for(budget) {
        u64::MAX => format!("{budget}"),
        seconds => format!("{budget}: lasts {}", out::duration(Duration::from_secs(seconds))),
    }
}

fn cores(cpu_milli: u32) -> String {
    (f64::from(cpu_milli) / 1_000.0).to_string()
}

/// GPUs as `2x h100 80 GiB`; `-` for none.
pub(crate) fn gpus(gpus: &[Gpu]) -> String {
    gpus.first().map_or_else(
        || "-".to_owned(),
        |gpu| format!("{}x {} {}", gpus.len(), gpu.model, size(gpu.vram_bytes)),
    )
}

/// A number of bytes with a binary unit and at most one decimal.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut unit, mut tenths) = (0, u128::from(bytes) * 10);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[unit]),
        tenth => format!("{}.{tenth} {}", tenths / 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use welkin_proto::NodeAddr;
    use welkin_types::{AccountId, Class, ContainerId, NodeId};

    use super::*;

    pub(super) fn listing() -> Listing {
        let gpu = Gpu {
            model: "h100".to_owned(),
            form: "sxm".to_owned(),
            vram_bytes: 80 << 30,
            uuid: String::new(),
        };
        Listing {
            addr: NodeAddr { node: NodeId::from_bytes([7; 32]), relay: None, direct: Vec::new() },
            operator: AccountId::from_bytes([2; 20]),
            container: ContainerOffer {
                id: ContainerId::from_bytes([5; 16]),
                class: "h100-sxm-80".parse::<Class>().unwrap(),
                resources: Resources {
                    cpu_milli: 8_500,
                    memory_bytes: 64 << 30,
                    disk_bytes: 1_610_612_736,
                    gpus: vec![gpu.clone(), gpu],
                },
                slots: 2,
                price: Price::per_hour("4.20".parse().unwrap()),
                tier: Tier::Container,
                features: Vec::new(),
                driver: None,
                apps: Vec::new(),
                spot: None,
                reserved: None,
            },
            region: Region::local(),
            free: 1,
            is_confirmed: true,
            online_bp: Some(9_990),
            checks: 40,
        }
    }

    #[test]
    fn a_listing_reads_well() {
        insta::assert_snapshot!(listing_table(&[listing()], Some(&ByContainer::new())), @r"
        CONTAINER     CLASS        REGION  CPU  MEMORY  DISK     GPU             PRICE/H  SPOT/H  RESERVED/H  FREE  ONLINE   VERIFIED  TIER       HOST
        ctr_05050505  h100-sxm-80  local   8.5  64 GiB  1.5 GiB  2x h100 80 GiB  $4.20    -       -           1/2   99.90 %  -         container  nod_07070707
        ");
        let row = listing();
        let found = |class: Option<&str>| Verified {
            host: row.addr.node,
            container: row.container.id,
            class: class.map(|class| class.parse().unwrap()),
            mmac_per_s: 1,
            proved: 3,
            failed: 0,
            resident: 0,
            absent: 0,
            minute: 1,
        };
        assert_eq!(proved(Some(&found(Some("rtx4090-24")))), "rtx4090-24");
        assert_eq!(proved(Some(&found(None))), "not proved");
        let without = Verified { resident: 1, absent: 2, ..found(Some("rtx4090-24")) };
        assert_eq!(proved(Some(&without)), "no memory");
        let nobody = Verified { proved: 0, resident: 1, ..found(None) };
        assert_eq!(proved(Some(&nobody)), "-");
    }

    #[test]
    fn no_flags_ask_for_everything_and_one_flag_for_nothing_else() {
        let none = cli::Offers {
            gpu: None,
            cpu: None,
            memory: None,
            max_price: None,
            region: Vec::new(),
            watch: false,
            every: String::new(),
            history: None,
            since: String::new(),
        };
        assert_eq!(needs(&none).unwrap(), None);
        let args = cli::Offers { memory: Some("4GiB..".to_owned()), ..none.clone() };
        let asked = needs(&args).unwrap().unwrap();
        assert_eq!((asked.memory_bytes_min, asked.cpu_milli_min, asked.gpu), (4 << 30, 0, None));
        let wrong = cli::Offers { cpu: Some("many".to_owned()), ..none };
        assert!(needs(&wrong).unwrap_err().is::<Usage>());
    }

    #[test]
    fn a_budget_says_how_long_it_lasts() {
        let price = Price::per_hour("0.36".parse().unwrap());
        assert_eq!(budget(Some("0.72".parse().unwrap()), price), "$0.72: lasts 2 h 0 m");
        assert_eq!(budget(None, price), "none said: thirty days of the price ($259.20)");
        assert_eq!(budget(Some(Usd::ZERO), Price::default()), "$0.00");
    }
}
