//! How much a search looks at: counted, so that a slower search is noticed on any machine.

use super::*;
use crate::synth::{Demand, Fleet};

#[test]
fn a_search_looks_at_little() {
    let mut index = Index::default();
    let count = 50_000;
    for row in Fleet::new(7).take(count) {
        index.insert(&row).unwrap();
    }
    let (mut rows, mut lists, mut found) = (0, 0, 0);
    let searches = 1_000;
    for wanted in Demand::new(11).take(searches) {
        let search = Search { count: 8, width: 64, ..wanted.search() };
        let choice = index.find(&search).unwrap();
        rows += choice.effort.rows;
        lists += choice.effort.lists;
        found += usize::from(!choice.chosen.is_empty());
    }
    let searches = searches as u64;
    assert!((30..45).contains(&(rows / searches)), "{} rows a search", rows / searches);
    assert!((15..25).contains(&(lists / searches)), "{} lists a search", lists / searches);
    assert!(found > 950, "{found} found something");
    // Lists for every kind and place weigh more on a small fleet.
    let bytes = index.bytes() / count;
    assert!(bytes < 110, "{bytes} bytes a container");
}
