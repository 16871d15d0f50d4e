//! Measures how long a sandbox takes: to create, and from `start` to the first byte of output.
//!
//! Needs root. Prints milliseconds over 100 rounds: `cargo bench -p welkin-runtime --bench warm`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result is what it prints")]

use std::error::Error;
use std::io::Read;
use std::time::{Duration, Instant};

use welkin_runtime::{
    Command, Image, Limits, Runtime, RuntimeConfig, SandboxSpec, StartOptions, Stdio,
};

const ROUNDS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Box<dyn Error>> {
    let name = format!("bench-{}", std::process::id());
    let mut config = RuntimeConfig::new([env!("CARGO_BIN_EXE_welkin-sandboxd")], &name);
    config.orphan_grace = Duration::ZERO;
    let runtime = Runtime::connect(&config).await?;
    let begin = Instant::now();
    let tier = runtime.probe().await?.tier;
    println!("probe: {tier:?} in {} ms", begin.elapsed().as_millis());
    let (mut creates, mut starts, mut destroys) = (Vec::new(), Vec::new(), Vec::new());
    let mut idle_bytes = 0;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let spec = SandboxSpec::new(Image::HostDirs, Limits::default());
        let id = runtime.prepare(spec).await?.id;
        creates.push(begin.elapsed());
        idle_bytes = runtime.stats(id).await?.memory_bytes;

        let (mut reader, writer) = std::io::pipe()?;
        let null = std::fs::File::open("/dev/null")?;
        let stdio =
            Stdio { stdin: null.try_clone()?.into(), stdout: writer.into(), stderr: null.into() };
        let begin = Instant::now();
        let first = tokio::task::spawn_blocking(move || {
            let mut byte = [0];
            let _ = reader.read(&mut byte);
            Instant::now()
        });
        runtime.start(id, Command::new(["/bin/echo", "x"]), StartOptions::new(stdio)).await?;
        starts.push(first.await?.duration_since(begin));
        runtime.wait(id).await?;

        let begin = Instant::now();
        runtime.destroy(id).await?;
        destroys.push(begin.elapsed());
    }
    runtime.shutdown().await?;
    std::fs::remove_dir_all(&config.state)?;
    for (name, mut times) in [("create", creates), ("warm start", starts), ("destroy", destroys)] {
        times.sort_unstable();
        let ms = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
        println!("{name}: min {:.2} median {:.2} p95 {:.2} ms", ms(0), ms(50), ms(95));
    }
    println!("memory of a waiting sandbox: {} KiB", idle_bytes >> 10);
    Ok(())
}
