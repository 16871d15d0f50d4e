//! The tools that people use: `cast`, and ethers in node.
//!
//! Both come with the npm packages of `contracts/`. Where they are not there the tests fail, unless
//! `WELKIN_SKIP_NODE=1` says that this is known.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use alloy_primitives::hex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use welkin_evm::{Chain, HttpConfig, serve_http};

use crate::world::{COUNTER, address_of, counter, key, open};

fn modules() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules");
    std::env::var_os("WELKIN_NODE_MODULES").map_or(own, PathBuf::from)
}

fn is_skipped() -> bool {
    std::env::var("WELKIN_SKIP_NODE").is_ok_and(|value| value == "1")
}

async fn serve(chain: &Arc<Chain>) -> (SocketAddr, JoinSet<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(serve_http(listener, Arc::clone(chain), HttpConfig::default()));
    (at, server)
}

async fn run(mut command: Command) -> String {
    let shown = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| {
        panic!("{shown}: {error}; `npm ci` in contracts/ brings it, WELKIN_SKIP_NODE=1 skips this")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs npm packages of contracts/"]
async fn cast_deploys_sends_calls_and_reads() {
    if is_skipped() {
        return;
    }
    let found = modules().join("@foundry-rs/cast-linux-amd64/bin/cast");
    let tool = std::env::var_os("WELKIN_CAST").map_or(found, PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let (at, _server) = serve(&chain).await;
    let cast = async |arguments: &[&str]| {
        let mut command = Command::new(&tool);
        command.args(arguments).env("ETH_RPC_URL", format!("http://{at}"));
        command.env("FOUNDRY_DISABLE_NIGHTLY_WARNING", "1").current_dir(folder.path());
        run(command).await
    };
    let secret = hex::encode_prefixed(key(1).to_bytes());
    let (me, counter) = (address_of(&key(1)).to_string(), counter().to_string());
    assert_eq!(cast(&["chain-id"]).await, "412346");
    assert_eq!(cast(&["block-number"]).await, "1");
    assert_eq!(cast(&["balance", &me]).await, "1000000000000000000");
    let sent = cast(&["send", "--json", "--private-key", &secret, &counter, "0x01020304"]).await;
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(sent["status"], "0x1", "{sent}");
    let hash = sent["transactionHash"].as_str().unwrap();
    assert!(cast(&["receipt", hash]).await.contains("status               1"));
    assert!(cast(&["tx", hash]).await.contains(&me));
    assert!(cast(&["block", "latest"]).await.contains("stateRoot"));
    assert!(cast(&["block", "1", "--full"]).await.contains("transactions"));
    assert!(cast(&["logs", "--from-block", "0", "--address", &counter]).await.contains(hash));
    assert_eq!(cast(&["storage", &counter, "7"]).await, format!("0x{:064x}", 42));
    assert_eq!(cast(&["nonce", &me]).await, "1");
    assert_eq!(cast(&["call", &counter, "0x"]).await, format!("0x{:064x}", 2));
    let code = hex::encode_prefixed(COUNTER);
    let made = cast(&["send", "--json", "--private-key", &secret, "--create", &code]).await;
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let at = made["contractAddress"].as_str().unwrap();
    assert_eq!(cast(&["call", at, "0x"]).await, format!("0x{:064x}", 1));
}

const SCRIPT: &str = r#"
const { ethers } = require("ethers");
const assert = require("assert");
(async () => {
  const [url, secret, counter, code] = process.argv.slice(-4);
  // ethers keeps answers for 250 ms, nonces too: longer than a transaction takes here.
  const options = { pollingInterval: 50, cacheTimeout: -1 };
  const provider = new ethers.JsonRpcProvider(url, undefined, options);
  const wallet = new ethers.Wallet(secret, provider);
  assert.equal((await provider.getNetwork()).chainId, 412346n);
  const genesis = await provider.getBlock(1, true);
  assert.equal(genesis.prefetchedTransactions.length, 1);
  assert.equal(genesis.prefetchedTransactions[0].data, code);
  const sent = await wallet.sendTransaction({ to: counter });
  const receipt = await sent.wait();
  assert.equal(receipt.status, 1);
  assert.equal(receipt.logs.length, 1);
  assert.equal((await provider.getTransaction(sent.hash)).from, wallet.address);
  const logs = await provider.getLogs({ address: counter, fromBlock: 0 });
  assert.equal(logs.length, 1);
  const factory = new ethers.ContractFactory(["function f() view returns (uint256)"], code, wallet);
  const made = await factory.deploy();
  await made.waitForDeployment();
  assert.equal(await made.f(), 1n);
  assert.equal(await made.f({ blockTag: "latest" }), 1n);
  const reverting = { to: counter, data: "0x" + "07".repeat(32) };
  await assert.rejects(provider.call(reverting), (error) =>
    error.code === "CALL_EXCEPTION" && error.data === reverting.data);
  const heard = new Promise((resolve) => provider.once({ address: counter }, resolve));
  await new Promise((resolve) => setTimeout(resolve, 200));
  await (await wallet.sendTransaction({ to: counter })).wait();
  assert.equal((await heard).address, counter);
  const many = await Promise.all([1, 2, 3].map((n) => wallet.sendTransaction(
    { to: counter, nonce: 6 - n, gasLimit: 100000 })));
  for (const one of many) assert.equal((await one.wait()).status, 1);
  provider.destroy();
  console.log("done");
})().catch((error) => { console.error(error); process.exit(1); });
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the contract stage: needs npm packages of contracts/"]
async fn ethers_deploys_sends_listens_and_reads() {
    if is_skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let (at, _server) = serve(&chain).await;
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules()).args(["-e", SCRIPT, "--", &format!("http://{at}")]);
    command.arg(hex::encode_prefixed(key(1).to_bytes())).arg(counter().to_string());
    command.arg(hex::encode_prefixed(COUNTER));
    assert_eq!(run(command).await, "done");
}
