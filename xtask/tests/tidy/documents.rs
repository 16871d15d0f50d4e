//! The documents: that they are there, are short where they must be, and promise only what exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tree::{files, none, root, shown, text};

/// What the root of the repository holds.
const REQUIRED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "SPECIFICATION.md",
    "GLOSSARY.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// The most lines of the first page that a newcomer reads.
const README_LINES_MAX: usize = 120;

#[test]
fn documents_are_there() {
    let missing = REQUIRED.iter().filter(|name| !root().join(name).exists());
    none(&missing.map(|name| format!("{name} is missing: write it")).collect::<Vec<_>>());
    let lines = text(&root().join("README.md")).lines().count();
    assert!(
        lines <= README_LINES_MAX,
        "README.md has {lines} lines, at most {README_LINES_MAX}: move the rest to docs/"
    );
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for page in pages() {
        let folder = page.parent().unwrap();
        for link in links(&text(&page)) {
            let path = link.split('#').next().unwrap_or_default();
            let is_outside = link.contains("://") || link.starts_with("mailto:");
            if !is_outside && !path.is_empty() && !folder.join(path).exists() {
                faults.push(format!("{}: `{link}` leads nowhere: correct it", shown(&page)));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_figure_can_be_measured() {
    let known = benches();
    assert!(!known.is_empty(), "bench/run names no bench");
    let page = root().join("docs/benchmarks.md");
    let named = bench_ids(&text(&page));
    let mut faults = Vec::new();
    for id in named.difference(&known) {
        faults.push(format!("docs/benchmarks.md: bench/run has no `{id}`: add it there"));
    }
    for id in known.difference(&named) {
        faults.push(format!("docs/benchmarks.md: does not say what `make bench ID={id}` measures"));
    }
    for page in pages() {
        for id in bench_ids(&text(&page)).difference(&known) {
            faults.push(format!("{}: bench/run has no `{id}`: correct it", shown(&page)));
        }
    }
    none(&faults);
}

#[test]
fn every_promise_names_its_proof() {
    let tests = functions();
    let known = benches();
    let page = text(&root().join("SPECIFICATION.md"));
    let mut faults = Vec::new();
    let mut numbers = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| P")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, proof] = cells.as_slice() else {
            faults.push(format!("{row}: a row is `| P<number> | promise | proof |`"));
            continue;
        };
        let is_new = number[1..].parse().is_ok_and(|number: u32| numbers.insert(number));
        if !is_new {
            faults.push(format!("{number}: not a number, or given twice"));
        }
        let names = in_backticks(proof);
        if names.is_empty() && *proof != "pending" {
            faults.push(format!("{number}: name a test in backticks, or write `pending` bare"));
        }
        for name in names {
            let exists = match name.strip_prefix("make bench ID=") {
                Some(id) => known.contains(id),
                None => tests.contains(name),
            };
            if !exists {
                faults.push(format!("{number}: there is no test or bench `{name}`: correct it"));
            }
        }
    }
    assert!(!numbers.is_empty(), "SPECIFICATION.md has no rows `| P1 | … | … |`");
    for number in (1..).take(numbers.len()).filter(|number| !numbers.contains(number)) {
        faults.push(format!("P{number} is missing: promises are numbered without gaps"));
    }
    none(&faults);
}

#[test]
fn links_are_found() {
    let page = "[a](b.md) ![c](d/e.png#x) `[f](g)` <https://h>\n```text\n[i](j)\n```\n[k](l \"m\")";
    assert_eq!(links(page), ["b.md", "d/e.png#x", "l"]);
    assert_eq!(bench_ids("`make bench ID=a-1`, make bench ID=<id>"), ["a-1".to_owned()].into());
}

/// The pages whose links and figures are checked.
fn pages() -> Vec<PathBuf> {
    let top = root();
    let mut pages: Vec<_> = std::fs::read_dir(&top)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    for folder in ["docs", "apps", "fuzz"] {
        pages.extend(files(&top.join(folder), "md"));
    }
    // Not the whole folder: what is installed there has pages of its own.
    pages.extend(["README.md", "SLITHER.md"].map(|name| top.join("contracts").join(name)));
    pages
}

/// The targets of the links of a page; code is left out.
fn links(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        // Every second part between backticks is code.
        for prose in line.split('`').step_by(2) {
            for rest in prose.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                found.extend(target.split_whitespace().next());
            }
        }
    }
    found
}

/// The parts of a text between backticks.
fn in_backticks(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Every `make bench ID=…` that a page names.
fn bench_ids(page: &str) -> BTreeSet<String> {
    let is_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    page.split("make bench ID=")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| is_id(*c)).collect::<String>())
        .filter(|id| !id.is_empty())
        .collect()
}

/// The benches that `bench/run` has: each is declared as `@bench("id")`.
fn benches() -> BTreeSet<String> {
    let script = text(&root().join("bench/run"));
    let declared = script.split("\n@bench(\"").skip(1);
    declared.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The names of all functions in the tree, where tests are looked for.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let folders = ["crates", "apps", "contracts/test", "xtask", "tests"];
    for (extension, keyword) in [("rs", "fn "), ("py", "def "), ("sol", "function ")] {
        for path in folders.iter().flat_map(|folder| files(&root().join(folder), extension)) {
            names.extend(declared(&path, keyword));
        }
    }
    names
}

fn declared(path: &Path, keyword: &str) -> Vec<String> {
    let name_of = |line: &str| {
        let rest = line.split(keyword).nth(1)?;
        let name = rest.split(['(', '<']).next()?;
        Some(name.trim().to_owned())
    };
    text(path).lines().filter_map(name_of).collect()
}
