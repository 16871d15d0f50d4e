//! The demo: a picture rendered by leases on every host, and a model trained, paid to the cent.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use welkin_node::Shutdown;
use welkin_node::buyer::{
    Ask, Buyer, Keeper, LeaseEvent, LogCopy, LogEvent, pack, place, scratch, unpack,
};
use welkin_proto::lease::{Launch, Output};
use welkin_proto::{Receipt, ReceiptFile, Terms};
use welkin_trace::{EXPECTED_HASH, RenderConfig, TileImage, decode_tile, join};
use welkin_types::task::TaskSpec;
use welkin_types::{LeaseState, Usd};

use crate::up::Running;
use crate::{Context, client, out};

/// Leases that render the picture together.
/// The most bytes of a checkpoint's record.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;
const BANDS: u32 = 4;
/// The file of the picture, in the current folder.
const PICTURE: &str = "demo.png";
/// The training job's program.
const TRAIN: &str = include_str!("../../../apps/train/train.py");
/// How long anything of the demo may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The most bytes of one output that the demo takes in.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Runs the demo on a running network.
pub(crate) async fn run(context: &Context, running: &Running) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let home = client::home(context);
    let buyer = Arc::new(Buyer::open(&running.network, home, shutdown.clone()).await?);
    let demo = Demo { context, buyer: Arc::clone(&buyer), began: Instant::now() };
    let result = tokio::time::timeout(PATIENCE, demo.all(running)).await;
    shutdown.finish(Duration::from_secs(1)).await;
    buyer.close().await;
    result.context("the demo took too long")?
}

struct Demo<'a> {
    context: &'a Context,
    buyer: Arc<Buyer>,
    began: Instant,
}

/// What a lease of the demo brought.
struct Done {
    stdout: Vec<u8>,
    receipt: ReceiptFile,
}

