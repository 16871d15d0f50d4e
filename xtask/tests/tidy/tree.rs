//! Where things are: the root, the manifests, the files, and how a list of faults is told.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A package of this workspace.
pub(crate) struct Package {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// Its manifest.
    pub(crate) manifest: toml::Table,
}

impl Package {
    /// The manifest as it is named in messages.
    pub(crate) fn manifest_name(&self) -> String {
        shown(&self.dir.join("Cargo.toml"))
    }

    /// The packages in a table of dependencies, those of single targets included. Renamed ones are
    /// listed by the name of the package.
    pub(crate) fn uses(&self, table: &str) -> Vec<String> {
        let mut found = names_of(self.manifest.get(table));
        let targets = self.manifest.get("target").and_then(toml::Value::as_table);
        for target in targets.into_iter().flat_map(toml::Table::values) {
            found.extend(names_of(target.get(table)));
        }
        found
    }
}

fn names_of(table: Option<&toml::Value>) -> Vec<String> {
    let uses = table.and_then(toml::Value::as_table).into_iter().flatten();
    uses.map(|(key, value)| {
        let package = value.get("package").and_then(toml::Value::as_str);
        package.unwrap_or(key).to_owned()
    })
    .collect()
}

/// Every package of the workspace, sorted by folder.
pub(crate) fn packages() -> Vec<Package> {
    let mut dirs = vec![root().join("xtask")];
    for parent in ["crates", "apps"] {
        let entries = fs::read_dir(root().join(parent)).unwrap();
        dirs.extend(entries.map(|entry| entry.unwrap().path()));
    }
    dirs.sort();
    let with_manifest = dirs.into_iter().filter(|dir| dir.join("Cargo.toml").exists());
    with_manifest
        .map(|dir| {
            let manifest = toml_file(&dir.join("Cargo.toml"));
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            Package { dir, name, manifest }
        })
        .collect()
}

/// Reads a file in TOML.
pub(crate) fn toml_file(path: &Path) -> toml::Table {
    text(path).parse().unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

/// Reads a file.
pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

/// All files below a folder whose names end so, sorted. Build outputs are left out.
pub(crate) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    const SKIPPED: [&str; 4] = ["target", ".git", "corpus", "artifacts"];
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let is_skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|s| name == *s));
        if path.is_dir() && !is_skipped {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A path as it is named in messages: from the root.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Fails with all faults at once.
pub(crate) fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
