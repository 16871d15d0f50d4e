//! Loopback figures of the data plane: handshake, round trip, one bulk stream.
//!
//! `cargo bench -p welkin-net` prints one line; `-- --test` runs a tiny round so that it cannot
//! rot. Both ends share the machine, so a real network gets these figures at best.
#![expect(clippy::print_stdout, reason = "the result is a line of text")]

use std::time::{Duration, Instant};

use welkin_net::{
    BindError, Bytes, ConnectError, Connection, ConnectionLost, Endpoint, EndpointConfig,
    HandshakeError, NodeAddr, ReadError, WriteError,
};

const ALPN: &[u8] = b"welkin/bench/1";
const MIB: usize = 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(10);

/// How much is measured.
struct Size {
    handshakes: usize,
    round_trips: usize,
    bulk_mib: usize,
    bulk_rounds: usize,
}

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("failed to build the runtime")]
    Runtime(#[from] std::io::Error),
    #[error("failed to bind")]
    Bind(#[from] BindError),
    #[error("failed to connect")]
    Connect(#[from] ConnectError),
    #[error("failed to accept")]
    Accept(#[from] HandshakeError),
    #[error("the endpoint closed")]
    Closed,
    #[error("lost the connection")]
    Lost(#[from] ConnectionLost),
    #[error("failed to read")]
    Read(#[from] ReadError),
    #[error("failed to write")]
    Write(#[from] WriteError),
}

fn main() -> Result<(), BenchError> {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let size = if is_test {
        Size { handshakes: 3, round_trips: 10, bulk_mib: 4, bulk_rounds: 1 }
    } else {
        Size { handshakes: 200, round_trips: 5000, bulk_mib: 512, bulk_rounds: 3 }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(size))
}

async fn run(size: Size) -> Result<(), BenchError> {
    let (a, b) = (bind(1).await?, bind(2).await?);
    let addr = b.addr();

    let mut handshakes = Vec::new();
    for _ in 0..size.handshakes {
        let started = Instant::now();
        let (near, far) = join(&a, &b, &addr).await?;
        handshakes.push(started.elapsed());
        near.close(0, b"");
        far.closed().await;
    }

    let (near, far) = join(&a, &b, &addr).await?;
    let mut round_trips = ping(&near, &far, size.round_trips).await?;
    let mut best = 0.0_f64;
    for _ in 0..size.bulk_rounds {
        best = best.max(bulk(&near, &far, size.bulk_mib).await?);
    }
    println!(
        "RESULT quic handshake_p50_ms={:.2} handshake_p99_ms={:.2} rtt_p50_us={:.0} stream_mib_s={best:.0}",
        percentile(&mut handshakes, 50).as_secs_f64() * 1e3,
        percentile(&mut handshakes, 99).as_secs_f64() * 1e3,
        percentile(&mut round_trips, 50).as_secs_f64() * 1e6,
    );
    tokio::join!(a.close(), b.close());
    Ok(())
}

async fn bind(key: u8) -> Result<Endpoint, BenchError> {
    let config = EndpointConfig {
        listen: vec![([127, 0, 0, 1], 0).into()],
        alpns: vec![ALPN.to_vec()],
        ..EndpointConfig::new([key; 32])
    };
    Ok(Endpoint::bind(config).await?)
}

async fn join(
    a: &Endpoint,
    b: &Endpoint,
    addr: &NodeAddr,
) -> Result<(Connection, Connection), BenchError> {
    let accept = async {
        let incoming = b.accept().await.ok_or(BenchError::Closed)?;
        Ok::<_, BenchError>(incoming.handshake().await?)
    };
    let connect = async { Ok(a.connect(addr, ALPN, DEADLINE).await?) };
    tokio::try_join!(connect, accept)
}

/// Round trips of 64 bytes on one stream.
async fn ping(near: &Connection, far: &Connection, n: usize) -> Result<Vec<Duration>, BenchError> {
    let echo = async {
        let (mut send, mut recv) = far.accept().await?;
        while let Some(chunk) = recv.read_chunk(MIB).await? {
            send.write_chunk(chunk).await?;
        }
        Ok::<_, BenchError>(())
    };
    let ask = async {
        let (mut send, mut recv) = near.open().await?;
        let mut times = Vec::new();
        for _ in 0..n {
            let started = Instant::now();
            send.write_all(&[7; 64]).await?;
            let mut missing = 64;
            while missing > 0 {
                missing -= recv.read_chunk(missing).await?.ok_or(BenchError::Closed)?.len();
            }
            times.push(started.elapsed());
        }
        send.finish()?;
        Ok(times)
    };
    let (times, ()) = tokio::try_join!(ask, echo)?;
    Ok(times)
}

/// MiB a second of one stream.
#[expect(clippy::disallowed_methods, reason = "the writer needs a task of its own beside main")]
async fn bulk(near: &Connection, far: &Connection, mib: usize) -> Result<f64, BenchError> {
    let near = near.clone();
    let started = Instant::now();
    let writer = tokio::spawn(async move {
        let (mut send, _recv) = near.open().await?;
        let chunk = Bytes::from(vec![5; 256 * 1024]);
        for _ in 0..4 * mib {
            send.write_chunk(chunk.clone()).await?;
        }
        send.finish()?;
        send.stopped().await?;
        Ok::<_, BenchError>(())
    });
    let (_send, mut recv) = far.accept().await?;
    let mut total = 0;
    while let Some(chunk) = recv.read_chunk(MIB).await? {
        total += chunk.len();
    }
    let elapsed = started.elapsed().as_secs_f64();
    writer.await.map_err(|_| BenchError::Closed)??;
    assert_eq!(total, mib * MIB, "bytes were lost");
    let mib = u32::try_from(mib).unwrap_or(u32::MAX);
    Ok(f64::from(mib) / elapsed)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}
