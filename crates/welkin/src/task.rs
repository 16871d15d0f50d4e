//! From flags and files to what is asked of the network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use welkin_node::buyer::{self, Ask};
use welkin_node::outside;
use welkin_proto::index::{GangAsk, Together};
use welkin_proto::lease::{Launch, Secret};
use welkin_proto::{Checkpoint, Terms, app_of_image};
use welkin_types::task::{
    self, EnvValue, Files, Needs, Retry, RetryOn, Spot, TaskSpec, Text, TextForm,
};
use welkin_types::{CapacityType, Region};

use crate::Usage;
use crate::cli::TaskArgs;

/// How long a task waits for a container unless it says otherwise.
const QUEUE_DEFAULT: Duration = Duration::from_secs(30);
/// How long a start may take unless the task says otherwise.
const STARTUP_DEFAULT_SECONDS: u64 = 300;

/// A task ready to be placed.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ask: Ask,
    pub(crate) files: Vec<(PathBuf, String, bool)>,
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) retry: buyer::Retry,
    /// Whether it goes on demand where nothing is on offer as spot.
    pub(crate) spot_or_on_demand: bool,
    /// Several containers at once.
    pub(crate) gang: Option<GangAsk>,
}

fn parsed<T: TextForm>(flag: &str, text: Option<&String>) -> anyhow::Result<Option<Text<T>>> {
    let Some(text) = text else { return Ok(None) };
    let value =
        serde_json::from_value(serde_json::Value::String(text.clone())).map_err(|error| {
            Usage::new(format!("--{flag}: {error}"), "`welkin run --help` shows the forms")
        })?;
    Ok(Some(value))
}

/// A length of time as a flag has it: `90s`, `10m`, `2h`, `7d`.
pub(crate) fn duration(flag: &str, text: &str) -> anyhow::Result<Duration> {
    let span: task::Span = text.parse().map_err(|error| {
        Usage::new(format!("--{flag}: {error}"), "write it like `90s`, `10m`, `2h` or `7d`")
    })?;
    Ok(Duration::from_secs(u64::from(span.seconds())))
}

/// Reads the task's file, if any, and lets flags win over it.
pub(crate) fn spec(args: &TaskArgs) -> anyhow::Result<(TaskSpec, PathBuf)> {
    let mut folder = PathBuf::from(".");
    let mut spec = match &args.file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("failed to read {}", file.display()))?;
            folder = file.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
            task::parse(&file.to_string_lossy(), &text)?
        }
        None => TaskSpec::default(),
    };
    merge(&mut spec, args)?;
    spec.validate().map_err(|error| Usage::new(error.to_string(), "see `welkin schema task`"))?;
    let unsupported = spec.unsupported();
    if !unsupported.is_empty() {
        let list: Vec<_> = unsupported.iter().map(ToString::to_string).collect();
        let text = format!("this version does not carry out:\n  {}", list.join("\n  "));
        return Err(Usage::new(text, "leave these keys out").into());
    }
    Ok((spec, folder))
}

fn merge(spec: &mut TaskSpec, args: &TaskArgs) -> anyhow::Result<()> {
    let resources = &mut spec.resources;
    resources.gpu = parsed("gpu", args.gpu.as_ref())?.or(resources.gpu.take());
    resources.cpu = parsed("cpu", args.cpu.as_ref())?.or(resources.cpu.take());
    resources.memory = parsed("memory", args.memory.as_ref())?.or(resources.memory.take());
    resources.disk = parsed("disk", args.disk.as_ref())?.or(resources.disk.take());
    let price = &mut spec.price;
    price.max_per_hour =
        parsed("max-price", args.max_price.as_ref())?.or(price.max_per_hour.take());
    price.budget = parsed("budget", args.budget.as_ref())?.or(price.budget.take());
    price.reserve = parsed("reserve", args.reserve.as_ref())?.or(price.reserve.take());
    if let Some(spot) = &args.spot {
        let wanted = serde_json::Value::String(spot.clone());
        price.spot = serde_json::from_value(wanted).map_err(|_| {
            let text = format!("--spot: `{spot}` is none of auto, only and never");
            Usage::new(text, "`welkin run --help` shows the forms")
        })?;
    }
    let timeouts = &mut spec.timeouts;
    timeouts.run = parsed("timeout", args.timeout.as_ref())?.or(timeouts.run.take());
    timeouts.queue = parsed("queue", args.queue.as_ref())?.or(timeouts.queue.take());
    if let Some(image) = &args.image {
        spec.image = Some(image.clone());
    }
    if let Some(name) = &args.name {
        spec.name = Some(name.clone());
    }
    for text in &args.region {
        let region: Region =
            text.parse().map_err(|error| Usage::new(format!("--region: {error}"), ""))?;
        spec.place.regions.push(region);
    }
    if let Some(text) = &args.policy {
        spec.place.policy =
            text.parse().map_err(|error| Usage::new(format!("--policy: {error}"), ""))?;
    }
    for text in &args.env {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, EnvValue::Set(value.to_owned())),
            None => (text.as_str(), EnvValue::FromCaller),
        };
        spec.env.0.insert(name.to_owned(), value);
    }
    spec.secrets.extend(args.secret.iter().cloned());
    if let Some(max) = args.retry {
        spec.retry.get_or_insert_with(Retry::default).max = max;
    }
    spec.nodes = args.nodes.unwrap_or(spec.nodes);
    spec.place.within_ms = args.within_ms.or(spec.place.within_ms);
    spec.place.distinct_hosts |= args.distinct_hosts;
    if !args.command.is_empty() {
        spec.command.clone_from(&args.command);
        spec.run = None;
    }
    Ok(())
}

