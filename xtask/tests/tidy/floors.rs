//! Which crate may see which, and what the pure ones may not see at all.

use std::collections::BTreeMap;

use super::tree::{Package, none, packages, root, toml_file};

/// The floors, lowest first. A crate uses only crates of lower floors.
const FLOORS: [&[&str]; 5] = [
    &["welkin-types", "welkin-proto"],
    &["welkin-match", "welkin-lease", "welkin-check", "welkin-ledger"],
    &[
        "welkin-net",
        "welkin-runtime",
        "welkin-store",
        "welkin-directory",
        "welkin-chain",
        "welkin-evm",
        "welkin-kernels",
        "welkin-pages",
        "welkin-media",
        "welkin-api",
    ],
    &["welkin-node"],
    &["welkin"],
];

/// Edges within a floor, each with its reason: messages are made of the nouns.
const WITHIN_A_FLOOR: [(&str, &str); 1] = [("welkin-proto", "welkin-types")];

/// What measures allocates as the program does.
const MEASURED_WITH: (&str, &str) = ("welkin-match", "welkin-pages");

/// The simulated world: stands beside the floors, sees the pure ones, is seen by tests only.
const SIM: &str = "welkin-sim";

/// Demo jobs: they see nothing of ours; the binary on [`APP_USER_FLOOR`] may use them.
const APPS: [&str; 1] = ["welkin-trace"];
const APP_USER_FLOOR: usize = 4;

/// Chores: see nothing of ours and are seen by nobody.
const CHORES: [&str; 1] = ["xtask"];

/// The lowest floor that may touch the world outside.
const IMPURE_FLOOR: usize = 2;

/// Crates that bring sockets, disks, clocks, threads, processes or randomness.
const IMPURE: &[&str] = &[
    "alloy",
    "ash",
    "async-std",
    "axum",
    "chrono",
    "crossbeam",
    "fastrand",
    "futures",
    "getrandom",
    "hyper",
    "iroh",
    "iroh-relay",
    "libc",
    "libcontainer",
    "mio",
    "nix",
    "noq-udp",
    "nvml-wrapper",
    "polling",
    "quinn",
    "rand",
    "rayon",
    "redb",
    "reqwest",
    "revm",
    "rusqlite",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "sqlx",
    "tempfile",
    "tokio",
    "tokio-postgres",
    "tokio-util",
    "tracing",
    "tracing-subscriber",
    "ureq",
    "uuid",
    "wgpu",
];

/// What the `clippy.toml` of a pure crate must ban, by list.
const WALLS: [(&str, &[&str]); 2] = [
    (
        "disallowed-methods",
        &[
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::env::var",
            "std::fs::read",
            "std::fs::write",
            "std::fs::File::open",
            "std::thread::spawn",
            "std::process::exit",
        ],
    ),
    (
        "disallowed-types",
        &[
            "std::collections::HashMap",
            "std::collections::HashSet",
            "std::sync::Mutex",
            "std::net::TcpStream",
        ],
    ),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 7] = ["common", "shared", "core", "util", "utils", "helpers", "models"];

/// Where a package stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Floor(usize),
    Sim,
    App,
    Chore,
}

fn places() -> BTreeMap<&'static str, Place> {
    let mut places = BTreeMap::new();
    for (floor, names) in FLOORS.iter().enumerate() {
        places.extend(names.iter().map(|name| (*name, Place::Floor(floor))));
    }
    places.insert(SIM, Place::Sim);
    places.extend(APPS.map(|name| (name, Place::App)));
    places.extend(CHORES.map(|name| (name, Place::Chore)));
    places
}

/// Whether a package of `own` may use one of `theirs`.
fn may_use(own: Place, theirs: Place) -> bool {
    match (own, theirs) {
        (Place::Floor(own), Place::Floor(theirs)) => theirs < own,
        (Place::Floor(own), Place::App) => own == APP_USER_FLOOR,
        (Place::Sim, Place::Floor(theirs)) => theirs < IMPURE_FLOOR,
        _ => false,
    }
}

const fn is_pure(place: Place) -> bool {
    match place {
        Place::Floor(floor) => floor < IMPURE_FLOOR,
        Place::Sim => true,
        Place::App | Place::Chore => false,
    }
}

fn told(place: Place) -> String {
    match place {
        Place::Floor(floor) => format!("floor {floor}"),
        Place::Sim => "the simulation".to_owned(),
        Place::App => "an app".to_owned(),
        Place::Chore => "chores".to_owned(),
    }
}

