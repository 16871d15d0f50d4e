//! What is confirmed is there after a reopening; what is not, is not.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use welkin_store::{Batch, CommitError, Db, OpenError};

const PATH: &str = "WELKIN_STORE_TEST_PATH";

/// No file of this process may grow beyond so many bytes.
fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn one(number: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put("records", &number.to_be_bytes(), vec![7; 64 << 10]);
    batch
}

/// In a process of its own: the limit is of the whole process, and so is the signal that is ignored.
#[tokio::test]
#[ignore = "started by a_full_disk_is_got_over"]
async fn writes_to_a_disk_that_fills_and_empties() {
    let Ok(path) = std::env::var(PATH) else { return };
    let db = Db::open(path.as_ref()).unwrap();
    let mut written = 0;
    for number in 0..4 {
        db.commit(one(number)).await.unwrap();
        written += 1;
    }
    limit(Some(std::fs::metadata(&path).unwrap().len() + (1 << 20)));
    let mut refused = 0;
    for number in 4..1_000 {
        match db.commit(one(number)).await {
            Ok(()) => written += 1,
            Err(CommitError::Write(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk was not full");
    limit(None);
    db.commit(one(5_000)).await.unwrap();
    assert_eq!(db.load("records").unwrap().len(), written + 1);
    println!("went on");
}

#[test]
fn a_full_disk_is_got_over() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        // A write beyond the limit is an error only where the signal for it is ignored.
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "db::writes_to_a_disk_that_fills_and_empties",
            "--ignored",
            "--nocapture",
        ])
        .env(PATH, dir.path().join("host.redb"))
        .output()
        .unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("went on"), "{out}{error}");
}

#[tokio::test]
async fn records_survive_and_batches_are_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/host.redb");
    let db = Db::open(&path).unwrap();
    assert!(matches!(Db::open(&path), Err(OpenError::InUse { .. })));
    let mut writes = Vec::new();
    for n in 0..100_u8 {
        let mut batch = Batch::default();
        batch.put("leases", b"same", vec![n]);
        batch.put("leases", &[n], vec![n; 100]);
        writes.push(db.commit(batch));
    }
    for write in writes {
        write.await.unwrap();
    }
    let mut batch = Batch::default();
    batch.remove("leases", &[7]);
    db.commit(batch).await.unwrap();
    drop(db);
    // The writer's thread closes the file a moment after the last handle.
    let db = loop {
        match Db::open(&path) {
            Ok(db) => break db,
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let rows = db.load("leases").unwrap();
    assert_eq!(rows.len(), 100);
    let same = rows.iter().find(|(key, _)| key == b"same").unwrap();
    assert_eq!(same.1, [99]);
    assert!(db.load("nothing").unwrap().is_empty());
}

#[tokio::test]
async fn a_table_is_read_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("pieces.redb")).unwrap();
    let mut batch = Batch::default();
    (0..10_u8).for_each(|n| batch.put("rows", &[n], vec![n]));
    db.commit(batch).await.unwrap();
    let keys = |from: &[u8], count| {
        let rows = db.scan("rows", from, count).unwrap();
        rows.into_iter().map(|(key, _)| key[0]).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[], 3), [0, 1, 2]);
    assert_eq!(keys(&[2, 0], 3), [3, 4, 5]);
    assert_eq!(keys(&[9], 3), [9]);
    assert!(db.scan("nothing", &[], 3).unwrap().is_empty());
}
