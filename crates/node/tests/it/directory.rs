//! What every directory must do, on each kind; and what an indexer keeps in one.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::sync::mpsc;
use welkin_directory::{
    Change, Claim, HolderId, HostRow, PriceRow, Prices, SessionRow, Span, StandingRow,
};
use welkin_match::prices::{Market, Series};
use welkin_node::indexer::directory::{Directory, Embedded, Records};
use welkin_node::indexer::prices::{History, in_directory};
use welkin_proto::prices;
use welkin_types::{AccountId, ContainerId, NodeId, UnixMillis, Usd};

#[cfg(feature = "postgres")]
#[path = "../../../directory/tests/it/server.rs"]
mod server;

const CLASSES: [&str; 3] = ["rtx4090", "rtx4090-laptop", "h100"];
const REGIONS: [&str; 2] = ["eu", "eu-west"];
/// Far from any age at which rows are removed.
const NOW: u64 = 4_000_000_000_000;

fn host() -> impl Strategy<Value = HostRow> {
    let sessions = proptest::collection::vec(any::<([u8; 16], u32, u32, u32)>(), 0..4);
    let capability = proptest::collection::vec(any::<u8>(), 0..300);
    (0..8_u8, any::<u8>(), 0..=u64::MAX / 2, 0..3_u64, capability, sessions).prop_map(
        |(node, operator, revision, expires, capability, sessions)| HostRow {
            node: NodeId::from_bytes([node; 32]),
            operator: AccountId::from_bytes([operator; 20]),
            revision,
            issued: UnixMillis(revision / 2),
            expires: UnixMillis(NOW - 1 + expires),
            capability,
            sessions: sessions
                .into_iter()
                .map(|(container, session, key_epoch, salt)| SessionRow {
                    container: ContainerId::from_bytes(container),
                    session,
                    key_epoch,
                    salt,
                })
                .collect(),
        },
    )
}

fn some_prices() -> impl Strategy<Value = Option<Prices>> {
    let usd = || any::<u32>().prop_map(|micros| Usd::from_micros(u64::from(micros)));
    proptest::option::of((usd(), usd(), usd()).prop_map(|(min, median, max)| Prices {
        min,
        median,
        max,
    }))
}

fn price() -> impl Strategy<Value = PriceRow> {
    let span = prop_oneof![Just(Span::Minute), Just(Span::Hour), Just(Span::Day)];
    (0..3_usize, 0..2_usize, span, 0..20_u64, some_prices(), some_prices(), any::<u32>()).prop_map(
        |(class, region, span, at, on_demand, spot, free)| PriceRow {
            class: CLASSES[class].to_owned(),
            region: REGIONS[region].to_owned(),
            span,
            at: UnixMillis(NOW + at * 60_000),
            on_demand,
            spot,
            free,
            total: u32::MAX,
        },
    )
}

