//! What has to hold for a whole spec, wherever its parts came from.
//!
//! The parts of a spec can't be wrong in themselves. What is checked here are bounds, names and
//! paths, and what must not stand together. It runs after a file was read, and once more after
//! flags were merged in.

use super::env::{EnvValue, is_env_name};
use super::error::{KeyError, join};
use super::gpu::check_model;
use super::quantity::quote;
use super::{Files, Notify, Port, Scale, Stream, TaskSpec, Text, Volume, limits};

type Check = Result<(), KeyError>;

impl TaskSpec {
    /// Checks what has to hold for the whole spec.
    ///
    /// A spec without a command is valid: the command may come from elsewhere.
    ///
    /// # Errors
    ///
    /// The first key that is wrong.
    pub fn validate(&self) -> Result<(), KeyError> {
        if self.version != 1 {
            let reason = format!("is {}, but this program knows version 1 only", self.version);
            return Err(KeyError::new("version", reason));
        }
        self.check_image()?;
        self.check_command()?;
        self.check_env()?;
        self.check_resources()?;
        self.check_limits()?;
        self.check_storage()?;
        self.check_network()?;
        self.stream.as_ref().map_or(Ok(()), check_stream)?;
        check_list("notify", &self.notify, limits::LIST_MAX, check_notify)
    }

    fn check_image(&self) -> Check {
        if let Some(name) = &self.name {
            check_name("name", name)?;
        }
        let sources = [("image", &self.image), ("rootfs", &self.rootfs), ("preset", &self.preset)];
        let mut set = sources.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)));
        if let Some((key, text)) = set.next() {
            check_text(key, text, limits::IMAGE_LEN_MAX)?;
            if let Some((second, _)) = set.next() {
                return Err(KeyError::new(second, format_args!("can't stand beside `{key}`")));
            }
        }
        check_list("files", &self.files, limits::FILES_MAX, check_files)
    }

    fn check_command(&self) -> Check {
        if let Some(script) = &self.run {
            if !self.command.is_empty() {
                return Err(KeyError::new("run", "can't stand beside `command`: choose one"));
            }
            check_bytes("run", script, limits::ARG_BYTES_MAX)?;
            if script.trim().is_empty() {
                return Err(KeyError::new("run", "is empty"));
            }
        }
        if self.command.first().is_some_and(String::is_empty) {
            return Err(KeyError::new("command[0]", "is empty: it names the program"));
        }
        check_list("command", &self.command, limits::ARGS_MAX, |path, argument| {
            check_bytes(path, argument, limits::ARG_BYTES_MAX)
        })
    }

    fn check_env(&self) -> Check {
        check_len("env", self.env.0.len(), limits::ENV_MAX)?;
        for (name, value) in &self.env.0 {
            let path = join("env", name);
            check_env_name(&path, name)?;
            if let EnvValue::Set(text) = value {
                check_bytes(&path, text, limits::ENV_VALUE_BYTES_MAX)?;
            }
        }
        check_list("secrets", &self.secrets, limits::SECRETS_MAX, |path, name| {
            check_env_name(path, name)?;
            if self.env.0.contains_key(name) {
                return Err(KeyError::new(path, format_args!("`{name}` stands in `env` too")));
            }
            Ok(())
        })?;
        check_unique("secrets", self.secrets.iter())
    }

    fn check_resources(&self) -> Check {
        if let Some(Text(gpu)) = &self.resources.gpu {
            for model in &gpu.models {
                check_model(model, model).map_err(|e| KeyError::new("resources.gpu", e))?;
            }
        }
        let needs = self.needs();
        if needs.shm_bytes > needs.memory_bytes_min {
            let reason = "is more than `resources.memory`, of which it is a part";
            return Err(KeyError::new("resources.shm", reason));
        }
        if !(1..=limits::NODES_MAX).contains(&self.nodes) {
            let reason = format!("is {}, expected 1 to {}", self.nodes, limits::NODES_MAX);
            return Err(KeyError::new("nodes", reason));
        }
        let (place, operators) = (&self.place, &self.place.operators);
        for (is_set, key) in [
            (place.within_ms.is_some(), "where.within_ms"),
            (place.distinct_hosts, "where.distinct_hosts"),
        ] {
            if is_set && self.nodes == 1 {
                let reason = "is about several containers: give `nodes` as well";
                return Err(KeyError::new(key, reason));
            }
        }
        if place.within_ms.is_some_and(|ms| ms > limits::WITHIN_MS_MAX) {
            let reason = format!("is more than {} ms", limits::WITHIN_MS_MAX);
            return Err(KeyError::new("where.within_ms", reason));
        }
        check_len("where.regions", place.regions.len(), limits::LIST_MAX)?;
        check_len("where.operators.allow", operators.allow.len(), limits::LIST_MAX)?;
        check_len("where.operators.deny", operators.deny.len(), limits::LIST_MAX)?;
        if let Some(Text(both)) = operators.allow.iter().find(|id| operators.deny.contains(id)) {
            let reason = format!("{both} stands in `where.operators.deny` too");
            return Err(KeyError::new("where.operators.allow", reason));
        }
        Ok(())
    }

    fn check_limits(&self) -> Check {
        let timeouts = &self.timeouts;
        let mut spans = vec![
            ("timeouts.queue", timeouts.queue),
            ("timeouts.startup", timeouts.startup),
            ("timeouts.run", timeouts.run),
            ("timeouts.idle", timeouts.idle),
        ];
        if let Some(retry) = &self.retry {
            spans.push(("retry.for", retry.within));
            check_len("retry.on", retry.on.len(), limits::LIST_MAX)?;
            if retry.max > limits::RETRIES_MAX {
                let reason = format!("is {}, expected 0 to {}", retry.max, limits::RETRIES_MAX);
                return Err(KeyError::new("retry.max", reason));
            }
        }
        if let Some(checkpoint) = &self.checkpoint {
            spans.push(("checkpoint.every", checkpoint.every));
            spans.push(("checkpoint.on_preempt", checkpoint.on_preempt));
        }
        if let Some(health) = &self.health {
            spans.push(("health.every", health.every));
        }
        let is_zero = |span: Option<Text<super::Span>>| span.is_some_and(|s| s.0.seconds() == 0);
        spans.iter().find(|(_, span)| is_zero(*span)).map_or(Ok(()), |(path, _)| {
            Err(KeyError::new(*path, "is no time at all: leave it out for no limit"))
        })?;
        match self.price.budget {
            Some(Text(budget)) if budget.is_zero() => {
                Err(KeyError::new("price.budget", "is nothing: leave it out for no limit"))
            }
            _ => Ok(()),
        }
    }

    fn check_storage(&self) -> Check {
        check_list("volumes", &self.volumes, limits::LIST_MAX, check_volume)?;
        let paths = self.volumes.iter().map(|volume| &volume.path);
        check_unique("volumes", paths)?;
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        if let Some(script) = &checkpoint.run {
            check_bytes("checkpoint.run", script, limits::ARG_BYTES_MAX)?;
            if script.trim().is_empty() {
                return Err(KeyError::new("checkpoint.run", "is empty: leave it out"));
            }
        }
        check_inner_path("checkpoint.path", &checkpoint.path)
    }

    fn check_network(&self) -> Check {
        check_list("ports", &self.ports, limits::LIST_MAX, check_port)?;
        check_unique("ports", self.ports.iter().map(|port| port.port))?;
        if let Some(network) = &self.network {
            check_list("network.egress", &network.egress, limits::LIST_MAX, |path, target| {
                check_target(path, target)
            })?;
        }
        if let Some(health) = &self.health {
            check_text("health.http", &health.http, limits::TEXT_LEN_MAX)?;
            if !health.http.starts_with('/') {
                return Err(KeyError::new("health.http", "is a path: it begins with `/`"));
            }
            check_range("health.port", health.port.into(), 1, 65_535)?;
            check_range("health.after", health.after.unwrap_or(1).into(), 1, 1_000)?;
        }
        if let Some(model) = &self.model {
            check_text("model.name", &model.name, limits::TEXT_LEN_MAX)?;
        }
        self.scale.as_ref().map_or(Ok(()), check_scale)
    }
}