/// What is wrong with what one package uses.
fn faults_of(package: &Package, places: &BTreeMap<&str, Place>) -> Vec<String> {
    let name = package.name.as_str();
    let Some(own) = places.get(name).copied() else {
        return vec![format!("{name} is on no floor: add it to FLOORS in xtask/tests/tidy")];
    };
    let mut faults = Vec::new();
    for table in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let is_test = table == "dev-dependencies";
        for used in package.uses(table) {
            let is_named = WITHIN_A_FLOOR.contains(&(name, used.as_str()));
            match places.get(used.as_str()).copied() {
                _ if is_named => (),
                _ if is_test && MEASURED_WITH == (name, used.as_str()) => (),
                Some(Place::Sim) if is_test => (),
                Some(theirs) if !may_use(own, theirs) => faults.push(format!(
                    "{name} ({}) must not use {used} ({}): move what both need to a lower floor, \
                     or join the two on a higher one",
                    told(own),
                    told(theirs)
                )),
                None if !is_test && is_pure(own) && IMPURE.contains(&used.as_str()) => {
                    faults.push(format!(
                        "{name} is pure and must not use {used}: take time, randomness and bytes \
                         as arguments and do the rest on floor {IMPURE_FLOOR}"
                    ));
                }
                _ => (),
            }
        }
    }
    faults
}

#[test]
fn floors_hold() {
    let places = places();
    let packages = packages();
    assert!(packages.len() > 10, "the packages of the workspace were not found");
    let faults: Vec<_> = packages.iter().flat_map(|package| faults_of(package, &places)).collect();
    none(&faults);
}

#[test]
fn the_floor_check_finds_wrong_edges() {
    let edge = |name: &str, table: &str, used: &str| {
        let manifest = format!("[{table}]\n{used} = \"1\"\n").parse().unwrap();
        faults_of(&Package { dir: root(), name: name.to_owned(), manifest }, &places()).len()
    };
    for (name, used) in [
        ("welkin-types", "welkin-proto"),
        ("welkin-match", "welkin-ledger"),
        ("welkin-match", "welkin-pages"),
        ("welkin-net", "welkin-store"),
        ("welkin-net", "welkin-node"),
        ("welkin-node", "welkin-trace"),
        ("welkin-node", "welkin-sim"),
        ("welkin-sim", "welkin-net"),
        ("welkin-trace", "welkin-types"),
        ("xtask", "welkin-types"),
        ("welkin-types", "tokio"),
        ("welkin-lease", "getrandom"),
        ("welkin-sim", "rand"),
        ("welkin-unknown", "serde"),
    ] {
        assert_eq!(edge(name, "dependencies", used), 1, "{name} -> {used}");
        assert_eq!(edge(name, "target.'cfg(unix)'.dependencies", used), 1, "{name} -> {used}");
    }
    for (name, used) in [
        ("welkin-proto", "welkin-types"),
        ("welkin-match", "welkin-proto"),
        ("welkin-sim", "welkin-match"),
        ("welkin-net", "tokio"),
        ("welkin", "welkin-trace"),
    ] {
        assert_eq!(edge(name, "dependencies", used), 0, "{name} -> {used}");
    }
    assert_eq!(edge("welkin-node", "dev-dependencies", "welkin-sim"), 0);
    assert_eq!(edge("welkin-match", "dev-dependencies", "welkin-pages"), 0);
}

#[test]
fn pure_crates_have_walls() {
    let places = places();
    let mut faults = Vec::new();
    for package in packages() {
        let floor = places.get(package.name.as_str());
        let has_walls = matches!(floor, Some(Place::Floor(floor)) if *floor < IMPURE_FLOOR);
        if !has_walls {
            continue;
        }
        let path = package.dir.join("clippy.toml");
        if !path.exists() {
            faults.push(format!(
                "{} has no clippy.toml: copy crates/types/clippy.toml (clippy reads the nearest \
                 one only, so the walls must stand there)",
                package.name
            ));
            continue;
        }
        let clippy = toml_file(&path);
        for (list, banned) in WALLS {
            let entries = clippy.get(list).and_then(toml::Value::as_array);
            let entries: Vec<_> = entries
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.get("path").and_then(toml::Value::as_str))
                .collect();
            for path in banned.iter().filter(|path| !entries.contains(path)) {
                faults.push(format!(
                    "{}: clippy.toml does not ban {path}: add it to `{list}` with its reason",
                    package.name
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn packages_say_what_they_are() {
    let mut faults = Vec::new();
    for package in packages() {
        let own = &package.manifest["package"];
        let mut fault = |text: &str| faults.push(format!("{}: {text}", package.manifest_name()));
        let description = own.get("description").and_then(toml::Value::as_str);
        if description.is_none_or(|text| text.trim().is_empty()) {
            fault("no `description`: say in one sentence what the crate is");
        }
        if inherits(own.get("license")) != Some(true) {
            fault("no licence: write `license.workspace = true`");
        }
        if inherits(own.get("publish")) != Some(true) {
            fault("may be published by mistake: write `publish.workspace = true`");
        }
        if inherits(package.manifest.get("lints")) != Some(true) {
            fault("no lints: write `[lints]` with `workspace = true`");
        }
        let folder = package.dir.file_name().and_then(|name| name.to_str()).unwrap();
        let name = package.name.strip_prefix("welkin-").unwrap_or(&package.name);
        for word in [folder, name] {
            if EMPTY_NAMES.contains(&word) {
                fault(&format!("`{word}` says nothing: name the crate after what it holds"));
            }
        }
    }
    none(&faults);
}

fn inherits(value: Option<&toml::Value>) -> Option<bool> {
    value?.get("workspace")?.as_bool()
}
