//! Two indexers with one key and one database: one is killed or stopped, the other goes on.
//!
//! Ignored in a plain run, as they need a PostgreSQL server's programs.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::services::{HERE, Services, own_ip};
use crate::support::{Output, Proc, until};

#[path = "../../../directory/tests/it/server.rs"]
mod server;

/// What is promised.
const TAKEOVER_MAX: Duration = Duration::from_secs(15);

/// A network whose indexer is two processes.
struct Pair {
    server: server::Server,
    services: Services,
    /// Of each: for streams, and for heartbeats.
    ports: [(u16, u16); 2],
}

impl Pair {
    /// With the first of the two running; `None` where there can be no sandboxes.
    fn start() -> Option<(Self, Proc)> {
        let server = server::Server::start();
        let ports = [(free_port(), free_port()), (free_port(), free_port())];
        let mut first = None;
        let services = Services::start_with("", HERE, None, |services| {
            let mut process =
                Proc::spawn(indexer(services, &server.text(), (ports[0], ports[1]), &[]));
            process.wait_stdout("\n");
            let addr = String::from_utf8(process.stdout()).unwrap();
            first = Some(process);
            let (one, other) = (format!("@{}:{}", own_ip(), ports[0].0), ports[1].0);
            addr.trim().replace(&one, &format!("{one},{}:{other}", own_ip()))
        })?;
        Some((Self { server, services, ports }, first?))
    }

    /// One of the two, once it has said this.
    fn spawn(&self, number: usize, says: &str) -> Proc {
        let (text, ports) = (self.server.text(), (self.ports[number], self.ports[1 - number]));
        let mut process = Proc::spawn(indexer(&self.services, &text, ports, &["--standby"]));
        process.wait_stderr(says);
        process
    }

    fn plan(&self) -> Output {
        self.services.run(&["plan", "--", "true"])
    }

    /// Asks until there is an offer; returns how long that took.
    fn wait_for_offer(&self) -> Duration {
        let began = Instant::now();
        until(TAKEOVER_MAX, "an offer of the other indexer", || self.plan().code == 0);
        began.elapsed()
    }
}

/// A command of one of the two: with its own ports, and the other's.
fn indexer(
    services: &Services,
    dsn: &str,
    (own, other): ((u16, u16), (u16, u16)),
    args: &[&str],
) -> std::process::Command {
    let args: Vec<_> = ["indexer"].into_iter().chain(args.iter().copied()).collect();
    let mut command = services.command("indexer", HERE, &args);
    command.env("WELKIN_INDEXER__LISTEN", format!("{}:{}", own_ip(), own.0));
    command.env("WELKIN_INDEXER__HEARTBEAT_PORT", own.1.to_string());
    command.env("WELKIN_INDEXER__HEARTBEAT_STANDBYS", format!("[\"{}:{}\"]", own_ip(), other.1));
    // As in a large network: hosts are kept alive by datagrams, and no stream stays open.
    command.env("WELKIN_INDEXER__STREAMS_MAX", "0");
    command.env("WELKIN_DIRECTORY_DSN", dsn);
    command
}

/// Longer than a host is offered that is silent.
const SILENT_MS: u64 = 30_000;

fn free_port() -> u16 {
    UdpSocket::bind((own_ip(), 0)).unwrap().local_addr().unwrap().port()
}

fn announcements(host: &Proc) -> usize {
    host.stderr().matches("announced").count()
}

fn no_secret(processes: &[&Proc]) {
    for process in processes {
        let said = process.stderr();
        assert!(!said.contains(server::PASSWORD), "{said}");
    }
}

#[test]
#[ignore = "run by the database stage: needs PostgreSQL"]
fn a_standby_answers_soon_after_the_leader_is_killed() {
    let Some((pair, first)) = Pair::start() else { return };
    let second = pair.spawn(1, "this one stands by");
    let host = pair.services.host("host", HERE);
    until(TAKEOVER_MAX, "an offer", || pair.plan().code == 0);
    // The directory hears of the host a moment after the buyer.
    let known = || pair.server.query("SELECT count(*) FROM welkin_host") == "1";
    until(TAKEOVER_MAX, "the host in the directory", known);
    let revision = pair.server.query("SELECT revision FROM welkin_host");
    let announced = announcements(&host);
    no_secret(&[&first, &second]);
    first.kill_9();
    let took = pair.wait_for_offer();
    eprintln!("the standby offers {} ms after the leader was killed", took.as_millis());
    assert!(took < TAKEOVER_MAX);
    assert!(second.stderr().contains("this indexer leads"));
    assert!(second.stderr().contains("hosts=1"), "{}", second.stderr());
    assert!(second.stderr().contains("sessions=1"), "{}", second.stderr());
    // It was offered from what the directory knows, and is offered still when no host that has not
    // beaten since would be: it beats on in its old session, without having announced itself anew.
    std::thread::sleep(Duration::from_millis(SILENT_MS));
    assert_eq!(pair.plan().code, 0, "{}", second.stderr());
    assert_eq!(announcements(&host), announced, "{}", host.stderr());
    assert_eq!(pair.server.query("SELECT revision FROM welkin_host"), revision);
    no_secret(&[&second]);
}

#[test]
#[ignore = "run by the database stage: needs PostgreSQL"]
fn a_leader_that_was_stopped_and_goes_on_does_not_answer() {
    let Some((pair, first)) = Pair::start() else { return };
    let host = pair.services.host("host", HERE);
    until(TAKEOVER_MAX, "an offer", || pair.plan().code == 0);
    let mut second = pair.spawn(1, "this one stands by");
    first.signal(Signal::STOP);
    let began = Instant::now();
    second.wait_stderr("this indexer leads");
    eprintln!("the standby leads {} ms after the leader was stopped", began.elapsed().as_millis());
    assert!(began.elapsed() < TAKEOVER_MAX);
    let term = pair.server.query("SELECT term FROM welkin_leader");
    first.signal(Signal::CONT);
    // It finds that its time is over, closes its socket, and stands by.
    until(TAKEOVER_MAX, "it gives up", || first.stderr().contains("this one stops to answer"));
    until(TAKEOVER_MAX, "its socket is closed", || {
        UdpSocket::bind((own_ip(), pair.ports[0].0)).is_ok()
    });
    pair.wait_for_offer();
    let expires = || pair.server.query("SELECT expires FROM welkin_leader");
    let before = expires();
    until(TAKEOVER_MAX, "the second renews its lead", || expires() != before);
    assert_eq!(pair.server.query("SELECT term FROM welkin_leader"), term, "nobody else leads");
    assert_eq!(first.stderr().matches("this indexer leads").count(), 1);
    // Told to stop, the second hands over at once.
    second.signal(Signal::TERM);
    let began = Instant::now();
    until(TAKEOVER_MAX, "the first leads again", || {
        first.stderr().matches("this indexer leads").count() == 2
    });
    eprintln!(
        "the first leads {} ms after the second was told to stop",
        began.elapsed().as_millis()
    );
    second.ended().expect(0);
    pair.wait_for_offer();
    no_secret(&[&first]);
    drop(host);
}

impl server::Server {
    /// What a question about the tables brings, as text.
    fn query(&self, statement: &str) -> String {
        let asked = self.psql(statement);
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).unwrap().trim().to_owned()
    }
}
