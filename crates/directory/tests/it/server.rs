//! A PostgreSQL server of a test's own: on a socket in a temporary folder, with a password.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What no log and no error may show.
pub(crate) const PASSWORD: &str = "hunter2-never-shown";
/// Who the server is when root runs the test: it refuses to be root. This is `nobody`.
const USER: u32 = 65_534;

/// A running server; ends when dropped.
pub(crate) struct Server {
    folder: TempDir,
    bin: PathBuf,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// With settings, for which files may be put into its folder.
    pub(crate) fn start_with(prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = programs();
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let settings = prepare(folder.path());
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(USER), Some(USER)).unwrap();
            for file in std::fs::read_dir(folder.path()).unwrap() {
                chown(file.unwrap().path(), Some(USER), Some(USER)).unwrap();
            }
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Self { folder, bin, settings, child: None };
        let made = server
            .command("initdb")
            .args(["--username=welkin", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"])
            .args(["--no-locale", "--no-instructions", "--pgdata"])
            .arg(server.data())
            .arg("--pwfile")
            .arg(&password)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run();
        server
    }

    /// Starts it where it is stopped.
    pub(crate) fn run(&mut self) {
        let folder = self.folder.path();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(folder);
        command.args(["-c", "listen_addresses=", "-c", "max_wal_size=4GB"]);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        self.child = Some(command.stderr(log).spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(30);
        while !self.is_ready() {
            assert!(Instant::now() < end, "PostgreSQL is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends all connections and stops it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            let _ = child.wait();
        }
    }

    /// How to log in.
    pub(crate) fn text(&self) -> String {
        let folder = self.folder.path().display();
        format!("host={folder} dbname=postgres user=welkin password={PASSWORD}")
    }

    /// What `psql` says to a statement.
    pub(crate) fn psql(&self, statement: &str) -> std::process::Output {
        let mut command = self.command("psql");
        command.arg(self.text()).args(["--no-psqlrc", "-tAc", statement]);
        command.stdout(Stdio::piped()).output().unwrap()
    }

    fn is_ready(&self) -> bool {
        let mut command = self.command("pg_isready");
        command.arg("-q").arg("-h").arg(self.folder.path()).args(["-U", "welkin"]);
        command.status().unwrap().success()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(port) = self.settings.iter().find_map(|setting| setting.strip_prefix("port=")) {
            command.env("PGPORT", port);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where Debian keeps the newest server's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").map(|entries| {
        let number = |name: &std::ffi::OsStr| name.to_str()?.parse::<u32>().ok();
        entries.flatten().filter_map(|entry| number(&entry.file_name())).max()
    });
    let Ok(Some(version)) = versions else {
        panic!("no PostgreSQL server in /usr/lib/postgresql: install the package `postgresql`");
    };
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
}
