//! scratch
fn main() {
    let n = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(20_000);
    let minutes = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(60);
    let t = std::time::Instant::now();
    let day = welkin_sim::day::Day::new(welkin_sim::day::Config {
        containers: n,
        minutes,
        ..welkin_sim::day::Config::DAY
    })
    .unwrap();
    println!("built {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let r = day.run().unwrap();
    println!("ran {:?}", t.elapsed());
    println!("{:?} util {} hopeless {}", r.counts, r.utilisation_percent, r.hopeless_percent);
    for p in &r.purposes {
        println!(
            "{} n {} p50 {} p90 {} p99 {}",
            p.name,
            p.waits.count(),
            p.waits.permille(500),
            p.waits.permille(900),
            p.waits.permille(990)
        );
    }
    println!(
        "warm {} {} cold {} {}",
        r.warm_starts.permille(500),
        r.warm_starts.permille(990),
        r.cold_starts.permille(500),
        r.cold_starts.permille(990)
    );
    println!("{:?} {:?} {:?}", r.hosts_of_a_class, r.hosts_alike, r.buyers);
    for i in &r.indexers {
        println!("{i:?}");
    }
    println!(
        "first {} honest {} punished {} bytes {} digest {:x}",
        r.first_try_failed_percent(),
        r.honest_failed_percent(),
        r.punished_percent,
        r.index_bytes,
        r.digest
    );
    for s in r.samples.iter().step_by(r.samples.len() / 24 + 1) {
        println!("{s:?}");
    }
}