fn check_files(path: &str, files: &Files) -> Check {
    check_bytes(&join(path, "from"), &files.from, limits::PATH_LEN_MAX)?;
    if files.from.is_empty() {
        return Err(KeyError::new(join(path, "from"), "is empty: write `.` for this folder"));
    }
    check_inner_path(&join(path, "to"), &files.to)?;
    files
        .ignore
        .as_ref()
        .map_or(Ok(()), |ignore| check_text(&join(path, "ignore"), ignore, limits::PATH_LEN_MAX))
}

fn check_volume(path: &str, volume: &Volume) -> Check {
    check_name(&join(path, "name"), &volume.name)?;
    check_inner_path(&join(path, "path"), &volume.path)
}

fn check_port(path: &str, port: &Port) -> Check {
    check_range(&join(path, "port"), port.port.into(), 1, 65_535)?;
    port.name.as_ref().map_or(Ok(()), |name| check_name(&join(path, "name"), name))
}

fn check_scale(scale: &Scale) -> Check {
    check_range("scale.max", scale.max.into(), 1, limits::NODES_MAX.into())?;
    check_range("scale.min", scale.min.into(), 0, scale.max.into())?;
    check_range("scale.warm", scale.warm.unwrap_or(0).into(), 0, scale.max.into())?;
    check_range("scale.target", scale.target.unwrap_or(1), 1, u32::MAX)
}

