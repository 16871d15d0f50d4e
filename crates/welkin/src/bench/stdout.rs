//! How fast a command's output arrives, beside a plain stream of the same transport.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use welkin_net::{BytesMut, Endpoint, EndpointConfig, NodeAddr};
use welkin_node::buyer::{Buyer, Keeper, LogEvent, place};
use welkin_proto::lease::{LogFrom, Output};

use crate::network::{Up, ask};

/// Bytes of one round.
const BYTES: u64 = 512 << 20;
/// Rounds of each, interleaved.
const ROUNDS: usize = 5;

/// `stdout`
pub(crate) async fn throughput() -> anyhow::Result<String> {
    let up = Up::start("", &[])?;
    let buyer = up.buyer().await?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(quic().await?);
        ours.push(lease(&buyer).await?);
    }
    let (ours, plain) = (median(ours), median(plain));
    Ok(format!("mib_s={ours:.0} quic_mib_s={plain:.0} ratio_vs_quic={:.2}", ours / plain))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

/// The mode in which this program sends the plain stream.
pub(crate) const SERVE: &str = "quic-serve";
const ALPN: &[u8] = b"bench/1";

async fn bind(secret: u8) -> anyhow::Result<Endpoint> {
    let mut config = EndpointConfig::new([secret; 32]);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.alpns = vec![ALPN.to_vec()];
    Ok(Endpoint::bind(config).await?)
}

/// Says its address, then sends zeros to the first who asks.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let server = bind(1).await?;
    crate::say(&serde_json::to_string(&server.addr())?);
    let connection = server.accept().await.context("closed")?.handshake().await?;
    let (mut send, _recv) = connection.accept().await?;
    let block = vec![0_u8; 256 << 10];
    for _ in 0..BYTES / (256 << 10) {
        send.write_all(&block).await?;
    }
    send.finish()?;
    let _ = connection.closed().await;
    server.close().await;
    Ok(())
}

/// A plain stream from another process to this one, as between a host and its buyer.
async fn quic() -> anyhow::Result<f64> {
    let mut server = tokio::process::Command::new(std::env::current_exe()?)
        .arg(SERVE)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = server.stdout.take().context("no output")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("no address")?;
    let addr: NodeAddr = serde_json::from_str(&line)?;
    let client = bind(2).await?;
    let connection = client.connect(&addr, ALPN, Duration::from_secs(5)).await?;
    let (mut send, mut recv) = connection.open().await?;
    let began = Instant::now();
    send.write_all(b"go").await?;
    let mut total = 0;
    // Into memory of the application's own, as with the log.
    let mut buffer = BytesMut::new();
    while let Some(read) = recv.read_buf(&mut buffer, 256 << 10).await? {
        total += read as u64;
        buffer.clear();
    }
    let took = began.elapsed();
    connection.close(0, b"done");
    client.close().await;
    server.wait().await?;
    anyhow::ensure!(total == BYTES, "{total} bytes came");
    Ok(rate(total, took))
}

/// The output of a command in a lease.
async fn lease(buyer: &Arc<Buyer>) -> anyhow::Result<f64> {
    let count = (BYTES >> 20).to_string();
    let dd = ["dd", "if=/dev/zero", "bs=1M", &format!("count={count}"), "status=none"];
    let ask = ask(&dd, 64 << 20, 16 << 20, 1_000);
    let placed = place(buyer, &ask, Vec::new(), &mut |_| ()).await?;
    let mut keeper = Keeper::new(Arc::clone(buyer), placed, String::new(), String::new());
    let kept = keeper.kept().clone();
    let session = keeper.session().context("no session")?;
    let mut stream = session.logs(kept.lease, Output::Stdout, LogFrom::Start, true).await?;
    let reading = async {
        let (mut total, mut began) = (0_u64, None);
        loop {
            match stream.next().await {
                LogEvent::Data(_, bytes) => {
                    began.get_or_insert_with(Instant::now);
                    total += bytes.len() as u64;
                }
                LogEvent::End => break,
                LogEvent::Gap(bytes) => bail!("{bytes} bytes were dropped"),
                LogEvent::Broken(why) => bail!("broken: {why}"),
            }
        }
        let took = began.context("nothing came")?.elapsed();
        anyhow::ensure!(total == BYTES, "{total} bytes came");
        Ok(rate(total, took))
    };
    let (rate, ()) = tokio::join!(reading, async { while keeper.next().await.is_some() {} });
    rate
}
