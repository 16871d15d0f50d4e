//! How fast a command's output arrives, beside a plain stream of the same transport, for text and for
//! bytes that can't be compressed.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use welkin_net::{BytesMut, Endpoint, EndpointConfig, NodeAddr};
use welkin_node::buyer::{Buyer, Keeper, LogEvent, pack, place};
use welkin_proto::lease::{LogFrom, Output};

use crate::data::{Data, SAMPLE_BYTES};
use crate::network::{Up, ask};

/// Samples of one round.
const SAMPLES: usize = 64;
/// Bytes of one round.
const BYTES: u64 = (SAMPLES * SAMPLE_BYTES) as u64;
/// Rounds of each, interleaved.
const ROUNDS: usize = 5;

/// `stdout`
pub(crate) async fn throughput() -> anyhow::Result<String> {
    let up = Up::start("", &[])?;
    let buyer = up.buyer().await?;
    let mut text = Rates::default();
    let mut random = Rates::default();
    for _ in 0..ROUNDS {
        text.round(&up, &buyer, Data::Text).await?;
        random.round(&up, &buyer, Data::Random).await?;
    }
    let (ours, plain) = text.medians();
    let (random_ours, random_plain) = random.medians();
    Ok(format!(
        "mib_s={ours:.0} quic_mib_s={plain:.0} ratio_vs_quic={:.2} random_mib_s={random_ours:.0} \
         random_quic_mib_s={random_plain:.0} ratio_random={:.2}",
        ours / plain,
        random_ours / random_plain,
    ))
}

/// What was measured with one kind of bytes.
#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    plain: Vec<f64>,
}

impl Rates {
    async fn round(&mut self, up: &Up, buyer: &Arc<Buyer>, data: Data) -> anyhow::Result<()> {
        self.plain.push(quic(data).await?);
        self.ours.push(lease(up, buyer, data).await?);
        Ok(())
    }

    fn medians(self) -> (f64, f64) {
        (median(self.ours), median(self.plain))
    }
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

/// Says its address, then sends such bytes to the first who asks.
pub(crate) async fn serve(name: &str) -> anyhow::Result<()> {
    let sample = Data::named(name).context("no such data")?.sample();
    let server = bind(1).await?;
    crate::say(&serde_json::to_string(&server.addr())?);
    let connection = server.accept().await.context("closed")?.handshake().await?;
    let (mut send, _recv) = connection.accept().await?;
    for _ in 0..SAMPLES {
        for piece in sample.chunks(256 << 10) {
            send.write_all(piece).await?;
        }
    }
    send.finish()?;
    let _ = connection.closed().await;
    server.close().await;
    Ok(())
}

/// A plain stream from another process to this one, as between a host and its buyer.
async fn quic(data: Data) -> anyhow::Result<f64> {
    let mut server = tokio::process::Command::new(std::env::current_exe()?)
        .args([SERVE, data.name()])
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

/// The output of a command in a lease: it only copies a file that is in its memory.
async fn lease(up: &Up, buyer: &Arc<Buyer>, data: Data) -> anyhow::Result<f64> {
    let file = up.dir.join(data.name());
    std::fs::write(&file, data.sample())?;
    let files = pack(&[(file, format!("work/{}", data.name()), true)])?;
    let mut argv = vec![data.name(); SAMPLES];
    argv.insert(0, "cat");
    let mut ask = ask(&argv, 64 << 20, 2 * SAMPLE_BYTES as u64, 1_000);
    ask.files = true;
    let placed = place(buyer, &ask, Vec::new(), &mut |_| ()).await?;
    let mut keeper = Keeper::new(Arc::clone(buyer), placed, String::new(), String::new());
    let sent = keeper.files(&mut tokio::fs::File::from_std(files)).await;
    keeper.files_sent(sent).await?;
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
