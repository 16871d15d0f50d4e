//! A day's published probes, verified and settled as a member of the committee does it, on one core:
//! `cargo run --release -p welkin-node --example evidence [CONTAINERS [CHECKERS]]`.
//!
//! All checkers have drawn by real proofs, and sign real sheets. Ends with `RESULT evidence-day …`.
//! Making the evidence is not timed.

#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::unwrap_used, reason = "what it makes up is in range")]

use std::collections::BTreeMap;
use std::time::Instant;

use welkin_check::Sheets;
use welkin_check::sortition::{Committees, Lot, VrfKey};
use welkin_ledger::epoch::{Book, Emissions};
use welkin_node::checker::COMMITTEE;
use welkin_node::epoch::{Published, outcome};
use welkin_proto::check::{Finding, Report};
use welkin_proto::epoch::{Heading, Roll, Statement};
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::{
    AccountKey, Delegation, Domain, NodeKey, Signed, SignedByAccount, TurnProof, container_id,
    encode,
};
use welkin_types::{Class, ContainerId, NodeId, UnixMillis};

const EPOCH: u64 = 20_000;
const DAY: u64 = 86_400;
/// Containers of a host.
const EACH: u32 = 4;
const ONLINE: Finding = Finding::Online { rtt_us: 18_000 };

fn secret(kind: u8, number: u32) -> [u8; 32] {
    let mut secret = [kind; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    secret
}

fn node(kind: u8, number: u32) -> NodeKey {
    NodeKey::from_secret(&secret(kind, number))
}

fn roll(key: &NodeKey, kind: u8, number: u32, containers: Vec<(ContainerId, Class)>) -> Statement {
    let account = AccountKey::from_secret(&secret(kind, number)).unwrap();
    let delegation = Delegation { node: key.id(), expires: UnixMillis(u64::MAX) };
    let account = SignedByAccount::sign(&Domain::LOCAL, &account, delegation).unwrap();
    let issued = UnixMillis(EPOCH * DAY * 1_000);
    let roll = Roll { epoch: EPOCH, issued, account, containers, region: None };
    Statement::Roll(Box::new(Signed::sign(&Domain::LOCAL, key, &roll).unwrap()))
}

/// Which host has a container.
type Where = BTreeMap<ContainerId, NodeId>;

fn rolls(containers: u32, checkers: u32) -> (Vec<Statement>, Where) {
    let (mut statements, mut places) = (Vec::new(), Where::new());
    for host in 0..containers.div_ceil(EACH) {
        let key = node(1, host);
        let mut offered: Vec<_> = (0..EACH.min(containers - host * EACH))
            .map(|place| (container_id(key.id(), place), Class::cpu(4_000)))
            .collect();
        offered.sort_unstable();
        places.extend(offered.iter().map(|(container, _)| (*container, key.id())));
        statements.push(roll(&key, 1, host, offered));
    }
    let of_checker = |number| roll(&node(2, number), 2, number, Vec::new());
    statements.extend((0..checkers).map(of_checker));
    (statements, places)
}

/// What all checkers find in a day: all that they have drawn, and that they are named for.
fn found(view: &EpochView, places: &Where) -> Vec<Statement> {
    let committees = Committees::new(view, COMMITTEE);
    let ids: Vec<_> = places.keys().copied().collect();
    let checkers: Vec<_> = (0..committees.checkers())
        .map(|number| (node(2, number), VrfKey::from_seed(&secret(3, number)).unwrap()))
        .collect();
    let mut statements = Vec::new();
    for minute in EPOCH * DAY / 60..(EPOCH + 1) * DAY / 60 {
        let map = committees.map(minute, &ids);
        let mut named: BTreeMap<NodeId, Vec<ContainerId>> = BTreeMap::new();
        for id in &ids {
            for node in committees.stand_ins(minute, *id) {
                named.entry(node).or_default().push(*id);
            }
        }
        for (key, vrf) in &checkers {
            let (ticket, _) = committees.ticket(key.id(), minute).unwrap();
            let (proof, output) = vrf.prove(&ticket, [9; 32]);
            let (lot, proof) = (Lot::new(output), TurnProof::from_bytes(&proof.0));
            let (checker, mut sheets) = (key.id(), Sheets::new(key.id()));
            let mut put = |container: ContainerId, turn| {
                let (host, finding) = (places[&container], ONLINE);
                sheets.put(&Report { checker, host, container, minute, finding, turn });
            };
            let drawn = map.visited(&lot).filter_map(|at| ids.get(at as usize));
            drawn.for_each(|id| put(*id, Some(proof)));
            let named = named.remove(&checker).unwrap_or_default();
            let stood_in = named.into_iter().filter(|id| !committees.visits(&lot, minute, *id));
            stood_in.for_each(|id| put(id, None));
            statements.extend(sheets.take(|_| true).iter().map(|sheet| {
                Statement::Sheet(Box::new(Signed::sign(&Domain::LOCAL, key, sheet).unwrap()))
            }));
        }
    }
    statements
}

fn rss_mib(of: &str) -> u64 {
    let status = String::from_utf8(std::fs::read("/proc/self/status").unwrap()).unwrap();
    let line = status.lines().find(|line| line.starts_with(of)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

/// A number that was given, or what is taken without.
fn given(arg: Option<String>, otherwise: u32) -> Result<u32, String> {
    let Some(arg) = arg else { return Ok(otherwise) };
    let number = arg.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{arg:?} is no number above 0: evidence [CONTAINERS [CHECKERS]]"))
}

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let containers = given(args.next(), 1_000)?;
    let checkers = given(args.next(), 30)?;
    let listed = |number| {
        let vrf = VrfKey::from_seed(&secret(3, number)).unwrap().public().0;
        Listed { node: node(2, number).id(), number, vrf }
    };
    let mut listed: Vec<_> = (0..checkers).map(listed).collect();
    listed.sort();
    let view = EpochView { epoch: EPOCH, seed: [7; 32], checkers: listed, epoch_seconds: DAY };
    let (mut statements, places) = rolls(containers, checkers);
    statements.extend(found(&view, &places));
    let bytes: usize = statements.iter().map(|it| encode(it).unwrap().len() + 4).sum();
    let (count, before) = (statements.len(), rss_mib("VmRSS:"));
    let published = Published { heading: Heading::new(Domain::LOCAL, view), statements };
    let began = Instant::now();
    let gathered = published.gather();
    let verified = began.elapsed().as_secs_f64();
    let probes = gathered.probes.len();
    let settled = outcome(gathered, &Book::new(Emissions::new(5_000_000))).unwrap().settled;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{containers} containers, {checkers} checkers: {count} statements, {probes} probes that \
         count, {} claims; verified after {verified:.1} s; {before} MiB with the statements",
        settled.claims.list().len(),
    );
    println!(
        "RESULT evidence-day seconds={seconds:.1} rss_mib={} evidence_mib={} bytes_per_container={}",
        rss_mib("VmHWM:"),
        bytes >> 20,
        bytes / containers as usize,
    );
    Ok(())
}
