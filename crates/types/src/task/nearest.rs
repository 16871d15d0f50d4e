//! Which known word was probably meant.

/// The longest word that is compared, in characters.
const WORD_LEN_MAX: usize = 40;

/// Words that others use or that stand in the wrong place, and ours for the same.
const SYNONYMS: [(&str, &str); 20] = [
    ("accelerators", "resources.gpu"),
    ("budget", "price.budget"),
    ("cmd", "command"),
    ("commands", "run"),
    ("count", "nodes"),
    ("cpu", "resources.cpu"),
    ("cpus", "cpu"),
    ("disk", "resources.disk"),
    ("docker", "image"),
    ("environment", "env"),
    ("gpu", "resources.gpu"),
    ("gpus", "gpu"),
    ("mem", "memory"),
    ("memory", "resources.memory"),
    ("max_price", "price.max_per_hour"),
    ("max_per_hour", "price.max_per_hour"),
    ("num_nodes", "nodes"),
    ("regions", "where.regions"),
    ("script", "run"),
    ("spot", "price.spot"),
];

/// The word of `known` that `given` was probably meant to be, if one is close.
pub(super) fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let given = given.to_lowercase();
    if given.chars().count() > WORD_LEN_MAX {
        return None;
    }
    let mut synonyms =
        SYNONYMS.iter().filter(|(theirs, _)| *theirs == given).map(|(_, ours)| *ours);
    let is_known = |ours: &&str| known.contains(&ours.split('.').next().unwrap_or_default());
    if let Some(ours) = synonyms.find(is_known) {
        return Some(ours);
    }
    let distances = known.iter().map(|word| (distance(&given, word), *word));
    let (edits, word) = distances.min()?;
    let is_close = edits <= 1 + given.chars().count() / 4 && edits < word.chars().count();
    is_close.then_some(word)
}

/// How many characters must be inserted, deleted, replaced or swapped with their neighbour to get
/// from `a` to `b`, no place being changed twice.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["gpu", "cpu", "memory", "disk", "shm"];
        for (given, expected) in [
            ("memroy", Some("memory")),
            ("Memory", Some("memory")),
            ("mem", Some("memory")),
            ("gpus", Some("gpu")),
            ("dsik", Some("disk")),
            ("memorie", Some("memory")),
            ("x", None),
            ("storage", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &known), expected, "{given}");
        }
        assert_eq!(nearest(&"g".repeat(1_000_000), &known), None);
        assert_eq!(nearest("gpu", &["run", "resources"]), Some("resources.gpu"));
        assert_eq!(nearest("a", &[]), None);
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_the_same(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
