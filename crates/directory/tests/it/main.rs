//! The directory on a real PostgreSQL. Ignored in a plain run, as the server is not everywhere:
//! `cargo nextest run -p welkin-directory --features postgres --run-ignored only`.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a broken step fails its test")]

mod leadership;
mod opening;
#[path = "server.rs"]
mod server;
mod tls;
mod writing;

use welkin_directory::{HolderId, HostRow, Postgres, SessionRow};
use welkin_types::{AccountId, ContainerId, NodeId, UnixMillis};

const OWNER: NodeId = NodeId::from_bytes([9; 32]);

fn holder(number: u8) -> HolderId {
    HolderId::from_bytes([number; 16])
}

async fn open(server: &server::Server) -> Postgres {
    Postgres::open(server.dsn(), OWNER).await.unwrap()
}

fn host(number: u32, revision: u64) -> HostRow {
    let mut node = [0; 32];
    node[..4].copy_from_slice(&number.to_be_bytes());
    let mut container = [0; 16];
    container[..4].copy_from_slice(&number.to_be_bytes());
    let container = ContainerId::from_bytes(container);
    HostRow {
        node: NodeId::from_bytes(node),
        operator: AccountId::from_bytes([3; 20]),
        revision,
        issued: UnixMillis(revision),
        expires: UnixMillis(4_000_000_000_000),
        capability: vec![7; 400],
        sessions: vec![SessionRow { container, session: number, key_epoch: 5, salt: 6 }],
    }
}

impl server::Server {
    fn dsn(&self) -> welkin_directory::Dsn {
        welkin_directory::Dsn::parse(&self.text()).unwrap()
    }

    /// Changes tables behind the directory's back.
    fn sql(&self, statement: &str) {
        let done = self.psql(statement);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
