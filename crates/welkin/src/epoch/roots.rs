//! `welkin checker status` and `proofs`: how checkers of this folder stand with the roots of epochs, and what
//! everybody may claim by them.

use std::path::{Path, PathBuf};

use welkin_node::checker::{CountedClaims, RefusedBy, RootsStatus};
use welkin_node::outside;

use crate::up::CHECKERS_MAX;
use crate::{Context, Usage, out};

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
            row["concern"] = status.reason.concern().as_str().into();
            row["meaning"] = status.reason.meaning().into();
            row["next"] = status.reason.next().into();
            Ok(row)
        });
        let rows: serde_json::Result<Vec<_>> = rows.collect();
        return out::json(&rows?);
    }
    let rows: Vec<_> = found.iter().map(|(name, status)| row(name, status)).collect();
    let heads = ["CHECKER", "EPOCH", "COUNTED", "BOOK", "SIGNED", "ROOT", "STATE"];
    let notes: String = found.iter().map(|(name, status)| notes(name, status)).collect();
    out::text(&format!("{}\n{notes}", out::table(&heads, &rows)))
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
    named.take(CHECKERS_MAX as usize).collect()
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
        status.reason.to_string(),
    ]
}

/// What the code means in this case, what indexers refuse, and what to do next.
fn notes(name: &str, status: &RootsStatus) -> String {
    let RootsStatus { reason, state, refused, .. } = status;
    let (concern, meaning) = (reason.concern().as_str(), reason.meaning());
    let mut lines = vec![format!("{name} {concern}: {meaning}")];
    if !state.is_empty() && state != meaning {
        lines.push(format!("  {state}"));
    }
    if !reason.next().is_empty() {
        lines.push(format!("  next: {}", reason.next()));
    }
    for RefusedBy { indexer, what, why, since } in refused {
        let (lasting, what_text) = (out::duration(outside::now().since(*since)), what.as_str());
        let indexer = out::short(indexer);
        lines.push(format!("{name}: {indexer} has refused its {what_text} for {lasting}: {why}"));
        lines.push(format!("  next: {}", what.next()));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(more: &serde_json::Value) -> RootsStatus {
        let mut status = json!({
            "account": format!("0x{}", "11".repeat(20)), "is_member": true, "counted": 1, "book": 1,
            "number": 2, "epoch": null, "root": null, "signed": 1, "threshold": 2,
            "state": "1 of 2 members have signed",
        });
        let more = more.as_object().unwrap().clone();
        status.as_object_mut().unwrap().extend(more);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn what_a_code_means_and_what_is_next_is_shown() {
        let quorum = status(&json!({ "reason": "quorum" }));
        assert_eq!(
            notes("checker-1", &quorum),
            "checker-1 waits: it has signed; too few members have signed the same root\n  1 of 2 \
             members have signed\n"
        );
        let why = "the report is for another time";
        let indexer = format!("nod_{}", "22".repeat(32));
        let refused = json!([{ "indexer": indexer, "what": "sheet", "why": why, "since": 0 }]);
        let text = notes("checker-1", &status(&json!({ "reason": "stuck", "refused": refused })));
        assert!(text.starts_with("checker-1 needs a look: a transaction"), "{text}");
        assert!(text.contains("\n  next: look at the chain's node"), "{text}");
        assert!(text.contains("has refused its sheets for"), "{text}");
        assert!(text.contains(why) && text.contains("\n  next: compare this machine's clock"));
    }

    /// A file of before there were codes, or of a release that has others.
    #[test]
    fn what_another_release_has_written_is_shown() {
        for more in [json!({ "is_wrong": true }), json!({ "reason": "later", "also": 1 })] {
            let text = notes("checker-1", &status(&more));
            assert!(text.contains("1 of 2 members have signed"), "{text}");
            assert!(text.contains("next: run the checker and this command"), "{text}");
        }
    }
}
