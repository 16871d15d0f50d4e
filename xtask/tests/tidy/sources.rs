//! The form of source files: length, first line, and where modules stand.

use std::path::Path;

use super::tree::{files, none, root, shown, text};

/// The most lines of a source file, items that are only for tests not counted.
const FILE_LINES_MAX: usize = 800;

/// Folders that hold sources of ours.
const FOLDERS: [&str; 4] = ["crates", "apps", "xtask", "fuzz"];

/// Whether a file was written by a program.
fn is_generated(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "generated")
}

/// Whether a file holds tests only.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| stem == "tests")
}

/// The lines of a file without its items that are only for tests, as rustfmt lays them out: such an item
/// ends with the first line that closes it at the margin, or where it has no body with its semicolon.
fn code_lines(content: &str) -> usize {
    let mut lines = content.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            count += 1;
            continue;
        }
        let is_last = |line: &&str| {
            line.starts_with('}')
                || (!line.starts_with([' ', '#', '/']) && line.ends_with([';', '}']))
        };
        lines.find(is_last);
    }
    count
}

#[test]
fn only_what_is_for_tests_is_not_counted() {
    let file = "//! A file.\n#[cfg(test)]\nmod tests;\nmod code;\n\nfn one() {}\n\n#[cfg(test)]\n\
                #[expect(unused)]\nmod more {\n    const N: u8 = 1;\n    fn two() {\n    }\n}\nfn three() {\n}\n";
    assert_eq!(code_lines(file), 7);
    assert_eq!(code_lines("fn one() {}\n#[cfg(test)]\nmod tests {\n}\n"), 1);
}

#[test]
fn files_are_short_and_introduced() {
    let mut faults = Vec::new();
    let mut count = 0;
    for path in FOLDERS.iter().flat_map(|folder| files(&root().join(folder), "rs")) {
        count += 1;
        if is_generated(&path) {
            continue;
        }
        let content = text(&path);
        let lines = code_lines(&content);
        if lines > FILE_LINES_MAX && !is_test(&path) {
            faults.push(format!(
                "{}: {lines} lines, at most {FILE_LINES_MAX}: find the noun that wants a file of \
                 its own",
                shown(&path)
            ));
        }
        let first = content.lines().next().unwrap_or_default();
        if first.strip_prefix("//! ").is_none_or(|text| text.trim().is_empty()) {
            faults.push(format!(
                "{}: does not begin with `//!`: say in one sentence what the file is",
                shown(&path)
            ));
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") {
            let module = path.parent().and_then(Path::file_name).unwrap().display();
            faults.push(format!("{}: name it `{module}.rs`, beside its folder", shown(&path)));
        }
    }
    assert!(count > 100, "the source files were not found");
    none(&faults);
}

#[test]
fn tests_are_not_put_aside() {
    // Written in two parts, so that this file does not find itself.
    let word = concat!("#[ign", "ore");
    let mut faults = Vec::new();
    for path in FOLDERS.iter().flat_map(|folder| files(&root().join(folder), "rs")) {
        for (number, line) in text(&path).lines().enumerate() {
            // One kind is not put aside: what a test starts in a process of its own.
            let is_started = line.contains("= \"run by ") || line.contains("= \"started by ");
            if line.trim_start().starts_with(word) && !is_started {
                faults.push(format!(
                    "{}:{}: an ignored test proves nothing: repair it, remove it, or give slow \
                     ones a profile in .config/nextest.toml",
                    shown(&path),
                    number + 1
                ));
            }
        }
    }
    none(&faults);
}
