//! Restarts, crashes, reorganisations, and that the same gives the same.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use alloy_primitives::{Address, B256, U256, keccak256};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use welkin_evm::{Chain, SendError};

use crate::world::{Spec, address_of, ask, counter, key, open};

const TO: Address = Address::repeat_byte(9);
const PATH: &str = "WELKIN_EVM_TEST_PATH";
const ROUNDS: u64 = 8;

async fn play(chain: &Arc<Chain>) -> B256 {
    for nonce in 0..10 {
        let raw = if nonce % 3 == 0 {
            Spec::new(nonce, counter()).sign(&key(1))
        } else {
            Spec::new(nonce, TO).value(nonce).sign(&key(1))
        };
        chain.send_raw(&raw).await.unwrap();
    }
    chain.head().hash
}

#[tokio::test]
async fn the_same_transactions_and_times_give_the_same_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let one = play(&open(&folder.path().join("one.redb"))).await;
    let two = play(&open(&folder.path().join("two.redb"))).await;
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let chain = open(&path);
    play(&chain).await;
    let asked = [
        ("eth_getBlockByNumber", json!(["0x5", true])),
        ("eth_getBlockReceipts", json!(["0x5"])),
        ("eth_getBlockByNumber", json!(["latest", false])),
        ("eth_getBalance", json!([TO, "0x6"])),
        ("eth_getLogs", json!([{ "fromBlock": "0x0", "address": counter() }])),
    ];
    let mut before = Vec::new();
    for (method, params) in &asked {
        before.push(ask(&chain, method, params.clone()).await);
    }
    drop(chain);
    let chain = open(&path);
    for ((method, params), before) in asked.iter().zip(before) {
        assert_eq!(ask(&chain, method, params.clone()).await, before, "{method}");
    }
    chain.send_raw(&Spec::new(10, TO).sign(&key(1))).await.unwrap();
}

#[tokio::test]
async fn going_back_gives_another_branch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let chain = open(&path);
    chain.send_raw(&Spec::new(0, counter()).sign(&key(1))).await.unwrap();
    let fork = chain.head();
    let snapshot = ask(&chain, "evm_snapshot", json!([])).await;
    let gone = chain.send_raw(&Spec::new(1, counter()).sign(&key(1))).await.unwrap();
    chain.send_raw(&Spec::new(2, TO).value(5).sign(&key(1))).await.unwrap();
    let old = chain.head();
    assert_eq!(ask(&chain, "evm_revert", json!([snapshot])).await, json!(true));
    assert_eq!(chain.head(), fork);
    assert!(chain.receipt(gone).unwrap().is_none());
    assert_eq!(chain.balance(TO).unwrap(), U256::ZERO);
    assert_eq!(ask(&chain, "eth_getBlockByHash", json!([old.hash, false])).await, json!(null));
    let call = json!([{ "to": counter() }, "latest"]);
    assert_eq!(ask(&chain, "eth_call", call.clone()).await, format!("0x{:064x}", 2));
    chain.send_raw(&Spec::new(1, TO).value(7).sign(&key(1))).await.unwrap();
    chain.send_raw(&Spec::new(2, counter()).sign(&key(1))).await.unwrap();
    assert_eq!(chain.head().number, old.number);
    assert_ne!(chain.head().hash, old.hash);
    let head = chain.head();
    drop(chain);
    let chain = open(&path);
    assert_eq!(chain.head(), head);
    assert_eq!(ask(&chain, "eth_call", call).await, format!("0x{:064x}", 3));
    assert_eq!(ask(&chain, "evm_revert", json!(["0x999"])).await, json!(false));
}

#[tokio::test]
async fn states_older_than_the_history_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    chain.send_raw(&Spec::new(0, TO).value(1).sign(&key(1))).await.unwrap();
    for _ in 0..260 {
        ask(&chain, "evm_mine", json!([])).await;
    }
    let from = address_of(&key(1));
    let message = crate::world::fail(&chain, "eth_getBalance", json!([from, "0x1"])).await;
    assert!(message.starts_with("missing trie node"), "{message}");
    let kept = format!("0x{:x}", chain.head().number - 256);
    ask(&chain, "eth_getBalance", json!([from, kept])).await;
    assert_eq!(ask(&chain, "eth_getBlockByNumber", json!(["0x1", false])).await["number"], "0x1");
}

/// No file of this process may grow beyond so many bytes.
fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

