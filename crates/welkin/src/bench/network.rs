//! A network of its own in a process of its own, gone when dropped.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use welkin_node::Shutdown;
use welkin_node::buyer::{Ask, Buyer, Home};
use welkin_node::network::Network;
use welkin_proto::Terms;
use welkin_proto::lease::Launch;
use welkin_types::task::TaskSpec;

/// How long the network may take to be there.
const UP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running `welkin up`.
pub(crate) struct Up {
    pub(crate) dir: PathBuf,
    pub(crate) program: PathBuf,
    child: Child,
}

impl Up {
    /// Starts one with these settings (as environment variables of the configuration).
    pub(crate) fn start(config: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("welkin");
        let dir = std::env::temp_dir().join(format!("welkin-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let file = dir.join("bench.toml");
        std::fs::write(&file, config)?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&file)
            .arg("--dir")
            .arg(&dir)
            .arg("up")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("up.err"))?)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let up = Self { dir, program, child };
        up.wait()?;
        Ok(up)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.dir.join("network.toml").exists() {
            if began.elapsed() > UP_TIMEOUT {
                bail!("the network does not start: {}", self.dir.join("up.err").display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A client of it.
    pub(crate) async fn buyer(&self) -> anyhow::Result<Arc<Buyer>> {
        let network: Network =
            toml::from_str(&std::fs::read_to_string(self.dir.join("network.toml"))?)?;
        let home = Home::new(self.dir.join("buyer"));
        let buyer = Arc::new(Buyer::open(&network, home, Shutdown::default()).await?);
        let began = Instant::now();
        while buyer.offers(None).await?.iter().all(|row| row.free == 0) {
            if began.elapsed() > UP_TIMEOUT {
                bail!("nothing is on offer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(buyer)
    }

    /// Resident memory of the network's process, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        rss_kib(&PathBuf::from(format!("/proc/{}/status", self.child.id())))
    }
}

fn rss_kib(status: &Path) -> u64 {
    let mut text = String::new();
    let read = std::fs::File::open(status).and_then(|mut file| file.read_to_string(&mut text));
    if read.is_err() {
        return 0;
    }
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A small task for these.
pub(crate) fn ask(argv: &[&str], memory_bytes: u64, disk_bytes: u64, cpu_milli: u32) -> Ask {
    let mut needs = TaskSpec::default().needs();
    needs.cpu_milli_min = cpu_milli;
    needs.memory_bytes_min = memory_bytes;
    needs.disk_bytes_min = disk_bytes;
    let launch = Launch {
        image: "host".to_owned(),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        cwd: String::new(),
        cpu_milli,
        memory_bytes,
        disk_bytes,
        shm_bytes: 0,
        run_seconds_max: 0,
        start_seconds_max: 120,
        name: "bench".to_owned(),
        terms: Terms::ON_DEMAND,
        checkpoint: None,
    };
    Ask {
        needs,
        launch,
        secrets: Vec::new(),
        tty: None,
        stdin: false,
        files: false,
        budget: None,
        queue: Duration::from_secs(60),
    }
}
