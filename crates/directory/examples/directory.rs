//! Measures a directory in PostgreSQL: rows written a second, and how long a million take to load.
//!
//! `directory [ROWS]` starts a server of its own in a temporary folder and prints one line,
//! `RESULT directory key=value …`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement may stop at the first surprise, and prints what it found"
)]

#[path = "../tests/it/server.rs"]
mod server;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use welkin_directory::{Change, Dsn, HolderId, HostRow, Postgres, SessionRow};
use welkin_types::{AccountId, ContainerId, NodeId, UnixMillis};

/// How long a capability of a host with one container is, about.
const CAPABILITY_BYTES: usize = 450;

fn host(number: u32) -> HostRow {
    let mut node = [7; 32];
    // Keys are random: rows of one batch are all over the table.
    node[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let container = ContainerId::from_bytes([3; 16]);
    HostRow {
        node: NodeId::from_bytes(node),
        operator: AccountId::from_bytes([5; 20]),
        revision: 1,
        issued: UnixMillis(1),
        expires: UnixMillis(4_000_000_000_000),
        capability: vec![9; CAPABILITY_BYTES],
        sessions: vec![SessionRow { container, session: number, key_epoch: 1, salt: number }],
    }
}

async fn write(directory: &Postgres, rows: u32) -> Duration {
    let began = Instant::now();
    for number in 0..rows {
        directory.put(Change::Host(host(number)));
        if number % 100_000 == 99_999 {
            // What waits is bounded; here all is to be written.
            directory.flushed().await;
        }
    }
    directory.flushed().await;
    began.elapsed()
}

async fn load(directory: &Postgres) -> (u64, Duration) {
    let began = Instant::now();
    let (into, mut from) = mpsc::channel(8);
    let taking = async { while from.recv().await.is_some() {} };
    let (count, ()) = tokio::join!(directory.load_hosts(UnixMillis(0), into), taking);
    (count.unwrap(), began.elapsed())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rows = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let server = server::Server::start();
    let dsn = Dsn::parse(&server.text()).unwrap();
    let directory = Postgres::open(dsn, NodeId::from_bytes([1; 32])).await.unwrap();
    directory.claim(HolderId::from_bytes([1; 16]), Duration::from_secs(86_400)).await.unwrap();
    let (inserted, updated, (count, loaded), sessions) = tokio::select! {
        () = directory.keep_writing() => panic!("the writer has ended"),
        measured = async {
            let inserted = write(&directory, rows).await;
            let updated = write(&directory, rows.div_ceil(4)).await;
            let loaded = load(&directory).await;
            let began = Instant::now();
            let sessions = directory.load_sessions(UnixMillis(0)).await.unwrap().len();
            assert_eq!(sessions as u64, loaded.0);
            (inserted, updated, loaded, began.elapsed())
        } => measured,
    };
    assert_eq!(count, u64::from(rows));
    let bytes = server.psql("SELECT pg_total_relation_size('welkin_host')").stdout;
    let bytes: u64 = String::from_utf8_lossy(&bytes).trim().parse().unwrap();
    println!(
        "RESULT directory rows={rows} inserts_per_s={:.0} updates_per_s={:.0} load_ms={} sessions_ms={} bytes_per_row={}",
        f64::from(rows) / inserted.as_secs_f64(),
        f64::from(rows.div_ceil(4)) / updated.as_secs_f64(),
        loaded.as_millis(),
        sessions.as_millis(),
        bytes / u64::from(rows),
    );
}