fn check_stream(stream: &Stream) -> Check {
    check_range("stream.fps", stream.fps.unwrap_or(60).into(), 1, 240)?;
    check_range("stream.width", stream.width.unwrap_or(16).into(), 16, 8_192)?;
    check_range("stream.height", stream.height.unwrap_or(16).into(), 16, 8_192)?;
    check_len("stream.input", stream.input.len(), limits::LIST_MAX)
}

fn check_notify(path: &str, notify: &Notify) -> Check {
    check_len(&join(path, "on"), notify.on.len(), limits::LIST_MAX)?;
    let path = join(path, "webhook");
    check_text(&path, &notify.webhook, limits::TEXT_LEN_MAX)?;
    let host = ["https://", "http://"].iter().find_map(|s| notify.webhook.strip_prefix(s));
    if host.is_none_or(str::is_empty) {
        return Err(KeyError::new(path, "is a URL: it begins with `https://` or `http://`"));
    }
    Ok(())
}

/// Checks `host:port`.
fn check_target(path: &str, target: &str) -> Check {
    check_text(path, target, limits::TEXT_LEN_MAX)?;
    let is_host = |host: &str| !host.is_empty() && !host.contains(char::is_whitespace);
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match target.rsplit_once(':') {
        Some((host, port)) if is_host(host) && is_port(port) => Ok(()),
        _ => {
            let reason = format!("`{}` is not like pypi.org:443", quote(target));
            Err(KeyError::new(path, reason))
        }
    }
}

/// Checks the length of a list and each entry with `check`, which is given the entry's path.
fn check_list<T>(path: &str, list: &[T], max: usize, check: impl Fn(&str, &T) -> Check) -> Check {
    check_len(path, list.len(), max)?;
    list.iter().enumerate().try_for_each(|(index, entry)| check(&format!("{path}[{index}]"), entry))
}

fn check_len(path: &str, len: usize, max: usize) -> Check {
    if len > max {
        return Err(KeyError::new(path, format_args!("has {len} entries, at most {max} can be")));
    }
    Ok(())
}

fn check_unique<T: Ord>(path: &str, entries: impl Iterator<Item = T>) -> Check {
    let mut seen = std::collections::BTreeSet::new();
    for (index, entry) in entries.enumerate() {
        if !seen.insert(entry) {
            return Err(KeyError::new(format!("{path}[{index}]"), "stands there twice"));
        }
    }
    Ok(())
}

fn check_range(path: &str, number: u32, min: u32, max: u32) -> Check {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(KeyError::new(path, format_args!("is {number}, expected {min} to {max}")))
}

/// Checks a text that the kernel gets: no NUL, and not too long.
fn check_bytes(path: &str, text: &str, max: usize) -> Check {
    if text.contains('\0') {
        return Err(KeyError::new(path, "has a NUL character"));
    }
    if text.len() > max {
        let len = text.len();
        return Err(KeyError::new(path, format_args!("has {len} bytes, at most {max} can be")));
    }
    Ok(())
}

/// Checks a text of one line that is not empty.
fn check_text(path: &str, text: &str, max: usize) -> Check {
    check_bytes(path, text, max)?;
    if text.trim().is_empty() {
        return Err(KeyError::new(path, "is empty"));
    }
    if text.contains(char::is_control) {
        return Err(KeyError::new(path, "has a control character"));
    }
    Ok(())
}

fn check_name(path: &str, name: &str) -> Check {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_name = (1..=limits::NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_name {
        return Ok(());
    }
    let (name, max) = (quote(name), limits::NAME_LEN_MAX);
    let rule = format!("use 1 to {max} of a-z, 0-9 and `-`, with `-` at neither end");
    Err(KeyError::new(path, format_args!("`{name}` can't be a name: {rule}")))
}

fn check_env_name(path: &str, name: &str) -> Check {
    if is_env_name(name) {
        return Ok(());
    }
    let (name, max) = (quote(name), limits::ENV_NAME_LEN_MAX);
    let rule = format!("use 1 to {max} of A-Z, a-z, 0-9 and `_`, beginning with no digit");
    Err(KeyError::new(path, format_args!("`{name}` can't name a variable: {rule}")))
}

/// Checks a path in the sandbox: absolute, and without `..`.
fn check_inner_path(path: &str, inner: &str) -> Check {
    check_text(path, inner, limits::PATH_LEN_MAX)?;
    let quoted = quote(inner);
    if !inner.starts_with('/') {
        return Err(KeyError::new(path, format_args!("`{quoted}` has to begin with `/`")));
    }
    if inner.split('/').any(|part| part == "..") {
        return Err(KeyError::new(path, format_args!("`{quoted}` must not have `..`")));
    }
    Ok(())
}