impl Demo<'_> {
    fn say(&self, text: &str) {
        let at = self.began.elapsed().as_millis();
        out::note(&format!("{:>4}.{:03} s  {text}", at / 1_000, at % 1_000));
    }

    async fn all(&self, running: &Running) -> anyhow::Result<()> {
        self.say(&format!(
            "network: 1 settlement, 1 relay, 1 indexer, {} hosts, {} checker(s)",
            running.hosts.len(),
            running.checkers
        ));
        self.wait_for_hosts(running.hosts.len()).await?;
        let before = self.buyer.settle().balance(self.buyer.account()).await?;
        self.say(&format!("account {} has {}", self.buyer.account(), before.available));
        let mut receipts = self.picture().await?;
        match self.training().await? {
            Some(receipt) => receipts.push(receipt),
            None => self.say("no python3 in /usr/bin: the training job is left out"),
        }
        self.show_receipts(&receipts).await?;
        self.check_books(&receipts, before.available).await
    }

    /// Hosts announce themselves; the demo begins when the indexer knows them all.
    async fn wait_for_hosts(&self, count: usize) -> anyhow::Result<()> {
        loop {
            let rows = self.buyer.offers(None).await?;
            let free = rows.iter().filter(|row| row.free > 0).count();
            if free >= count {
                self.say(&format!("{free} containers on offer, from {}", rows[0].container.price));
                return Ok(());
            }
            if rows.is_empty() && self.began.elapsed() > Duration::from_secs(20) {
                bail!("no host offers anything: `welkin doctor` says why");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Renders the picture in bands, one lease each, and joins them here.
    async fn picture(&self) -> anyhow::Result<Vec<ReceiptFile>> {
        let program = program("welkin-trace")?;
        let config = RenderConfig::DEMO;
        self.say(&format!(
            "job 1: a {}x{} picture, {} samples a pixel, in {BANDS} leases",
            config.width, config.height, config.samples
        ));
        let mut leases = JoinSet::new();
        for band in 0..BANDS {
            let argv = trace_command(&config, band);
            let files = vec![(program.clone(), "/work".to_owned(), false)];
            let label = format!("band {}", band + 1);
            leases.spawn(lease(self.buyer.clone(), self.began, label, argv, files));
        }
        let (mut tiles, mut receipts) = (Vec::<TileImage>::new(), Vec::new());
        while let Some(done) = leases.join_next().await {
            let done = done.context("a lease of the demo broke")??;
            tiles.push(decode_tile(&done.stdout).context("a band is damaged")?);
            receipts.push(done.receipt);
        }
        let picture = join(&config, &tiles).context("the bands do not fit together")?;
        let path = self.keep_picture(&picture.to_png())?;
        let hash = picture.hash_hex();
        ensure!(hash == EXPECTED_HASH, "the picture's hash is {hash}, expected {EXPECTED_HASH}");
        self.say(&format!("picture {} ({}…, as expected)", path.display(), &hash[..16]));
        Ok(receipts)
    }

    /// Writes the picture here, or where this folder is another's, into the network's folder.
    fn keep_picture(&self, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let here = std::env::current_dir()?.join(PICTURE);
        let there = self.context.dir.join(PICTURE);
        let (path, written) = match std::fs::write(&here, bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                (&there, std::fs::write(&there, bytes))
            }
            other => (&here, other),
        };
        written.with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path.clone())
    }

    /// Trains a small model and fetches its checkpoint while it runs.
    async fn training(&self) -> anyhow::Result<Option<ReceiptFile>> {
        if !Path::new("/usr/bin/python3").exists() {
            return Ok(None);
        }
        self.say("job 2: a logistic regression trained in plain Python, checkpoint fetched");
        let folder = self.context.dir.join("demo");
        std::fs::create_dir_all(&folder)?;
        let script = folder.join("train.py");
        std::fs::write(&script, TRAIN)?;
        let argv = ["python3", "/work/train.py", "--epochs", "8", "--seconds-per-epoch-min", "0.2"];
        let argv = argv.iter().map(ToString::to_string).collect();
        let files = vec![(script, "/work".to_owned(), false)];
        let checkpoint = folder.join("checkpoint.json");
        let done = train(self.buyer.clone(), self.began, argv, files, &checkpoint).await?;
        let text = String::from_utf8_lossy(&done.stdout);
        let last = text.lines().last().unwrap_or_default();
        self.say(&format!("training ended with: {last}"));
        self.say(&format!("checkpoint {}", checkpoint.display()));
        Ok(Some(done.receipt))
    }

    async fn show_receipts(&self, files: &[ReceiptFile]) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for file in files {
            let receipt = file.verify().context("a receipt is wrong")?;
            ensure!(file.ack.is_some(), "a receipt lacks the buyer's signature");
            let view = self.buyer.settle().lease(receipt.lease).await?;
            ensure!(view.closed, "{} is not settled", receipt.lease);
            ensure!(view.paid == receipt.cost, "{} was paid for {}", view.paid, receipt.lease);
            let transaction = view.transaction.context("a lease was settled by nothing")?;
            rows.push(row(&receipt, &out::short(&transaction)));
        }
        let head = [
            "LEASE",
            "STATE",
            "PULL",
            "START",
            "RUN",
            "BILLED",
            "PRICE",
            "COST",
            "FEE",
            "WIPED",
            "SETTLED BY",
        ];
        self.say("receipts, signed by host and buyer, verified here, settled on the chain:");
        out::text(&out::table(&head, &rows))
    }

    /// Every cent must be somewhere.
    async fn check_books(&self, files: &[ReceiptFile], before: Usd) -> anyhow::Result<()> {
        let mut cost = Usd::ZERO;
        for file in files {
            cost = cost.checked_add(file.verify()?.cost).context("the costs overflow")?;
        }
        let settle = self.buyer.settle();
        let account = settle.balance(self.buyer.account()).await?;
        let spent = before.saturating_sub(account.available).saturating_sub(account.held);
        ensure!(spent == cost, "the account spent {spent}, the receipts say {cost}");
        let totals = settle.totals().await?;
        let sum = [totals.available, totals.held, totals.treasury]
            .into_iter()
            .try_fold(Usd::ZERO, Usd::checked_add)
            .context("the books overflow")?;
        ensure!(sum == totals.deposited, "the books do not add up");
        self.say(&format!(
            "paid {cost} for everything (20 % of it the fee); {} left; books add up: {} in, {} \
             in accounts, {} held, {} treasury",
            account.available, totals.deposited, totals.available, totals.held, totals.treasury
        ));
        Ok(())
    }
}

/// A program that was built beside this one.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{} is not there: run `cargo build` first", path.display());
    Ok(path)
}

