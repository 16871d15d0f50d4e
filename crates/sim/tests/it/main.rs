//! Many small worlds. A broken law is printed with the command that reproduces it.

#![expect(clippy::panic, clippy::print_stdout, reason = "this is a test")]

mod adversaries;
mod day;

use welkin_sim::{Stats, Violation, World};

const SEEDS: u64 = 50;
const STEPS: u64 = 2_000;

fn run(seed: u64) -> Result<Stats, Violation> {
    let mut world = World::new(seed)?;
    for _ in 0..STEPS {
        world.step()?;
    }
    world.finish()?;
    Ok(world.stats())
}

/// Runs every fifth seed from `first`, or only the one that is asked for.
fn run_share(first: u64) {
    let asked = std::env::var("WELKIN_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = match asked {
        Some(seed) => vec![seed],
        None => (first..SEEDS).step_by(5).collect(),
    };
    for seed in seeds {
        match run(seed) {
            Err(violation) => panic!(
                "{violation}\nreproduce: WELKIN_SIM_SEED={seed} cargo nextest run -p welkin-sim"
            ),
            Ok(stats) => {
                println!("seed {seed}: {stats:?}");
                let is_lively = asked.is_some() || (stats.accepted > 10 && stats.closed > 10);
                assert!(is_lively, "seed {seed} is a dull world: {stats:?}");
            }
        }
    }
}

#[test]
fn worlds_keep_the_laws_0() {
    run_share(0);
}

#[test]
fn worlds_keep_the_laws_1() {
    run_share(1);
}

#[test]
fn worlds_keep_the_laws_2() {
    run_share(2);
}

#[test]
fn worlds_keep_the_laws_3() {
    run_share(3);
}

#[test]
fn worlds_keep_the_laws_4() {
    run_share(4);
}

/// Together, the worlds have seen everything that can happen.
#[test]
fn a_seed_is_a_world_and_many_see_everything() {
    assert_eq!(run(7), run(7));
    let all = [1_000, 1_001, 1_002, 1_003].map(|seed| match run(seed) {
        Ok(stats) => stats,
        Err(violation) => panic!("{violation}"),
    });
    let sum = |of: fn(&Stats) -> u64| all.iter().map(of).sum::<u64>();
    for (name, count) in [
        ("matched", sum(|s| s.matched)),
        ("why_not", sum(|s| s.why_not)),
        ("accepted", sum(|s| s.accepted)),
        ("busy", sum(|s| s.busy)),
        ("unfunded", sum(|s| s.unfunded)),
        ("redeemed", sum(|s| s.redeemed)),
        ("closed", sum(|s| s.closed)),
        ("uncovered", sum(|s| s.uncovered)),
        ("released", sum(|s| s.released)),
        ("attacks", sum(|s| s.attacks)),
        ("lost", sum(|s| s.lost)),
        ("vanished", sum(|s| s.vanished)),
        ("reports", sum(|s| s.reports)),
    ] {
        assert!(count > 0, "{name} never happened: {all:?}");
    }
}
