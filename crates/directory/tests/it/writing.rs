//! Writing: fenced by the term, and not lost when the database is away for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use welkin_directory::{Change, Claim, HostRow, Postgres, Trouble};
use welkin_types::UnixMillis;

use super::server::Server;
use super::{holder, host, open};

const LONG: Duration = Duration::from_secs(600);

/// A handle whose changes are written as long as the task lives.
struct Writing {
    directory: Arc<Postgres>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no role to spawn tasks through")]
async fn writing(server: &Server) -> Writing {
    let directory = Arc::new(open(server).await);
    let writer = Arc::clone(&directory);
    let task = tokio::spawn(async move { writer.keep_writing().await });
    Writing { directory, task }
}

async fn hosts(directory: &Postgres) -> Result<Vec<HostRow>, Trouble> {
    let (into, mut from) = mpsc::channel(4);
    let reading = async {
        let mut rows = Vec::new();
        while let Some(piece) = from.recv().await {
            rows.extend(piece);
        }
        rows
    };
    let (count, mut rows) = tokio::join!(directory.load_hosts(UnixMillis(0), into), reading);
    assert_eq!(count?, rows.len() as u64);
    rows.sort_by_key(|row| row.node);
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn what_an_earlier_term_still_writes_does_nothing() {
    let server = Server::start();
    let (old, new) = (writing(&server).await, writing(&server).await);
    let short = Duration::from_millis(1);
    assert!(matches!(old.directory.claim(holder(1), short).await.unwrap(), Claim::Leads(_)));
    // Nobody has claimed since: what it wrote is still right.
    old.directory.put(Change::Host(host(1, 1)));
    old.directory.flushed().await;
    assert!(matches!(new.directory.claim(holder(2), LONG).await.unwrap(), Claim::Leads(_)));
    new.directory.put(Change::Host(host(1, 2)));
    new.directory.flushed().await;
    old.directory.put(Change::Host(host(1, 3)));
    old.directory.put(Change::Host(host(2, 3)));
    old.directory.put(Change::HostGone(host(1, 1).node));
    old.directory.flushed().await;
    assert_eq!(hosts(&new.directory).await.unwrap(), [host(1, 2)]);
    let counts = old.directory.counts();
    assert_eq!((counts.written, counts.dropped), (1, 2), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn changes_wait_while_the_database_is_away() {
    let mut server = Server::start();
    let Writing { directory, .. } = &writing(&server).await;
    let Claim::Leads(term) = directory.claim(holder(1), LONG).await.unwrap() else { panic!() };
    directory.put(Change::Host(host(1, 1)));
    directory.flushed().await;
    server.stop();
    for revision in 2..100 {
        directory.put(Change::Host(host(1, revision)));
        directory.put(Change::Host(host(2, revision)));
    }
    let soon = Duration::from_millis(700);
    assert!(tokio::time::timeout(soon, directory.flushed()).await.is_err());
    assert!(directory.renew(term, holder(1), LONG).await.is_err());
    assert!(hosts(directory).await.unwrap_err().is_retryable());
    let trouble = directory.trouble().unwrap();
    assert!(!trouble.contains("hunter2"), "{trouble}");
    server.run();
    directory.flushed().await;
    assert_eq!(directory.trouble(), None);
    assert!(directory.renew(term, holder(1), LONG).await.unwrap(), "the term outlives a restart");
    assert_eq!(hosts(directory).await.unwrap(), [host(1, 99), host(2, 99)]);
    assert!(directory.counts().replaced >= 190, "{:?}", directory.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn more_than_one_batch_and_one_piece_come_back() {
    let server = Server::start();
    let Writing { directory, .. } = &writing(&server).await;
    directory.claim(holder(1), LONG).await.unwrap();
    let rows: Vec<_> = (0..5_000).map(|number| host(number, 1)).collect();
    rows.iter().for_each(|row| directory.put(Change::Host(row.clone())));
    directory.flushed().await;
    assert_eq!(hosts(directory).await.unwrap(), rows);
    for row in &rows[10..] {
        directory.put(Change::HostGone(row.node));
    }
    directory.flushed().await;
    assert_eq!(hosts(directory).await.unwrap(), rows[..10]);
    let spoiling = "UPDATE welkin_host SET sessions = 'abc'
        WHERE node = (SELECT node FROM welkin_host ORDER BY node LIMIT 1)";
    server.sql(spoiling);
    assert_eq!(hosts(directory).await.unwrap(), rows[1..10], "a row that is no host is left out");
}
