//! What everything that we build on is licensed under, and where it comes from.
//!
//! The rules stand in `deny.toml`, in the form of `cargo deny`; what is checked here are those that
//! need no network: allowed licences, banned crates, no source but crates.io.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::tree::{none, packages, root, toml_file};

/// The one source of crates.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn licences_and_sources_are_allowed() {
    let deny = toml_file(&root().join("deny.toml"));
    let allowed = strings(&deny["licenses"]["allow"]);
    let banned: BTreeMap<String, String> = tables(&deny["bans"]["deny"])
        .map(|entry| (string(&entry["name"]), string(&entry["reason"])))
        .collect();
    assert!(banned.contains_key("openssl-sys") && banned.contains_key("native-tls"));
    let clarified: BTreeMap<String, String> = tables(&deny["licenses"]["clarify"])
        .map(|entry| (string(&entry["crate"]), string(&entry["expression"])))
        .collect();
    let mut faults = Vec::new();
    let found = dependencies();
    assert!(found.len() > 50, "`cargo metadata` names only {} dependencies", found.len());
    for package in &found {
        let name = package["name"].as_str().unwrap();
        let version = package["version"].as_str().unwrap();
        if package["source"].as_str() != Some(CRATES_IO) {
            faults.push(format!(
                "{name} {version} comes from {}: use a version of crates.io",
                package["source"]
            ));
        }
        if let Some(reason) = banned.get(name) {
            faults.push(format!(
                "{name} {version} is banned ({reason}): `cargo tree -i {name}` shows who brings it"
            ));
        }
        let stated = package["license"].as_str().or(clarified.get(name).map(String::as_str));
        match stated {
            Some(stated) if is_allowed(stated, &allowed) => (),
            Some(stated) => faults.push(format!(
                "{name} {version} is licensed under `{stated}`, which deny.toml does not allow: \
                 use another crate, or allow it there after reading the licence"
            )),
            None => faults.push(format!(
                "{name} {version} states no licence: read its files and add a \
                 `[[licenses.clarify]]` to deny.toml, or use another crate"
            )),
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_patched() {
    let workspace = toml_file(&root().join("Cargo.toml"));
    let mut faults = Vec::new();
    for key in ["patch", "replace"] {
        if workspace.contains_key(key) {
            faults.push(format!("Cargo.toml: `[{key}]` is not used here: take a released version"));
        }
    }
    let own = packages().into_iter().map(|package| (package.manifest_name(), package.manifest));
    let shared = workspace.get("workspace").and_then(toml::Value::as_table).cloned();
    for (file, manifest) in own.chain(shared.map(|table| ("Cargo.toml".to_owned(), table))) {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let uses = manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten();
            for (name, _) in uses.filter(|(_, value)| value.get("git").is_some()) {
                faults.push(format!("{file}: {name} comes from git: use a version of crates.io"));
            }
        }
    }
    none(&faults);
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"].map(str::to_owned);
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "MPL-2.0 OR MIT",
        "(MIT OR GPL-3.0) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-2.0 OR (MIT AND ISC)",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT WITH X", "(MIT", "MIT ISC", "MIT OR", "AND"]
    {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

/// The packages that a build for this machine uses, those of the workspace left out.
fn dependencies() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version=1", "--locked", "--all-features"])
        .arg(format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`cargo metadata` failed: {errors}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let members = metadata["workspace_members"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().filter(|package| !members.contains(&package["id"])).cloned().collect()
}

/// Whether a licence expression (SPDX, and the older `A/B`) can be met with allowed licences alone.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Expression { words: &words, allowed };
    parser.any() == Some(true) && parser.words.is_empty()
}

struct Expression<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Expression<'_> {
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.first() == Some(&word);
        if is_next {
            self.words = &self.words[1..];
        }
        is_next
    }

    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.any()?;
            return self.take(")").then_some(met);
        }
        let (first, rest) = self.words.split_first()?;
        if ["AND", "OR", "WITH", ")"].contains(first) {
            return None;
        }
        self.words = rest;
        let mut licence = (*first).to_owned();
        if self.take("WITH") {
            let (exception, rest) = self.words.split_first()?;
            self.words = rest;
            licence = format!("{licence} WITH {exception}");
        }
        Some(self.allowed.contains(&licence))
    }
}

fn strings(value: &toml::Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(string).collect()
}

fn string(value: &toml::Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn tables(value: &toml::Value) -> impl Iterator<Item = &toml::Value> {
    value.as_array().unwrap().iter()
}