fn standing() -> impl Strategy<Value = StandingRow> {
    (0..5_u8, any::<u32>(), "[a-zäöü ]{0,30}").prop_map(|(operator, announced, why)| StandingRow {
        operator: AccountId::from_bytes([operator; 20]),
        announced: u64::from(announced),
        refused: u64::from(announced / 2),
        why,
        first: UnixMillis(1),
        last: UnixMillis(u64::from(announced)),
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => host().prop_map(Change::Host),
        1 => (0..8_u8).prop_map(|node| Change::HostGone(NodeId::from_bytes([node; 32]))),
        2 => standing().prop_map(Change::Standing),
        4 => price().prop_map(Change::Price),
    ]
}

/// What a directory must hold after some changes, said with maps.
#[derive(Default)]
struct Model {
    hosts: BTreeMap<NodeId, HostRow>,
    standings: BTreeMap<AccountId, StandingRow>,
    prices: BTreeMap<(String, String, Span, UnixMillis), PriceRow>,
}

impl Model {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Host(row) => drop(self.hosts.insert(row.node, row)),
            Change::HostGone(node) => drop(self.hosts.remove(&node)),
            Change::Standing(row) => drop(self.standings.insert(row.operator, row)),
            Change::Price(row) => {
                let key = (row.class.clone(), row.region.clone(), row.span, row.at);
                self.prices.insert(key, row);
            }
        }
    }

    async fn check(&self, directory: &dyn Directory, since: u64, count: usize) {
        let mut hosts = hosts(directory, NOW).await;
        hosts.sort_by_key(|row| row.node);
        let live = self.hosts.values().filter(|row| row.expires.0 >= NOW);
        assert!(hosts.iter().eq(live), "{hosts:?}");
        let mut sessions = directory.load_sessions(UnixMillis(NOW)).await.unwrap();
        sessions.sort_by_key(|(node, _)| *node);
        sessions.retain(|(_, rows)| !rows.is_empty());
        let own = hosts.iter().map(|row| (row.node, row.sessions.clone()));
        assert_eq!(sessions, own.filter(|(_, rows)| !rows.is_empty()).collect::<Vec<_>>());
        let mut standings = directory.load_standings(100).await.unwrap();
        standings.sort_by_key(|row| row.operator);
        assert!(standings.iter().eq(self.standings.values()), "{standings:?}");
        let since = UnixMillis(NOW + since * 60_000);
        for (class, region) in
            CLASSES.iter().flat_map(|class| REGIONS.map(|region| (*class, region)))
        {
            for span in Span::ALL {
                let loaded = directory.load_prices((class, region), span, since, count).await;
                let key = |at| (class.to_owned(), region.to_owned(), span, at);
                let expected = self.prices.range(key(since)..=key(UnixMillis(u64::MAX)));
                let expected: Vec<_> = expected.take(count).map(|(_, row)| row.clone()).collect();
                assert_eq!(loaded.unwrap(), expected);
            }
        }
    }
}

async fn hosts(directory: &dyn Directory, now: u64) -> Vec<HostRow> {
    let (into, mut from) = mpsc::channel(2);
    let taking = async {
        let mut rows = Vec::new();
        while let Some(piece) = from.recv().await {
            rows.extend(piece);
        }
        rows
    };
    let (count, rows) = tokio::join!(directory.load_hosts(UnixMillis(now), into), taking);
    assert_eq!(count.unwrap(), rows.len() as u64);
    rows
}

