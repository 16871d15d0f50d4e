//! Opening: logging in, migrating, and whose directory it is.

use welkin_directory::{Dsn, OpenError, Postgres};
use welkin_types::NodeId;

use super::server::{PASSWORD, Server};
use super::{OWNER, open};

fn told(error: &OpenError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error} {source} {error:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn errors_say_what_to_do_and_no_password() {
    let mut server = Server::start();
    let wrong = server.text().replace(PASSWORD, "hunter2-wrong");
    let error = Postgres::open(Dsn::parse(&wrong).unwrap(), OWNER).await.unwrap_err();
    let text = told(&error);
    assert!(text.contains("password authentication failed"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    server.stop();
    let error = Postgres::open(server.dsn(), OWNER).await.unwrap_err();
    let text = told(&error);
    assert!(text.contains("is it running") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn several_may_open_at_once_and_only_one_identity() {
    let server = Server::start();
    let (one, two) =
        tokio::join!(Postgres::open(server.dsn(), OWNER), Postgres::open(server.dsn(), OWNER));
    assert!(one.is_ok() && two.is_ok());
    let other = NodeId::from_bytes([8; 32]);
    let error = Postgres::open(server.dsn(), other).await.unwrap_err();
    assert!(matches!(error, OpenError::Owner { owner } if owner == OWNER), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn a_later_version_of_the_tables_is_left_alone() {
    let server = Server::start();
    drop(open(&server).await);
    server.sql("INSERT INTO welkin_version (version) VALUES (99)");
    let error = Postgres::open(server.dsn(), OWNER).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
}
