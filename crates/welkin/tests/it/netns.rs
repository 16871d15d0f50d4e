//! Roles in network namespaces of their own, joined by a bridge, as machines are by a switch.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use welkin_types::{LeaseState, Reason};

use crate::services::{Services, Spot};
use crate::support::{DEADLINE, is_root, until};

/// Namespaces with an address each on one bridge; removed when dropped.
struct Lan {
    prefix: String,
    names: Vec<String>,
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[track_caller]
fn must(program: &str, args: &[&str]) {
    assert!(succeeds(program, args), "failed: {program} {}", args.join(" "));
}

impl Lan {
    /// `None` where there are no namespaces to be had.
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wk{}-{count}", std::process::id());
        let mut lan = Self { prefix, names: Vec::new() };
        if !lan.add("sw") {
            eprintln!("skipped: needs `ip netns`");
            return None;
        }
        lan.ip("sw", &["link", "add", "br0", "type", "bridge"]);
        lan.ip("sw", &["link", "set", "br0", "up"]);
        Some(lan)
    }

    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn add(&mut self, name: &str) -> bool {
        let full = self.full(name);
        let is_made = succeeds("ip", &["netns", "add", &full]);
        self.names.push(full);
        is_made
    }

    #[track_caller]
    fn ip(&self, name: &str, args: &[&str]) {
        let full = self.full(name);
        must("ip", &[&["-n", &full], args].concat());
    }

    /// One more machine: its own namespace with this address.
    fn machine(&mut self, name: &str, ip: &str) -> String {
        assert!(self.add(name), "no namespace {name}");
        let (full, switch) = (self.full(name), self.full("sw"));
        let port = format!("to-{name}");
        let peer = ["peer", "name", "eth0", "netns", &full];
        let link = ["link", "add", &port, "type", "veth"];
        must("ip", &[&["-n", &switch], &link[..], &peer[..]].concat());
        self.ip("sw", &["link", "set", &port, "master", "br0", "up"]);
        self.ip(name, &["link", "set", "lo", "up"]);
        self.ip(name, &["addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        self.ip(name, &["link", "set", "eth0", "up"]);
        full
    }

    /// Nothing passes between these two any more.
    #[track_caller]
    fn cut(&self, name: &str, ip: &str) {
        let full = self.full(name);
        let nft = |rule: &str| {
            let net = format!("--net=/run/netns/{full}");
            let args: Vec<&str> =
                [net.as_str(), "nft"].into_iter().chain(rule.split(' ')).collect();
            must("nsenter", &args);
        };
        nft("add table inet cut");
        nft("add chain inet cut in { type filter hook input priority 0 ; }");
        nft("add chain inet cut out { type filter hook output priority 0 ; }");
        nft(&format!("add rule inet cut in ip saddr {ip} drop"));
        nft(&format!("add rule inet cut out ip daddr {ip} drop"));
    }

    /// Whether packets get there and back: nothing listens, so a refusal is an answer.
    fn reaches(&self, name: &str, ip: &str) -> bool {
        let net = format!("--net=/run/netns/{}", self.full(name));
        let script = format!(
            "import socket\ntry: socket.create_connection(('{ip}', 9), 2)\n\
             except ConnectionRefusedError: pass"
        );
        succeeds("nsenter", &[&net, "/usr/bin/python3", "-c", &script])
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            succeeds("ip", &["netns", "del", name]);
        }
    }
}

struct World {
    services: Services,
    host: crate::support::Proc,
    buyer: String,
    // Dropped last: processes live in it.
    _lan: Lan,
}

const CORE: &str = "10.77.0.1";
const HOST: &str = "10.77.0.2";
const BUYER: &str = "10.77.0.3";

impl World {
    fn start(is_cut: bool) -> Option<Self> {
        let mut lan = Lan::new()?;
        let core = lan.machine("core", CORE);
        let host = lan.machine("host", HOST);
        let buyer = lan.machine("buyer", BUYER);
        if is_cut {
            lan.cut("host", BUYER);
            lan.cut("buyer", HOST);
        }
        assert_eq!(lan.reaches("buyer", HOST), !is_cut);
        assert_eq!(lan.reaches("host", BUYER), !is_cut);
        assert!(lan.reaches("buyer", CORE) && lan.reaches("host", CORE));
        let services = Services::start("", Spot { netns: Some(&core), ip: CORE })?;
        let host = services.host("host", Spot { netns: Some(&host), ip: HOST });
        let world = Self { services, host, buyer, _lan: lan };
        world.run(&["fund", "5"]).expect(0);
        Some(world)
    }

    fn spawn(&self, args: &[&str]) -> crate::support::Proc {
        let spot = Spot { netns: Some(&self.buyer), ip: BUYER };
        self.services.client("buyer", spot, args)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> crate::support::Output {
        self.spawn(args).finish()
    }

    /// A job whose input and output pass through, a longer one that is paid, and the books.
    fn works(mut self) {
        use std::io::Write as _;
        let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 247).to_le_bytes()[0]).collect();
        let mut job = self.spawn(&["run", "--", "cat"]);
        job.stdin().write_all(&sent).unwrap();
        assert!(job.finish().expect(0).stdout == sent, "what came back differs");
        let script = "i=0; while [ $i -lt 130 ]; do echo $i; i=$((i+1)); sleep 0.1; done";
        let output = self.run(&["run", "--", "sh", "-c", script]).expect(0);
        assert_eq!(output.text().lines().count(), 130);
        let leases = self.services.leases();
        let receipt = leases.ended_as(LeaseState::Succeeded, Reason::ExitedZero);
        assert!(receipt.usage.seconds >= 13, "{receipt:?}");
        until(DEADLINE, "nothing is held", || {
            self.run(&["--json", "balance"]).expect(0).text().contains("\"held\":0")
        });
        assert!(self.host.is_running());
        assert!(!self.host.stderr().contains("panicked"), "{}", self.host.stderr());
        self.services.are_well();
    }
}

#[test]
fn a_job_runs_across_machines() {
    let Some(world) = World::start(false) else { return };
    world.works();
}

#[test]
fn a_job_runs_through_the_relay_where_there_is_no_other_way() {
    let Some(world) = World::start(true) else { return };
    world.works();
}
