//! A network whose roles are processes of their own, as people who do not know each other run it.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{DEADLINE, Leases, Observer, Output, Place, Proc, is_root, until};

/// Where a role runs and listens.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    /// The network namespace, or this one.
    pub(crate) netns: Option<&'a str>,
    /// Its address there, or the one of this test's process.
    pub(crate) ip: Option<&'a str>,
}

/// This machine. Roles listen at an address that no other test has: who is started again finds its port
/// free, whatever ports others were given meanwhile.
pub(crate) const HERE: Spot<'static> = Spot { netns: None, ip: None };

/// The loopback address of this test's process.
pub(crate) fn own_ip() -> String {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    format!("127.{}.{middle}.{}", 64 + high % 128, low.clamp(1, 254))
}

/// Settlement, relay, indexer, and hosts when asked for.
pub(crate) struct Services {
    roles: Vec<Proc>,
    pub(crate) place: Place,
    /// Where the contracts are, if they are on a chain of others.
    deployment: Option<PathBuf>,
}

/// Waits for [`Services::tell_end`], and then until the command that told it has ended: the end of
/// a lease's own command kills all others.
pub(crate) const UNTIL_TOLD: &str = "until [ -s /work/end ]; do sleep 0.1; done; \
     while kill -0 $(cat /work/end) 2>/dev/null; do sleep 0.1; done";

impl Services {
    /// Starts all but the hosts; `None` where there can be no sandboxes.
    pub(crate) fn start(config: &str, spot: Spot<'_>) -> Option<Self> {
        Self::start_on(config, spot, None)
    }

    /// The same with contracts on a chain of others.
    pub(crate) fn start_on(
        config: &str,
        spot: Spot<'_>,
        deployment: Option<PathBuf>,
    ) -> Option<Self> {
        Self::start_with(config, spot, deployment, |services| services.role("indexer", spot))
    }

    /// The same with an indexer that `start_indexer` starts, as others find it.
    pub(crate) fn start_with(
        config: &str,
        spot: Spot<'_>,
        deployment: Option<PathBuf>,
        start_indexer: impl FnOnce(&mut Self) -> String,
    ) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mut services = Self { roles: Vec::new(), place: Place::new(config), deployment };
        let settlement = services.role("settlement", spot);
        let relay = services.role("relay", spot);
        services.write_network(&["--settlement", &settlement, "--relay", &relay]);
        let indexer = start_indexer(&mut services);
        let addrs = ["--settlement", &settlement, "--relay", &relay, "--indexer", &indexer];
        services.write_network(&addrs);
        Some(services)
    }

    fn write_network(&self, addrs: &[&str]) {
        let mut args: Vec<&str> = ["network"].into_iter().chain(addrs.iter().copied()).collect();
        if let Some(file) = &self.deployment {
            args.extend(["--deployment", file.to_str().unwrap()]);
        }
        let output = Proc::spawn(self.command("nobody", HERE, &args)).finish().expect(0);
        std::fs::write(self.network_file(), output.stdout).unwrap();
    }

    pub(crate) fn network_file(&self) -> PathBuf {
        self.place.path().join("network.toml")
    }

    pub(crate) fn network(&self) -> welkin_node::network::Network {
        toml::from_str(&std::fs::read_to_string(self.network_file()).unwrap()).unwrap()
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A command in a folder of its own that joins this network.
    pub(crate) fn command(&self, name: &str, spot: Spot<'_>, args: &[&str]) -> Command {
        let mut command = self.place.command_in(spot.netns, &self.dir(name), args);
        let listen = format!("{}:0", spot.ip.map_or_else(own_ip, str::to_owned));
        for role in ["SETTLEMENT", "RELAY", "INDEXER", "HOST", "CHECKER"] {
            command.env(format!("WELKIN_{role}__LISTEN"), &listen);
        }
        command.env("WELKIN_NETWORK__FILE", self.network_file());
        command
    }

    /// Starts a role; returns the address that it prints.
    #[track_caller]
    fn role(&mut self, role: &str, spot: Spot<'_>) -> String {
        let mut process = Proc::spawn(self.command(role, spot, &[role]));
        process.wait_stdout("\n");
        let addr = String::from_utf8(process.stdout()).unwrap();
        self.roles.push(process);
        addr.lines().next().unwrap().to_owned()
    }

    /// Kills settlement, relay and indexer, and starts them again where they were.
    pub(crate) fn restart_roles(&mut self, spot: Spot<'_>) {
        for role in self.roles.drain(..) {
            role.kill_9();
        }
        let network = std::fs::read_to_string(self.network_file()).unwrap();
        for role in ["settlement", "relay", "indexer"] {
            let addr = self.role(role, spot);
            assert!(network.contains(&addr), "{role} is at {addr}, no more as in\n{network}");
        }
    }

    /// Starts a checker.
    pub(crate) fn checker(&mut self, spot: Spot<'_>) {
        self.role("checker", spot);
        self.roles.last_mut().unwrap().wait_stderr("checker started");
    }

    /// Starts a host with this name and returns once it has announced itself.
    pub(crate) fn host(&self, name: &str, spot: Spot<'_>) -> Proc {
        let mut host = Proc::spawn(self.command(name, spot, &["host"]));
        host.wait_stderr("announced");
        host
    }

    /// A client command of a buyer with this name.
    pub(crate) fn client(&self, name: &str, spot: Spot<'_>, args: &[&str]) -> Proc {
        Proc::spawn(self.command(name, spot, args))
    }

    /// A command of the buyer `buyer`, here, to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.client("buyer", HERE, args).finish()
    }

    /// The buyer `buyer` gets money.
    #[track_caller]
    pub(crate) fn fund(&self, usd: &str) {
        self.run(&["fund", usd]).expect(0);
    }

    /// Ends a lease that runs [`UNTIL_TOLD`].
    pub(crate) fn tell_end(&self, lease: &str) {
        self.run(&["exec", lease, "--", "sh", "-c", "echo $$ > /work/end"]).expect(0);
    }

    pub(crate) fn leases(&self) -> Leases {
        Leases::in_dir(&self.dir("buyer"))
    }

    pub(crate) fn observer(&self) -> Observer {
        Observer::open(&self.network_file(), self.dir("observer"))
    }

    /// Waits until so many slots are free.
    #[track_caller]
    pub(crate) fn wait_free(&self, observer: &Observer, free: u32) {
        until(DEADLINE, "the slots are free", || observer.free() == free);
    }

    /// No role has ended or panicked.
    #[track_caller]
    pub(crate) fn are_well(&mut self) {
        for role in &mut self.roles {
            assert!(role.is_running(), "a role ended:\n{}", role.stderr());
            assert!(!role.stderr().contains("panicked"), "{}", role.stderr());
        }
    }

    /// No role has printed this.
    #[track_caller]
    pub(crate) fn say_nothing(&self, of: &str) {
        for role in &self.roles {
            assert!(!role.stderr().contains(of), "{}", role.stderr());
        }
    }
}