fn trace_command(config: &RenderConfig, band: u32) -> Vec<String> {
    let mut argv = vec!["/work/welkin-trace".to_owned(), "tile".to_owned()];
    let options = [
        ("--width", config.width),
        ("--height", config.height),
        ("--samples", config.samples),
        ("--bounces", config.bounces_max),
        ("--bands", BANDS),
        ("--band", band),
    ];
    for (name, value) in options {
        argv.push(name.to_owned());
        argv.push(value.to_string());
    }
    argv
}

fn ask(argv: Vec<String>, name: &str) -> Ask {
    let needs = TaskSpec::default().needs();
    let launch = Launch {
        image: "host".to_owned(),
        argv,
        env: Vec::new(),
        cwd: String::new(),
        cpu_milli: needs.cpu_milli_min,
        memory_bytes: needs.memory_bytes_min.min(256 << 20),
        disk_bytes: needs.disk_bytes_min.min(128 << 20),
        shm_bytes: 0,
        run_seconds_max: 120,
        start_seconds_max: 60,
        name: name.to_owned(),
        terms: Terms::ON_DEMAND,
        checkpoint: None,
    };
    let mut needs = needs;
    needs.memory_bytes_min = launch.memory_bytes;
    needs.disk_bytes_min = launch.disk_bytes;
    Ask {
        needs,
        launch,
        secrets: Vec::new(),
        tty: None,
        stdin: false,
        files: true,
        budget: Some(Usd::from_micros(100_000)),
        queue: Duration::from_secs(60),
    }
}

type Entries = Vec<(PathBuf, String, bool)>;

struct Begun {
    keeper: Keeper,
    placed: Duration,
    began: Instant,
}

async fn begin(
    buyer: Arc<Buyer>,
    label: &str,
    argv: Vec<String>,
    files: Entries,
) -> anyhow::Result<Begun> {
    let name = label.replace(' ', "-");
    let ask = ask(argv, &name);
    let tar = tokio::task::spawn_blocking(move || pack(&files)).await??;
    let began = Instant::now();
    let placed = place(&buyer, &ask, Vec::new(), &mut |_| ()).await?;
    let took = began.elapsed();
    let command = ask.launch.argv.join(" ");
    let keeper = Keeper::new(buyer, placed, name, command);
    keeper.files(&mut tokio::fs::File::from_std(tar)).await?;
    Ok(Begun { keeper, placed: took, began })
}

fn progress(began: Instant, label: &str, text: &str) {
    let at = began.elapsed().as_millis();
    out::note(&format!("{:>4}.{:03} s  {label}: {text}", at / 1_000, at % 1_000));
}

/// One lease of the demo, from its placement to its receipt.
async fn lease(
    buyer: Arc<Buyer>,
    clock: Instant,
    label: String,
    argv: Vec<String>,
    files: Entries,
) -> anyhow::Result<Done> {
    let begun = begin(buyer, &label, argv, files).await?;
    finish(begun, clock, label).await
}

async fn finish(begun: Begun, clock: Instant, label: String) -> anyhow::Result<Done> {
    let Begun { mut keeper, placed, began } = begun;
    let host = out::short(&keeper.kept().host.node);
    progress(clock, &label, &format!("placed on {host} in {}", out::duration(placed)));
    let mut stdout = LogCopy::new(keeper.buyer(), keeper.kept().lease, Output::Stdout);
    let mut stderr = LogCopy::new(keeper.buyer(), keeper.kept().lease, Output::Stderr);
    stdout.connect(&keeper).await?;
    stderr.connect(&keeper).await?;
    let mut outputs = JoinSet::new();
    outputs.spawn(async move { (Output::Stdout, collect(stdout).await) });
    let stderr_label = label.clone();
    outputs.spawn(async move { (Output::Stderr, print(stderr, clock, stderr_label).await) });
    let receipt = loop {
        match keeper.next().await {
            Some(LeaseEvent::Stage(stage, detail)) => {
                if stage.state == LeaseState::Running {
                    let ready = began.elapsed();
                    let text = format!("running {} after the request", out::duration(ready));
                    progress(clock, &label, &text);
                }
                if stage.state.is_final() {
                    let text = format!("{} ({})", stage.state, stage.reason);
                    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                    progress(clock, &label, &format!("{text}{detail}"));
                    ensure!(stage.state == LeaseState::Succeeded, "{label} {text}{detail}");
                }
            }
            Some(LeaseEvent::Receipt(file)) => break *file,
            Some(LeaseEvent::Lost(why)) => bail!("{label} is lost: {why}"),
            Some(_) => (),
            None => bail!("{label} ended without a receipt"),
        }
    };
    let mut bytes = Vec::new();
    while let Some(done) = outputs.join_next().await {
        let (output, text) = done?;
        if output == Output::Stdout {
            bytes = text?;
        }
    }
    Ok(Done { stdout: bytes, receipt })
}