/// A directory whose writer runs as long as this lives.
struct Running(Arc<dyn Directory>, tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.1.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no role to spawn tasks through")]
async fn running(directory: Arc<dyn Directory>) -> Running {
    let holder = HolderId::from_bytes([1; 16]);
    let claim = directory.claim(holder, std::time::Duration::from_secs(600)).await.unwrap();
    assert!(matches!(claim, Claim::Leads(_)));
    let writer = Arc::clone(&directory);
    Running(directory, tokio::spawn(async move { writer.keep_writing().await }))
}

/// The contract: after any changes a directory holds what a reference of maps holds; nothing is
/// lost by taking changes together, and reading takes what it is asked for.
async fn holds_the_contract(directory: Arc<dyn Directory>) {
    let Running(directory, _task) = &running(directory).await;
    let mut runner = TestRunner::deterministic();
    let mut model = Model::default();
    for round in 0..12 {
        let changes = proptest::collection::vec(change(), 0..60);
        for change in changes.new_tree(&mut runner).unwrap().current() {
            model.apply(change.clone());
            directory.put(change);
        }
        directory.flushed().await;
        model.check(&**directory, round % 5, 1 + usize::try_from(round).unwrap() * 3).await;
    }
    let counts = directory.counts();
    assert_eq!((counts.waiting, counts.dropped), (0, 0));
    assert!(counts.written > 100, "{counts:?}");
    standing_is_kept(Arc::clone(directory)).await;
    prices_are_kept(Arc::clone(directory)).await;
}

/// A history in a directory: what was sampled before is there for another process, which goes on
/// with the open hour and day.
async fn prices_are_kept(directory: Arc<dyn Directory>) {
    let minute = 60_000;
    let begun = NOW + 2 * 86_400_000;
    let begun = begun - begun % 86_400_000;
    let market = |price: u64| {
        let mut market = Market::default();
        let (class, region) = ("rtx5090".parse().unwrap(), "eu".parse().unwrap());
        market.add(&class, &region, (Some(Usd::from_micros(price)), None), (1, 2));
        market
    };
    let history = in_directory(Arc::clone(&directory));
    let (mut whole, mut prices) = (welkin_match::prices::Prices::default(), None);
    let mut last = Vec::new();
    for part in 0..10 {
        let mut records = Vec::new();
        for n in part * 200..(part + 1) * 200 {
            let now = UnixMillis(begun + n * minute);
            last = whole.record(now, &market(n + 1));
            let prices = prices.get_or_insert_with(welkin_match::prices::Prices::default);
            let sampled = prices.record(now, &market(n + 1));
            assert_eq!(sampled, last, "minute {n}: a restart changes nothing");
            records.extend(sampled);
        }
        let (history, now) =
            (Arc::clone(&history), UnixMillis(begun + (part + 1) * 200 * minute - 1));
        directory.flushed().await;
        let appended = Arc::clone(&history);
        tokio::task::spawn_blocking(move || appended.append(&records).unwrap()).await.unwrap();
        directory.flushed().await;
        // Another process begins in the middle of an hour.
        let again = tokio::task::spawn_blocking(move || restored(&*history, now)).await.unwrap();
        prices = Some(again);
    }
    let now = UnixMillis(begun + 1_999 * minute);
    let read = move || {
        let series = |region: Option<&str>| Series {
            class: "rtx5090".parse().unwrap(),
            region: region.map(|name| name.parse().unwrap()),
        };
        let read = |region, span| history.read(now, &series(region), span, UnixMillis(0)).unwrap();
        assert_eq!(read(Some("eu"), prices::Span::Minute).len(), 1_440);
        assert_eq!(read(Some("eu"), prices::Span::Hour).len(), 34);
        assert_eq!(read(Some("us"), prices::Span::Day), []);
        let days = read(None, prices::Span::Day);
        assert_eq!((days.len(), days.last().copied()), (2, Some(last[2].point)));
        let all = history.series().unwrap();
        assert_eq!(all, [series(None), series(Some("eu"))], "of the newest days");
    };
    tokio::task::spawn_blocking(read).await.unwrap();
}

/// What an indexer goes on with.
fn restored(history: &dyn History, now: UnixMillis) -> welkin_match::prices::Prices {
    let mut prices = welkin_match::prices::Prices::default();
    for series in history.series().unwrap() {
        let begin = |span: prices::Span| span.begin(now);
        let since = (begin(prices::Span::Hour), begin(prices::Span::Day));
        let minutes = history.read(now, &series, prices::Span::Minute, since.0).unwrap();
        let hours = history.read(now, &series, prices::Span::Hour, since.1).unwrap();
        prices.restore(now, series, &minutes, &hours);
    }
    prices
}

async fn standing_is_kept(directory: Arc<dyn Directory>) {
    let operator = AccountId::from_bytes([200; 20]);
    let records = Records::open(Arc::clone(&directory)).await.unwrap();
    assert_eq!(records.standing(operator), None);
    for n in 0..5 {
        records.refused(UnixMillis(n), operator, &"ü".repeat(300));
    }
    directory.flushed().await;
    let again = Records::open(directory).await.unwrap().standing(operator).unwrap();
    assert_eq!((again.refused, again.first, again.last), (5, UnixMillis(0), UnixMillis(4)));
    assert_eq!(again.why.len(), StandingRow::WHY_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_holds_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.redb");
    holds_the_contract(Arc::new(Embedded::open(&path).unwrap())).await;
    let other = loop {
        // The file closes a moment after its last user.
        match Embedded::open(&path) {
            Ok(directory) => break directory,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(other.load_standings(100).await.unwrap().len(), 6, "it outlives its process");
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn postgres_holds_the_contract() {
    let server = server::Server::start();
    let dsn = welkin_directory::Dsn::parse(&server.text()).unwrap();
    let owner = NodeId::from_bytes([9; 32]);
    let directory = welkin_directory::Postgres::open(dsn, owner).await.unwrap();
    holds_the_contract(Arc::new(directory)).await;
    let rows = server.psql("SELECT count(*) FROM welkin_standing").stdout;
    assert_eq!(String::from_utf8_lossy(&rows).trim(), "6");
}