/// What the task is asked as.
pub(crate) fn job(spec: &TaskSpec, folder: &Path) -> anyhow::Result<Job> {
    let image = spec.image.clone().unwrap_or_else(|| "host".to_owned());
    let needs = Needs { app: Some(app_of_image(&image)), ..spec.needs() };
    let seconds =
        |span: Option<&Text<task::Span>>| span.map(|Text(span)| span.duration().as_secs());
    let argv = spec.argv().unwrap_or_default();
    let has_image = spec.image.as_ref().is_some_and(|image| image != "host");
    if argv.is_empty() && !has_image {
        return Err(Usage::new("there is no command to run", "give one behind `--`").into());
    }
    let command = argv.join(" ");
    let name = spec.name.clone().unwrap_or_default();
    let launch = Launch {
        image,
        argv,
        env: env(spec)?,
        cwd: String::new(),
        cpu_milli: needs.cpu_milli_min,
        memory_bytes: needs.memory_bytes_min,
        disk_bytes: needs.disk_bytes_min,
        shm_bytes: needs.shm_bytes,
        run_seconds_max: seconds(spec.timeouts.run.as_ref()).unwrap_or(0),
        start_seconds_max: seconds(spec.timeouts.startup.as_ref())
            .unwrap_or(STARTUP_DEFAULT_SECONDS),
        name: name.clone(),
        terms: match spec.price.reserve {
            Some(Text(reservation)) => Terms::reserved(reservation),
            None => Terms::plain(spec.capacity(), spec.notice_seconds_min()),
        },
        checkpoint: spec.checkpoint.as_ref().map(checkpoint),
    };
    let queue = spec.timeouts.queue.as_ref().map_or(QUEUE_DEFAULT, |Text(span)| span.duration());
    let ask = Ask {
        needs,
        launch,
        secrets: secrets(spec)?,
        tty: None,
        stdin: false,
        files: !spec.files.is_empty(),
        budget: spec.price.budget.map(|Text(usd)| usd),
        queue,
    };
    let files = spec.files.iter().map(|files| local(files, folder)).collect();
    let retry = retry(spec.retry.as_ref());
    let spot_or_on_demand = spec.price.spot == Spot::Auto && spec.capacity() == CapacityType::Spot;
    let gang = gang(spec);
    Ok(Job { ask, files, name, command, retry, spot_or_on_demand, gang })
}

/// Several containers at once; the number of them was checked with the spec.
fn gang(spec: &TaskSpec) -> Option<GangAsk> {
    let members = u8::try_from(spec.nodes).ok().filter(|members| *members > 1)?;
    let together = match spec.place.within_ms {
        Some(ms) => Together::WithinUs(ms.saturating_mul(1_000)),
        None => Together::Site,
    };
    Some(GangAsk { members, together, is_spread: spec.place.distinct_hosts })
}

fn checkpoint(asked: &task::Checkpoint) -> Checkpoint {
    let script = asked.run.iter();
    let argv = script.flat_map(|run| ["/bin/sh".to_owned(), "-c".to_owned(), run.clone()]);
    Checkpoint { argv: argv.collect(), path: asked.path.clone() }
}

fn local(files: &Files, folder: &Path) -> (PathBuf, String, bool) {
    (folder.join(&files.from), files.to.clone(), false)
}

fn retry(retry: Option<&Retry>) -> buyer::Retry {
    let Some(retry) = retry else { return buyer::Retry::default() };
    buyer::Retry {
        on_lost: retry.on.contains(&RetryOn::HostLost),
        on_preempted: retry.on.contains(&RetryOn::Preempted),
        on_failed: retry.on.contains(&RetryOn::Failed),
        max: u32::from(retry.max),
        until: retry.within.map(|Text(span)| outside::now().after(span.duration())),
    }
}

fn caller(name: &str) -> anyhow::Result<String> {
    std::env::var(name).map_err(|_| {
        let text = format!("the variable {name} is not set here");
        Usage::new(text, format!("run `export {name}=…` first")).into()
    })
}

fn env(spec: &TaskSpec) -> anyhow::Result<Vec<(String, String)>> {
    let value = |(name, value): (&String, &EnvValue)| {
        let value = match value {
            EnvValue::Set(value) => value.clone(),
            EnvValue::FromCaller => caller(name)?,
        };
        Ok((name.clone(), value))
    };
    spec.env.0.iter().map(value).collect()
}

fn secrets(spec: &TaskSpec) -> anyhow::Result<Vec<(String, Secret)>> {
    spec.secrets.iter().map(|name| Ok((name.clone(), Secret::new(caller(name)?)))).collect()
}
