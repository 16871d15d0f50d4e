//! Faults that a host reads in its kernel's log: who is ended, what is offered, what comes back.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use welkin_types::{Fault, LeaseState, Reason};

use crate::gpus;
use crate::services::{HERE, Services};
use crate::support::{CONTAINERS, DEADLINE, Proc, eventually, until};

/// A self-test of the machine on a busy one takes a while.
const TESTED: Duration = Duration::from_secs(120);
const MACHINE_CHECK: &str =
    "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: bea0000000000108";
const MEMORY: &str = "EDAC MC0: 1 UE memory read error on DIMM_A1 (channel:0 slot:0 page:0x0)";

/// A host whose kernel's log is a file.
struct Watched {
    services: Services,
    log: PathBuf,
    sequence: u64,
    with: fn(&mut Command, &Services),
}

impl Watched {
    fn start(services: Services, with: fn(&mut Command, &Services)) -> (Self, Proc) {
        let log = services.place.path().join("kmsg");
        let mut watched = Self { services, log, sequence: 0, with };
        watched.write("Linux version 6.1.0");
        let host = watched.host();
        watched.services.fund("10");
        (watched, host)
    }

    fn host(&self) -> Proc {
        let mut command = self.services.command("host", HERE, &["host"]);
        command.env("WELKIN_HOST__HEALTH__KERNEL_LOG", &self.log);
        (self.with)(&mut command, &self.services);
        let mut host = Proc::spawn(command);
        host.wait_stderr("announced");
        host
    }

