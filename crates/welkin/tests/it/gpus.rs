//! GPUs from the inventory to the command, with Mesa's software adapter in the place of a card.
//!
//! There is one adapter for each driver file, so a machine gets as many as a test wants. What such an
//! adapter does not have is a device node: those are tried in the tests of `welkin-runtime`.

use std::path::{Path, PathBuf};
use std::process::Command;

use welkin_types::{LeaseState, Reason};

use crate::services::{HERE, Services, UNTIL_TOLD};
use crate::support::{Proc, children, until};

pub(crate) const ONE_EACH: &str = r#"
[host]
software_gpus = true

[[host.containers]]
cpu_milli = 1000
memory_mib = 512
disk_mib = 256
gpus = 1
slots = 2
usd_per_hour = "0.36"
"#;

/// Says what Vulkan sees: the names of all devices.
const NAMES: &str = r"
import ctypes as c
vk = c.CDLL('libvulkan.so.1')
info = (c.c_uint64 * 8)(1)
instance = c.c_void_p()
assert vk.vkCreateInstance(info, None, c.byref(instance)) == 0
count = c.c_uint32(16)
devices = (c.c_void_p * 16)()
assert vk.vkEnumeratePhysicalDevices(instance, c.byref(count), devices) == 0
for device in devices[:count.value]:
    properties = c.create_string_buffer(2048)
    vk.vkGetPhysicalDeviceProperties(c.c_void_p(device), properties)
    print(c.string_at(c.addressof(properties) + 20).decode())
";

/// Gives a command this many adapters.
pub(crate) fn with_adapters(command: &mut Command, folder: &Path, count: usize) {
    let driver = children(Path::new("/usr/share/vulkan/icd.d"));
    let driver = driver.iter().find(|path| path.to_string_lossy().contains("lvp_icd"));
    let copy = |n: usize| -> Option<PathBuf> {
        let to = folder.join(format!("adapter-{n}.json"));
        std::fs::copy(driver?, &to).ok()?;
        Some(to)
    };
    let files: Vec<PathBuf> = (0..count).filter_map(copy).collect();
    command.env("VK_ICD_FILENAMES", std::env::join_paths(&files).unwrap());
}

/// Services with a configuration, if this machine has the software adapter.
pub(crate) fn start(config: &str) -> Option<Services> {
    let services = Services::start(config, HERE)?;
    // Not a command like others: nothing comes before it.
    let mut list = Command::new(env!("CARGO_BIN_EXE_welkin"));
    list.args(["list-gpus", "vulkan"]);
    with_adapters(&mut list, services.place.path(), 2);
    let found = Proc::spawn(list).finish().expect(0).text();
    if found.matches("\"Software\"").count() != 2 {
        eprintln!("skipped: needs libvulkan1 and mesa-vulkan-drivers (`scripts/setup test`)");
        return None;
    }
    Some(services)
}

fn host(services: &Services, adapters: usize) -> Proc {
    let mut command = services.command("host", HERE, &["host"]);
    with_adapters(&mut command, services.place.path(), adapters);
    Proc::spawn(command)
}

/// The GPUs that a host has given out, in order.
fn given(host: &Proc) -> Vec<String> {
    let text = host.stderr();
    let names = text.lines().filter_map(|line| line.split("gpus=").nth(1));
    names.map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_command_gets_the_gpu_that_was_asked_for() {
    let Some(mut services) = start(ONE_EACH) else { return };
    let mut host = host(&services, 2);
    host.wait_stderr("announced");
    services.fund("10");
    let doctor = services.command("host", HERE, &["doctor"]);
    let doctor = Proc::spawn(doctor).finish().text();
    assert!(doctor.contains("llvmpipe (LLVM") && doctor.contains("software"), "{doctor}");
    let offers = services.run(&["offers", "--gpu", "llvmpipe"]).expect(0).text();
    assert!(offers.contains("1x llvmpipe"), "{offers}");
    let plan = services.run(&["plan", "--gpu", "llvmpipe:1", "--", "true"]).expect(0).text();
    assert!(plan.contains("llvmpipe"), "{plan}");
    services.run(&["run", "--gpu", "H100", "--", "true"]).expect(2).says("gpu");

    let script = "echo gpus=$WELKIN_GPUS; exec python3 -c \"$NAMES\"";
    let names = format!("NAMES={NAMES}");
    let args = ["run", "--gpu", "any:1", "--env", &names, "--", "sh", "-c", script];
    let text = services.run(&args).expect(0).text();
    assert!(text.starts_with("gpus=1\nllvmpipe (LLVM"), "{text}");
    services.leases().ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    services.are_well();
}

#[test]
fn two_leases_never_share_a_gpu() {
    let Some(mut services) = start(ONE_EACH) else { return };
    let mut first_host = host(&services, 2);
    first_host.wait_stderr("announced");
    services.fund("10");
    let observer = services.observer();
    // Not ended by its standard input, which ends with the host's process.
    let script = format!("echo on; {UNTIL_TOLD}");
    let run = ["run", "--queue", "60s", "--gpu", "llvmpipe", "--", "sh", "-c", &script];
    let spawn = |name: &str| services.client(name, HERE, &run);
    let mut jobs = [spawn("buyer"), spawn("buyer")];
    for job in &mut jobs {
        job.wait_stdout("on\n");
    }
    let [left, right] = jobs;
    let end = |job: Proc| {
        let text = job.stderr();
        let lease = text.split_whitespace().find(|word| word.starts_with("lse_")).unwrap();
        services.tell_end(lease);
        job.ended().expect(0);
    };
    let mut both = given(&first_host);
    both.sort();
    assert_eq!(both, ["software-0", "software-1"]);
    services.wait_free(&observer, 0);
    let refused = services.run(&["run", "--queue", "1s", "--gpu", "llvmpipe", "--", "true"]);
    assert_ne!(refused.code, 0, "{refused:?}");

    // A lease keeps its GPU when its host starts anew.
    first_host.kill_9();
    let mut second_host = host(&services, 2);
    second_host.wait_stderr("announced");
    let mut third = spawn("buyer");
    third.wait_stderr("queued: position 1 of 1");
    assert_eq!(given(&second_host), [""; 0], "the old leases have them all");
    end(left);
    third.wait_stdout("on\n");
    assert_eq!(given(&second_host).len(), 1);
    end(right);
    end(third);
    services.wait_free(&observer, 2);
    services.are_well();
}

#[test]
fn no_more_gpus_are_offered_than_there_are() {
    let Some(services) = start(ONE_EACH) else { return };
    let output = host(&services, 1).finish();
    assert_ne!(output.code, 0);
    output.says("container 0: wants 2 GPUs of one kind").says("1 x llvmpipe");
    let config = ONE_EACH.replace("software_gpus = true", "software_gpus = false");
    std::fs::write(services.place.config(), config).unwrap();
    let output = host(&services, 2).finish();
    assert_ne!(output.code, 0);
    output.says("by another container: none");

    // Without a list of containers each GPU is one.
    std::fs::write(services.place.config(), "[host]\nsoftware_gpus = true\n").unwrap();
    let mut host = host(&services, 2);
    host.wait_stderr("announced");
    let observer = services.observer();
    let offers = || observer.runtime.block_on(observer.buyer.offers(None)).unwrap();
    until(crate::support::DEADLINE, "it is listed", || !offers().is_empty());
    let offers = offers();
    let [only] = offers.as_slice() else { panic!("{offers:?}") };
    assert_eq!((only.container.slots, only.container.resources.gpus.len()), (2, 1));
}
