//! What is confirmed is there after a reopening; what is not, is not.

use welkin_store::{Batch, Db, OpenError};

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
