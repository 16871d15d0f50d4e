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
        lan.ip("sw", &["addr", "add", &format!("{GATEWAY}/24"), "dev", "br0"]);
        lan.ip("sw", &["addr", "add", &format!("{OUTSIDE}/32"), "dev", "br0"]);
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
        self.nft(name, "add table inet cut");
        self.nft(name, "add chain inet cut in { type filter hook input priority 0 ; }");
        self.nft(name, "add chain inet cut out { type filter hook output priority 0 ; }");
        self.nft(name, &format!("add rule inet cut in ip saddr {ip} drop"));
        self.nft(name, &format!("add rule inet cut out ip daddr {ip} drop"));
    }

    /// From now on this machine counts packets that leave for anywhere but the network's own
    /// machines. The way out is open: a switch is the gateway, as far as a packet can tell.
    #[track_caller]
    fn watch_outside(&self, name: &str) {
        self.ip(name, &["route", "add", "default", "via", GATEWAY]);
        self.nft(name, "add table inet watch");
        self.nft(name, "add chain inet watch out { type filter hook output priority 0 ; }");
        let own = "ip daddr != { 127.0.0.0/8 , 10.77.0.0/24 , 224.0.0.0/4 }";
        self.nft(name, &format!("add rule inet watch out {own} counter"));
        let own = "ip6 daddr != { ::1 , fe80::/10 , ff00::/8 }";
        self.nft(name, &format!("add rule inet watch out {own} counter"));
        // A resolver may well listen on loopback; what it is asked goes further.
        self.nft(name, "add rule inet watch out meta l4proto { tcp , udp } th dport 53 counter");
    }

    /// How many packets left.
    fn outside(&self, name: &str) -> u64 {
        let net = format!("--net=/run/netns/{}", self.full(name));
        let list = [&net, "nft", "list", "table", "inet", "watch"];
        let output = Command::new("nsenter").args(list).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut counts = text.split("counter packets ").skip(1);
        let count = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
        let all: Vec<u64> = counts.by_ref().map(count).collect();
        assert_eq!(all.len(), 3, "{text}");
        all.iter().sum()
    }

    #[track_caller]
    fn nft(&self, name: &str, rule: &str) {
        let net = format!("--net=/run/netns/{}", self.full(name));
        let args: Vec<&str> = [net.as_str(), "nft"].into_iter().chain(rule.split(' ')).collect();
        must("nsenter", &args);
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
    lan: Lan,
}

const MACHINES: [&str; 3] = ["core", "host", "buyer"];
const CORE: &str = "10.77.0.1";
const HOST: &str = "10.77.0.2";
const BUYER: &str = "10.77.0.3";
/// Of the switch.
const GATEWAY: &str = "10.77.0.254";
/// Also of the switch, in no network that the machines know.
const OUTSIDE: &str = "10.77.1.1";

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
        for name in MACHINES {
            lan.watch_outside(name);
        }
        assert_eq!(lan.reaches("buyer", HOST), !is_cut);
        assert_eq!(lan.reaches("host", BUYER), !is_cut);
        assert!(lan.reaches("buyer", CORE) && lan.reaches("host", CORE));
        let services = Services::start("", Spot { netns: Some(&core), ip: Some(CORE) })?;
        let host = services.host("host", Spot { netns: Some(&host), ip: Some(HOST) });
        let world = Self { services, host, buyer, lan };
        world.run(&["fund", "5"]).expect(0);
        Some(world)
    }

    fn spawn(&self, args: &[&str]) -> crate::support::Proc {
        let spot = Spot { netns: Some(&self.buyer), ip: Some(BUYER) };
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
        for name in MACHINES {
            assert_eq!(self.lan.outside(name), 0, "packets left {name} for the outside");
            // The counter does count.
            assert!(self.lan.reaches(name, OUTSIDE));
            assert!(self.lan.outside(name) > 0);
        }
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
