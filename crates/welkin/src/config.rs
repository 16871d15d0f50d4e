//! Configuration: built-in defaults, then a file, then the environment.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};
use welkin_chain::http::NodeUrl;
use welkin_node::settlement::ChainConfig;
use welkin_node::{checker, host, indexer, relay};

/// All configuration of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) log: Log,
    pub(crate) network: NetworkConfig,
    pub(crate) up: UpConfig,
    pub(crate) chain: ChainConfig,
    pub(crate) settlement: SettlementConfig,
    pub(crate) indexer: indexer::Config,
    pub(crate) checker: checker::Config,
    pub(crate) relay: relay::Config,
    pub(crate) host: host::Config,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// A `tracing` filter, for example `info,welkin_net=debug`. Client commands log warnings only.
    pub(crate) filter: String,
    /// `text` or `json`.
    pub(crate) format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        let filter = "info,iroh=off,iroh_relay=error,noq=error,noq_proto=error,netwatch=error";
        Self { filter: filter.to_owned(), format: LogFormat::Text }
    }
}

/// Which network this process belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NetworkConfig {
    /// The network's folder. Empty: the `dev` folder in `~/.local/share/welkin`.
    pub(crate) dir: PathBuf,
    /// The network's address file. Empty: `network.toml` in the network's folder.
    pub(crate) file: PathBuf,
    /// Where this client stands, so that it asks near indexers first. Empty: not said.
    pub(crate) region: String,
}

/// What `welkin up` starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpConfig {
    /// Hosts.
    pub(crate) hosts: u32,
    /// Checkers.
    pub(crate) checkers: u32,
    /// Test money of a new account, in US dollars.
    pub(crate) credit_usd: String,
    /// The address that everything listens on; others can join if they can reach it.
    pub(crate) listen_ip: std::net::IpAddr,
}

impl Default for UpConfig {
    fn default() -> Self {
        Self {
            hosts: 2,
            checkers: 1,
            credit_usd: "10".to_owned(),
            listen_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// The settlement service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SettlementConfig {
    /// Its folder. Empty: `settlement` in the network's folder.
    pub(crate) dir: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub(crate) listen: String,
    /// Where the chain's node answers JSON-RPC over HTTP; empty: nowhere.
    pub(crate) rpc_listen: String,
    /// Pages that may ask it from a browser, as `https://wallet.example`.
    pub(crate) rpc_origins: Vec<String>,
    /// The node of the chain that holds the contracts; empty: a chain of this process.
    pub(crate) chain_rpc: NodeUrl,
    /// Where they stand there: the file that `welkin chain deploy` wrote.
    pub(crate) deployment: PathBuf,
    /// How long an epoch lasts, in seconds.
    pub(crate) epoch_seconds: u64,
    /// The most test money of one request, in US dollars; 0 gives none.
    pub(crate) faucet_usd_max: String,
}

impl Default for SettlementConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            listen: "127.0.0.1:0".to_owned(),
            rpc_listen: "127.0.0.1:0".to_owned(),
            rpc_origins: Vec::new(),
            chain_rpc: NodeUrl::default(),
            deployment: PathBuf::new(),
            epoch_seconds: 60,
            faucet_usd_max: "10000".to_owned(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file or a variable is wrong.
    #[error("invalid configuration")]
    Invalid(#[source] Box<figment::Error>),
    /// The named file is not there.
    #[error("no configuration file {0}")]
    Missing(PathBuf),
}

/// Variables that choose files and are no settings.
const NOT_SETTINGS: [&str; 3] = ["config", "dir", "seed"];

impl Config {
    /// Reads the configuration.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError::Missing(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let is_setting = |key: &figment::value::UncasedStr| key.as_str().contains("__");
        let env = Env::prefixed("WELKIN_").filter(is_setting).ignore(&NOT_SETTINGS).split("__");
        figment.merge(env).extract().map_err(|error| ConfigError::Invalid(Box::new(error)))
    }

    /// The network's folder.
    pub(crate) fn network_dir(&self, flag: Option<&Path>) -> PathBuf {
        match flag {
            Some(dir) => dir.to_owned(),
            None if !self.network.dir.as_os_str().is_empty() => self.network.dir.clone(),
            None => data_dir().join("dev"),
        }
    }
}

/// `$XDG_DATA_HOME/welkin`, else `~/.local/share/welkin`.
pub(crate) fn data_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("welkin")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the repository is the defaults, word for word.
    #[test]
    fn example_is_the_defaults() {
        let example = include_str!("../../../welkin.example.toml");
        assert_eq!(toml::from_str::<Config>(example).unwrap(), Config::default());
        assert_eq!(toml::to_string(&Config::default()).unwrap(), strip_comments(example));
    }

    fn strip_comments(text: &str) -> String {
        let kept = text.lines().filter(|line| !line.starts_with('#'));
        kept.collect::<Vec<_>>().join("\n") + "\n"
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_file_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bad.toml");
        std::fs::write(&file, "[indexer]\nqueue_size = 9\n").unwrap();
        let error = Config::load(Some(&file)).unwrap_err();
        let text = crate::report::render(&anyhow::Error::new(error)).0;
        assert!(text.contains("queue_size") && text.contains("bad.toml"), "{text}");
    }
}
