//! The same signed transfers over HTTP to this chain and to anvil, which keeps its chain in memory:
//! batches of `eth_sendRawTransaction`, one connection for each sender, until all are in blocks.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U64, U256, hex, keccak256};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use welkin_evm::{HttpConfig, serve_http};

use crate::{CHAIN_ID, SENDERS, TOKEN, key, open, sign_all, token};

/// Transactions of one request: the most that this chain takes.
const BATCH: usize = 100;
const ROUNDS: usize = 3;
/// Between two blocks of anvil.
const BLOCK_PAUSE: Duration = Duration::from_millis(2);

/// Transfers a second over HTTP.
pub(crate) struct Compared {
    pub(crate) here: f64,
    pub(crate) anvil: f64,
}

/// Measures both, by turns, each round on a fresh chain; none where there is no anvil.
pub(crate) async fn compare(count: u64) -> Option<Compared> {
    let program = program().filter(|program| program.is_file())?;
    let signed = sign_all(count / u64::from(SENDERS));
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        here.push(on_this_chain(&signed).await);
        there.push(on_anvil(&program, &signed).await);
    }
    Some(Compared { here: median(here), anvil: median(there) })
}

fn program() -> Option<PathBuf> {
    let found = "../../contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil";
    let found = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(found);
    Some(std::env::var_os("WELKIN_ANVIL").map_or(found, PathBuf::from))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn on_this_chain(signed: &[Vec<Vec<u8>>]) -> f64 {
    let folder = tempfile::tempdir_in(".").unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(serve_http(listener, chain.clone(), HttpConfig::default()));
    send_all(at, signed).await
}

/// A node that is killed when dropped.
struct Anvil(Child);

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn on_anvil(program: &PathBuf, signed: &[Vec<Vec<u8>>]) -> f64 {
    let mut command = Command::new(program);
    command.args(["--port", "0", "--hardfork", "cancun", "--base-fee", "0", "--gas-price", "0"]);
    command.args(["--chain-id", &CHAIN_ID.to_string()]);
    // Blocks as large as may be, one after the other: where each transaction asks for a block, some
    // of many at once are left over.
    command.args(["--disable-block-gas-limit", "--no-mining"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _anvil = Anvil(child);
    let at = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, at)) = line.split_once("Listening on ") {
            break at.trim().parse().unwrap();
        }
    };
    // What it goes on to print must go somewhere.
    std::thread::spawn(move || lines.count());
    let mut line = Line::open(at).await;
    // As this chain's first transactions leave it.
    line.ask("anvil_setCode", json!([token(), hex::encode_prefixed(&TOKEN[11..])])).await;
    for seed in 1..=SENDERS {
        let from = Address::from_private_key(&key(seed));
        let slot = keccak256([from.into_word(), B256::ZERO].concat());
        let most = B256::from(U256::from(u64::MAX));
        line.ask("anvil_setStorageAt", json!([token(), slot, most])).await;
        line.ask("anvil_setNonce", json!([from, "0x1"])).await;
    }
    let mut mining = JoinSet::new();
    mining.spawn(async move {
        loop {
            line.ask("evm_mine", json!([])).await;
            tokio::time::sleep(BLOCK_PAUSE).await;
        }
    });
    send_all(at, signed).await
}

/// Sends everything; transfers a second until the last is in a block.
async fn send_all(at: SocketAddr, signed: &[Vec<Vec<u8>>]) -> f64 {
    let batches: Vec<Vec<Vec<u8>>> =
        signed.iter().map(|of| of.chunks(BATCH).map(batch).collect()).collect();
    let mut lines = Vec::new();
    for _ in signed {
        lines.push(Line::open(at).await);
    }
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for ((seed, batches), mut line) in (1..=SENDERS).zip(batches).zip(lines) {
        let last = signed[0].len() as u64 + 1;
        senders.spawn(async move {
            for batch in batches {
                let answers = line.post(&batch).await;
                let refused =
                    answers.as_array().unwrap().iter().find(|one| !one["error"].is_null());
                assert!(refused.is_none(), "{refused:?}");
            }
            let from = Address::from_private_key(&key(seed));
            while line.nonce(from).await < last {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    senders.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let transfers: usize = signed.iter().map(Vec::len).sum();
    // Each did what it should: otherwise it would be quick for nothing.
    let mut line = Line::open(at).await;
    let from = Address::from_private_key(&key(1));
    let slot = keccak256([from.into_word(), B256::ZERO].concat());
    let left = line.ask("eth_getStorageAt", json!([token(), slot, "latest"])).await;
    let left: U256 = left.as_str().unwrap().parse().unwrap();
    assert_eq!(U256::from(u64::MAX) - left, U256::from(signed[0].len()));
    transfers as f64 / seconds
}

fn batch(raws: &[Vec<u8>]) -> Vec<u8> {
    let requests = raws.iter().enumerate().map(|(id, raw)| {
        let params = [hex::encode_prefixed(raw)];
        json!({"jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": params})
    });
    Value::Array(requests.collect()).to_string().into_bytes()
}

/// One HTTP connection that is kept.
struct Line(TcpStream);

impl Line {
    async fn open(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn post(&mut self, body: &[u8]) -> Value {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        let (head, length) = loop {
            assert!(self.0.read_buf(&mut answer).await.unwrap() > 0, "the server hung up");
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                break (end + 4, length.unwrap().parse::<usize>().unwrap());
            }
        };
        while answer.len() < head + length {
            assert!(self.0.read_buf(&mut answer).await.unwrap() > 0, "the server hung up");
        }
        serde_json::from_slice(&answer[head..]).unwrap()
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer = self.post(request.to_string().as_bytes()).await;
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    async fn nonce(&mut self, of: Address) -> u64 {
        let count = self.ask("eth_getTransactionCount", json!([of, "latest"])).await;
        count.as_str().unwrap().parse::<U64>().unwrap().to()
    }
}