/// In a process of its own: the limit is of the whole process, and so is the signal that is ignored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by a_full_disk_is_got_over"]
async fn sends_to_a_disk_that_fills_and_empties() {
    let Ok(path) = std::env::var(PATH) else { return };
    let chain = open(Path::new(&path));
    let key = key(1);
    let mut acknowledged = Vec::new();
    let mut send = async || {
        let nonce = chain.next_nonce(address_of(&key)).unwrap();
        let sent = chain.send_raw(&Spec::new(nonce, TO).value(1).sign(&key)).await;
        if let Ok(hash) = sent {
            acknowledged.push((hash, chain.head().number));
        }
        sent
    };
    for _ in 0..4 {
        send().await.unwrap();
    }
    limit(Some(std::fs::metadata(&path).unwrap().len() + (64 << 10)));
    let mut refused = 0;
    while refused < 3 {
        match send().await {
            Ok(_) => (),
            Err(SendError::Disk(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    limit(None);
    send().await.unwrap();
    drop(chain);
    check(Path::new(&path), &acknowledged).await;
    println!("went on");
}

#[test]
fn a_full_disk_is_got_over() {
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        // A write beyond the limit is an error only where the signal for it is ignored.
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "durable::sends_to_a_disk_that_fills_and_empties", "--ignored"])
        .arg("--nocapture")
        .env(PATH, folder.path().join("chain.redb"))
        .output()
        .unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("went on"), "{out}{error}");
}

/// Sends transfers for ever and says so after each; killed by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by a_killed_process_loses_nothing_acknowledged"]
async fn sends_until_it_is_killed() {
    let Ok(path) = std::env::var(PATH) else { return };
    let chain = open(Path::new(&path));
    let mut senders = tokio::task::JoinSet::new();
    for seed in 1..=4 {
        let chain = Arc::clone(&chain);
        senders.spawn(async move {
            let key = key(seed);
            for nonce in chain.next_nonce(address_of(&key)).unwrap().. {
                let spec = Spec::new(nonce, if nonce % 2 == 0 { counter() } else { TO });
                let spec = if nonce % 2 == 0 { spec } else { spec.value(1) };
                let hash = chain.send_raw(&spec.sign(&key)).await.unwrap();
                println!("ack {hash} {}", chain.head().number);
            }
        });
    }
    senders.join_all().await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durable::sends_until_it_is_killed", "--ignored", "--nocapture"])
            .env(PATH, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let chance = keccak256(round.to_be_bytes());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        let mut note = |line: String| {
            // The harness writes its own words, in front of the first line too.
            let mut words = line.split_whitespace().skip_while(|word| *word != "ack").skip(1);
            if let (Some(hash), Some(number)) = (words.next(), words.next()) {
                acknowledged.push((hash.parse::<B256>().unwrap(), number.parse::<u64>().unwrap()));
            }
        };
        for line in lines.by_ref().take(20 + usize::from(chance[0])) {
            note(line.unwrap());
        }
        for _ in 0..u32::from(chance[1]) * 500 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            // The last line may be cut.
            if line.split_whitespace().count() == 3 && line.split(' ').nth(1).unwrap().len() == 66 {
                note(line);
            }
        }
        child.wait().unwrap();
        assert!(!acknowledged.is_empty());
        check(&path, &acknowledged).await;
    }
}

/// Whether the chain is whole and has what was acknowledged.
async fn check(path: &Path, acknowledged: &[(B256, u64)]) {
    let chain = open(path);
    let head = chain.head();
    for (hash, number) in acknowledged {
        assert!(chain.receipt(*hash).unwrap().is_some(), "{hash} is lost");
        assert!(head.number >= *number);
    }
    // State follows from the blocks: as many calls and transfers as there are receipts.
    let (mut calls, mut transfers, mut parent) = (0_u64, 0_u64, None);
    for number in 1..=head.number {
        let number = format!("0x{number:x}");
        let block = ask(&chain, "eth_getBlockByNumber", json!([number, true])).await;
        assert!(parent.is_none_or(|parent| parent == block["parentHash"]));
        parent = Some(block["hash"].clone());
        for transaction in block["transactions"].as_array().unwrap() {
            match transaction["to"].as_str() {
                Some(to) if to.parse::<Address>().unwrap() == counter() => calls += 1,
                Some(_) => transfers += 1,
                None => (),
            }
        }
    }
    assert_eq!(chain.balance(TO).unwrap(), U256::from(transfers));
    let counted = ask(&chain, "eth_call", json!([{ "to": counter() }, "latest"])).await;
    assert_eq!(counted, format!("0x{:064x}", calls + 1));
    // The trie too: going back and forth finds the roots of the headers.
    let before = format!("0x{:x}", head.number - 3);
    assert_eq!(ask(&chain, "evm_revert", json!([before])).await, json!(true));
}
