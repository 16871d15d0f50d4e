//! Gives up root before a role does anything, where the configuration names a user to become.
//!
//! What makes sandboxes stays root: the helper, and the launcher that starts it again when it dies.
//! The process that talks to the network keeps nothing, and cannot get anything back.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use welkin_node::host::open_kernel_log;
use welkin_runtime::privileges::User;
use welkin_runtime::{Launcher, LauncherConfig};

use crate::cli::{self, Command};
use crate::{Context, Usage, client, roles};

/// Where the helper keeps unpacked images, if nothing else is said.
const IMAGE_STORE: &str = "/var/lib/welkin/images";

/// The most hosts of one process that get the kernel's log.
const HOSTS_MAX: u32 = 64;

/// What may be in a network's folder that is given to the user.
const NETWORK_FILES: [&str; 12] = [
    "account.key",
    "buyer",
    "checker",
    "demo",
    "demo.png",
    "host",
    "indexer",
    "network.new",
    "network.toml",
    "relay",
    "settlement",
    "up.lock",
];
/// What may be in the folder of a role.
const ROLE_FILES: [&str; 11] = [
    "account.key",
    "books.redb",
    "health",
    "host.redb",
    "images",
    "logs",
    "node.key",
    "port",
    "relay-cert.der",
    "relay-key.der",
    "spool",
];

/// A folder that the user is given.
struct Folder {
    dir: PathBuf,
    mode: u32,
    is_ours: fn(&OsStr) -> bool,
}

/// Becomes `host.user`, if this is a role that hosts, started as root. What is returned then stays
/// root and starts the helper.
pub(crate) fn give_up_root(
    context: &Context,
    command: &Command,
) -> anyhow::Result<Option<Launcher>> {
    let folders = match command {
        Command::Up(_) => up_folders(context),
        Command::Host(cli::Host { command: None }) => host_folders(context),
        _ => return Ok(None),
    };
    let own = rustix::process::geteuid();
    let Some(user) = wanted(context)? else {
        if own.is_root() && matches!(command, Command::Host(_)) {
            tracing::warn!("this process stays root: name an ordinary user in `host.user`");
        }
        return Ok(None);
    };
    if own.as_raw() == user.uid() {
        return Ok(None);
    }
    if !own.is_root() {
        let text = format!("only root can become user {} (`host.user`)", user.name());
        return Err(Usage::new(text, "start it with sudo, or leave `host.user` empty").into());
    }
    user.must_reach(&client::network_file(context))?;
    for folder in &folders {
        user.must_reach(&folder.dir)?;
        user.take_over(&folder.dir, folder.mode, folder.is_ours)?;
    }
    open_kernel_logs(context);
    let launcher = Launcher::start(&launcher_config(context)?, &user)?;
    user.assume()?;
    tracing::info!(user = user.name(), uid = user.uid(), "gave up root");
    Ok(Some(launcher))
}

/// Only root may read the kernel's log; each host reads its own copy.
fn open_kernel_logs(context: &Context) {
    let hosts = context.config.up.hosts.clamp(1, HOSTS_MAX);
    let health = &context.config.host.health;
    let Ok(mut logs) = context.kernel_logs.lock() else { return };
    // Why it can't be opened is said by the host, which tries again.
    logs.extend((0..hosts).filter_map(|_| open_kernel_log(health).ok()));
}

/// The user to become, if one is named.
pub(crate) fn wanted(context: &Context) -> anyhow::Result<Option<User>> {
    let name = context.config.host.user.as_str();
    if name.is_empty() {
        return Ok(None);
    }
    User::find(name).map(Some).context("`host.user` can't be used")
}

fn launcher_config(context: &Context) -> anyhow::Result<LauncherConfig> {
    let host = &context.config.host;
    let store = &host.image_store;
    let is_named = !store.as_os_str().is_empty();
    Ok(LauncherConfig {
        command: roles::sandboxd_command()?,
        dir: host.sandbox_dir.clone(),
        images: if is_named { store.clone() } else { PathBuf::from(IMAGE_STORE) },
        orphan_grace: roles::ORPHAN_GRACE,
    })
}

fn up_folders(context: &Context) -> Vec<Folder> {
    let is_ours = |name: &OsStr| {
        let name = name.to_string_lossy();
        let is_numbered = |role| name.strip_prefix(role).is_some_and(is_number);
        NETWORK_FILES.contains(&&*name) || is_numbered("host-") || is_numbered("checker-")
    };
    // Clients of other users may read where the network is.
    let network = Folder { dir: context.dir.clone(), mode: 0o755, is_ours };
    let named = [&context.config.settlement.dir, &context.config.relay.dir];
    let named = named.into_iter().filter(|dir| !dir.as_os_str().is_empty());
    std::iter::once(network).chain(named.map(|dir| role_folder(dir))).collect()
}

fn host_folders(context: &Context) -> Vec<Folder> {
    vec![role_folder(&roles::dir_or(&context.config.host.dir, context, "host"))]
}

fn role_folder(dir: &Path) -> Folder {
    let is_ours = |name: &OsStr| ROLE_FILES.contains(&&*name.to_string_lossy());
    Folder { dir: dir.to_owned(), mode: 0o700, is_ours }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_folders_are_told_apart() {
        let mut context = Context {
            config: crate::config::Config::default(),
            dir: PathBuf::from("/var/lib/welkin/dev"),
            is_json: false,
            is_quiet: false,
            launcher: None,
            kernel_logs: std::sync::Mutex::default(),
        };
        let up = up_folders(&context);
        assert_eq!(up.len(), 1);
        for name in ["up.lock", "host-1", "host-16", "checker-2", "buyer"] {
            assert!((up[0].is_ours)(OsStr::new(name)), "{name}");
        }
        for name in ["host-", "host-x", "shadow", "lib"] {
            assert!(!(up[0].is_ours)(OsStr::new(name)), "{name}");
        }
        context.config.settlement.dir = PathBuf::from("/srv/books");
        assert_eq!(up_folders(&context)[1].dir, Path::new("/srv/books"));
        assert_eq!(host_folders(&context)[0].dir, Path::new("/var/lib/welkin/dev/host"));
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        let config = toml::from_str("[host]\nuser = \"nobody-of-that-name\"\n").unwrap();
        let context = Context {
            config,
            dir: PathBuf::new(),
            is_json: false,
            is_quiet: false,
            launcher: None,
            kernel_logs: std::sync::Mutex::default(),
        };
        let (text, code) = crate::report::render(&wanted(&context).unwrap_err());
        assert_eq!(code, 64);
        insta::assert_snapshot!(text, @r"
        error: `host.user` can't be used
          caused by: there is no user `nobody-of-that-name` on this machine

        hint: make one (`useradd --system --shell /usr/sbin/nologin nobody-of-that-name`), or name another
        ");
    }
}
