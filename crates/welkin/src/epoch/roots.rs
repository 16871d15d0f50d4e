//! `welkin checker status` and `proofs`: how checkers of this folder stand with the roots of epochs, and what
//! everybody may claim by them.

use std::path::{Path, PathBuf};

use welkin_node::checker::{CountedClaims, RootsStatus};

use crate::{Context, Usage, out};

/// The most checkers that are shown.
const CHECKERS_MAX: usize = 64;

/// `welkin checker status`
pub(crate) fn roots(context: &Context) -> anyhow::Result<()> {
    let mut found = found(context);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    if found.is_empty() {
        let text = format!("no checker in {} says how roots stand", context.dir.display());
        let hint = "it does soon after its start, where `checker.roots` is on and `checker.cosign_mib_max` is not 0; --dir names the folder";
        return Err(Usage::new(text, hint).into());
    }
    if context.is_json {
        let rows = found.iter().map(|(name, status)| {
            let mut row = serde_json::to_value(status)?;
            row["checker"] = name.as_str().into();
            Ok(row)
        });
        let rows: serde_json::Result<Vec<_>> = rows.collect();
        return out::json(&rows?);
    }
    let rows: Vec<_> = found.iter().map(|(name, status)| row(name, status)).collect();
    let heads = ["CHECKER", "EPOCH", "COUNTED", "BOOK", "SIGNED", "ROOT", "STATE"];
    out::text(&out::table(&heads, &rows))
}

/// `welkin checker proofs`
pub(crate) fn counted_proofs(context: &Context, file: &Path) -> anyhow::Result<()> {
    let mut newest: Option<CountedClaims> = None;
    for (_, folder) in folders(context) {
        let counted = CountedClaims::read(&folder)?;
        newest = newest.into_iter().chain(counted).max_by_key(|counted| counted.number);
    }
    let Some(CountedClaims { number, root, claims }) = newest else {
        let text = format!("no epoch counts in a book in {}", context.dir.display());
        return Err(Usage::new(text, "`welkin checker status` shows what it waits for").into());
    };
    anyhow::ensure!(root == claims.root(), "the book of epoch {number} does not have its root");
    super::write_json(file, &super::explain::proofs_of(&claims, number))?;
    if !context.is_quiet {
        out::note(&format!("the proofs of epoch {number}, with the root {root}"));
    }
    Ok(())
}

/// The checkers that say how they stand.
fn found(context: &Context) -> Vec<(String, RootsStatus)> {
    let said = |(name, folder): (_, PathBuf)| Some((name, RootsStatus::read(&folder)?));
    folders(context).into_iter().filter_map(said).collect()
}

/// Where checkers of the network's folder have their books.
fn folders(context: &Context) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(&context.dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let folder = entry.path().join("roots");
        (name.starts_with("checker") && folder.is_dir()).then_some((name, folder))
    });
    named.take(CHECKERS_MAX).collect()
}

fn row(name: &str, status: &RootsStatus) -> Vec<String> {
    let root = status.root.map_or_else(|| "-".to_owned(), |root| root.to_string());
    vec![
        name.to_owned(),
        status.number.to_string(),
        status.counted.to_string(),
        status.book.to_string(),
        format!("{} of {}", status.signed, status.threshold),
        root,
        if status.is_wrong { format!("wrong: {}", status.state) } else { status.state.clone() },
    ]
}