async fn collect(mut copy: LogCopy) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match copy.next().await {
            LogEvent::Data(_, more) => {
                bytes.extend_from_slice(&more);
                ensure!(bytes.len() <= OUTPUT_BYTES_MAX, "an output is too large");
            }
            LogEvent::Gap(_) => bail!("an output has a gap"),
            LogEvent::End => return Ok(bytes),
            LogEvent::Broken(why) => bail!("an output broke: {why}"),
        }
    }
}

/// Shows lines as they come; on no terminal only every third, so that a log stays readable.
async fn print(mut copy: LogCopy, clock: Instant, label: String) -> anyhow::Result<Vec<u8>> {
    let mut rest = String::new();
    let every = if std::io::stderr().is_terminal() { 1 } else { 3 };
    let mut count = 0;
    while let LogEvent::Data(_, bytes) = copy.next().await {
        rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, tail)) = rest.split_once('\n') {
            count += 1;
            if count % every == 0 {
                progress(clock, &label, line);
            }
            rest = tail.to_owned();
        }
    }
    Ok(Vec::new())
}

/// The training job: as [`lease`], and its checkpoint is fetched while it runs.
async fn train(
    buyer: Arc<Buyer>,
    clock: Instant,
    argv: Vec<String>,
    files: Entries,
    checkpoint: &Path,
) -> anyhow::Result<Done> {
    let begun = begin(Arc::clone(&buyer), "training", argv, files).await?;
    let kept = begun.keeper.kept().clone();
    let fetching = async {
        let session = buyer.connect(&kept.host).await?;
        loop {
            let mut sink = tokio::fs::File::from_std(scratch()?);
            match session
                .get(kept.lease, "/work/ckpt/checkpoint.json", CHECKPOINT_BYTES_MAX, &mut sink)
                .await
            {
                Ok(()) => {
                    let mut file = sink.into_std().await;
                    std::io::Seek::rewind(&mut file)?;
                    let _ = std::fs::remove_file(checkpoint);
                    unpack(file, checkpoint)?;
                    return anyhow::Ok(());
                }
                // Not started, or no epoch done yet.
                Err(welkin_node::buyer::BuyerError::Said(_)) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let (done, fetched) = tokio::join!(
        finish(begun, clock, "training".to_owned()),
        tokio::time::timeout(Duration::from_secs(60), fetching)
    );
    fetched.context("no checkpoint could be fetched while the training ran")??;
    done
}

fn row(receipt: &Receipt, settled_by: &str) -> Vec<String> {
    let at = |state| receipt.stages.iter().find(|stage| stage.state == state).map(|s| s.at);
    let between = |from, to| match (at(from), at(to)) {
        (Some(from), Some(to)) => format!("{} ms", to.since(from).as_millis()),
        _ => "-".to_owned(),
    };
    let last = receipt.stages.last();
    let ran = match (at(LeaseState::Running), last) {
        (Some(from), Some(last)) => format!("{} ms", last.at.since(from).as_millis()),
        _ => "-".to_owned(),
    };
    let wiped = if receipt.wipe.complete { "yes" } else { "NO" };
    vec![
        out::short(&receipt.lease),
        last.map_or_else(String::new, |last| last.state.to_string()),
        between(LeaseState::Pulling, LeaseState::Starting),
        between(LeaseState::Starting, LeaseState::Running),
        ran,
        format!("{} s", receipt.usage.seconds),
        receipt.price.to_string(),
        receipt.cost.to_string(),
        receipt.fee.to_string(),
        format!("{wiped}, {} ms", receipt.wipe.elapsed_ms),
        settled_by.to_owned(),
    ]
}
