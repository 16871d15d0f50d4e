//! One `anvil` process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, U64, U256};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use welkin_chain::http::Http;
use welkin_chain::rpc::Rpc;

/// A running node with its state in a folder; killed when dropped.
pub(crate) struct Anvil {
    child: Option<Child>,
    arguments: Vec<String>,
    port: u16,
    dir: tempfile::TempDir,
    pub(crate) rpc: Rpc,
}

fn program() -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    std::env::var_os("WELKIN_ANVIL").map_or(found, PathBuf::from)
}

impl Anvil {
    /// Starts one with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let rpc = Rpc::new(Http::new("http://127.0.0.1:1").unwrap());
        let mut anvil = Self { child: None, arguments, port: 0, dir, rpc };
        anvil.again();
        anvil
    }

    /// Starts it (again) where it was, with what it knew.
    pub(crate) fn again(&mut self) {
        let mut command = Command::new(program());
        command.args(["--hardfork", "cancun", "--port", &self.port.to_string()]);
        command.arg("--state").arg(self.dir.path().join("state.json")).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{command:?}: {error}; `npm ci` in contracts/ brings it")
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        self.port = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "anvil ended at its start");
            if let Some((_, port)) = line.split_once("Listening on 127.0.0.1:") {
                break port.trim().parse().unwrap();
            }
        };
        // What it goes on to print must go somewhere.
        std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::sink()));
        self.child = Some(child);
        self.rpc = Rpc::new(Http::new(&self.url()).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it; what it knows stays for [`Self::again`].
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "anvil does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A question or a command of its own.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        self.rpc.ask(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Gives an account so many whole coins.
    pub(crate) async fn coins(&self, account: Address, coins: u64) {
        let wei = U256::from(coins) * U256::from(10).pow(U256::from(18));
        self.ask("anvil_setBalance", json!([account, wei])).await;
    }

    /// Whether each transaction makes a block.
    pub(crate) async fn automine(&self, is_on: bool) {
        self.ask("evm_setAutomine", json!([is_on])).await;
    }

    /// Makes blocks.
    pub(crate) async fn mine(&self, blocks: u64) {
        self.ask("anvil_mine", json!([U64::from(blocks)])).await;
    }

    /// Puts the clock on and makes a block.
    pub(crate) async fn wait(&self, seconds: u64) {
        self.ask("evm_increaseTime", json!([seconds])).await;
        self.mine(1).await;
    }

    /// How many transactions wait for a block.
    pub(crate) async fn pooled(&self) -> u64 {
        let status = self.ask("txpool_status", json!([])).await;
        let count = |name: &str| status[name].as_str().unwrap().parse::<U64>().unwrap().to::<u64>();
        count("pending") + count("queued")
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