    fn append(&self, text: &str) {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn write(&mut self, message: &str) {
        self.sequence += 1;
        self.append(&format!("3,{},77,-;{message}\n SUBSYSTEM=none\n", self.sequence));
    }

    fn report(&self) -> Value {
        let shown = self.services.command("host", HERE, &["--json", "host", "health"]);
        let output = Proc::spawn(shown).finish();
        serde_json::from_str(&output.text()).unwrap_or(Value::Null)
    }

    fn unit(&self, name: &str) -> Value {
        let report = self.report();
        let units = report["units"].as_array().cloned().unwrap_or_default();
        units.into_iter().find(|unit| unit["unit"] == name).unwrap_or(Value::Null)
    }

    fn wait_state(&self, name: &str, state: &str) -> Value {
        eventually(TESTED, state, || Some(self.unit(name)).filter(|unit| unit["state"] == state))
    }

    fn job(&self) -> Proc {
        // Not ended by its standard input.
        let run = ["run", "-n", "--", "sh", "-c", "echo on; exec sleep 1000"];
        let mut job = self.services.client("buyer", HERE, &run);
        job.wait_stdout("on\n");
        job
    }
}

#[test]
fn a_fault_of_the_machine_drains_ends_and_comes_back_after_a_test() {
    let Some(services) = Services::start(CONTAINERS, HERE) else { return };
    let (mut watched, host) = Watched::start(services, |_, _| ());
    let observer = watched.services.observer();
    let job = watched.job();
    watched.services.wait_free(&observer, 2);

    // What work causes, what is no record, and a flood change nothing.
    watched.write("Memory cgroup out of memory: Killed process 7 (x) total-vm:1kB");
    watched.write("NVRM: Xid (PCI:0000:3b:00): 13, pid=7, Graphics Exception");
    watched.append("no record at all\n");
    let flood: String =
        (2_000..60_000).map(|n| format!("6,{n},1,-;usb 1-1: new device\n")).collect();
    watched.sequence = 60_000;
    watched.append(&flood);
    watched.write("all is well");
    until(DEADLINE, "all is read", || {
        let counters = watched.report()["log"]["counters"].clone();
        counters["lines"] == 58_004 && counters["malformed"] == 1
    });
    assert_eq!(watched.unit("host")["state"], "in_service");
    assert_eq!(observer.free(), 2);

    // A fault that leaves time: nothing new, what runs goes on, and no restart changes that.
    watched.write(MACHINE_CHECK);
    watched.services.wait_free(&observer, 0);
    let unit = watched.wait_state("host", "draining");
    assert_eq!((&unit["reason"], &unit["fault"]), (&"machine_check".into(), &"host".into()));
    let refused = watched.services.run(&["run", "--queue", "1s", "-n", "--", "true"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    host.kill_9();
    let mut host = watched.host();
    watched.wait_state("host", "draining");
    assert_eq!(observer.free(), 0);
    assert!(host.stderr().contains("still out of service"), "{}", host.stderr());

    // A fault that does not: the lease is lost, and nobody pays for what was not delivered.
    std::fs::rename(&watched.log, watched.log.with_extension("1")).unwrap();
    watched.sequence = 0;
    watched.write(MEMORY);
    let ended = job.finish();
    assert_ne!(ended.code, 0, "{ended:?}");
    let receipt = watched.services.leases().ended_as(LeaseState::Lost, Reason::HostFault);
    let last = receipt.stages.last().unwrap();
    assert_eq!(last.reason.fault(), Some(Fault::Host));
    assert!(receipt.cost <= receipt.price.cost(receipt.usage.seconds), "{receipt:?}");

    // Tested, back, offered and used again.
    let unit = watched.wait_state("host", "in_service");
    let outage = &unit["outages"][0];
    let time = |name: &str| outage[name].as_u64().unwrap();
    assert!(time("seen") <= time("drained") && time("drained") <= time("back"), "{unit}");
    assert!(unit["test"].as_str().unwrap().starts_with("exact, "), "{unit}");
    watched.services.wait_free(&observer, 3);
    watched.services.run(&["run", "-n", "--", "true"]).expect(0);
    let counters = &watched.report()["log"]["counters"];
    assert_eq!(counters["rotated"], 1, "{counters}");
    assert!(host.is_running() && !host.stderr().contains("panicked"), "{}", host.stderr());

    // A fault again so soon is a relapse, although the host was started anew between.
    host.kill_9();
    let mut host = watched.host();
    assert_eq!(watched.wait_state("host", "in_service")["relapses"], 0);
    watched.write(MACHINE_CHECK);
    let unit = watched.wait_state("host", "waiting");
    assert_eq!((&unit["relapses"], &unit["reason"]), (&1.into(), &"machine_check".into()));
    assert!(host.is_running() && !host.stderr().contains("panicked"), "{}", host.stderr());
    watched.services.are_well();
}

#[test]
fn a_gpu_that_falls_off_the_bus_takes_no_other_with_it() {
    let Some(services) = gpus::start(gpus::ONE_EACH) else { return };
    let (mut watched, mut host) = Watched::start(services, |command, services| {
        gpus::with_adapters(command, services.place.path(), 2);
    });
    let observer = watched.services.observer();
    watched.services.wait_free(&observer, 2);
    let run = ["run", "-n", "--gpu", "llvmpipe", "--", "sh", "-c", "echo on; exec sleep 1000"];
    let mut first = watched.services.client("buyer", HERE, &run);
    first.wait_stdout("on\n");
    watched.services.client("other", HERE, &["fund", "1"]).finish().expect(0);
    let mut second = watched.services.client("other", HERE, &run);
    second.wait_stdout("on\n");

    watched.write("NVRM: Xid (software-0): 31, pid=7, name=x, MMU Fault");
    watched.write("NVRM: Xid (software-0): 79, pid=7, GPU has fallen off the bus.");
    assert_ne!(first.finish().code, 0);
    watched.services.leases().ended_as(LeaseState::Lost, Reason::HostFault);
    assert!(second.is_running());
    if cfg!(feature = "vulkan") {
        watched.wait_state("software-0", "in_service");
        watched.services.wait_free(&observer, 1);
        watched.services.run(&["run", "-n", "--gpu", "llvmpipe", "--", "true"]).expect(0);
    } else {
        let unit = watched.wait_state("software-0", "waiting");
        assert_eq!(unit["reason"], "xid_79");
        assert!(unit["test"].as_str().unwrap().contains("no kernels"), "{unit}");
        assert_eq!(observer.free(), 0);
    }
    assert_eq!(watched.unit("software-1")["state"], "in_service");
    assert!(host.is_running() && !host.stderr().contains("panicked"), "{}", host.stderr());
    watched.services.are_well();
}
