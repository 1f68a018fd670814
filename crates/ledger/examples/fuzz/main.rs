//! Gives damaged inputs to the parsers, for a time. No parser may panic, and what one takes it must write back as it was.
//!
//! `cargo run --release -p audit-ledger --example fuzz -- SECONDS [TARGET] [SEED]` runs every target, or one, for so many seconds each, as
//! many at a time as there are processors. The seed is the time unless it is given; it is printed with a failure, and so is the input.

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mutate::Random;
use targets::{TARGETS, Target};

/// How many inputs that were taken are kept to make others of.
const MAX_CORPUS: usize = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(" ");
    let Some(seconds) = arguments.first().and_then(|seconds| seconds.parse().ok()) else {
        eprintln!("usage: fuzz SECONDS [TARGET|all] [SEED]\ntargets: {}", names());
        return ExitCode::from(2);
    };
    let wanted = arguments.get(1).map_or("all", String::as_str);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = arguments.get(2).map_or_else(now, |seed| seed.parse().unwrap_or(1));
    let chosen: Vec<&Target> = TARGETS.iter().filter(|target| wanted == "all" || wanted == target.name).collect();
    if chosen.is_empty() {
        eprintln!("no target {wanted}; there are: {}", names());
        return ExitCode::from(2);
    }
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(input) = fuzz(target, Duration::from_secs(seconds), seed) {
                println!("{}: failed with seed {seed} and the input\n{}", target.name, input.escape_ascii());
                failed.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a target until the time is over; the error is the input that made it panic.
fn fuzz(target: &Target, time: Duration, seed: u64) -> Result<(), Vec<u8>> {
    let mut random = Random::new(seed);
    let mut corpus = (target.seeds)();
    let start = Instant::now();
    let (mut inputs, mut taken) = (0u64, 0u64);
    while inputs % 256 != 0 || start.elapsed() < time {
        let input = mutate::input(&mut random, &corpus);
        match catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
            Ok(false) => {}
            Ok(true) => {
                taken += 1;
                if corpus.len() < MAX_CORPUS {
                    corpus.push(input);
                } else {
                    let place = random.below(corpus.len());
                    corpus[place] = input;
                }
            }
            Err(_) => return Err(input),
        }
        inputs += 1;
    }
    println!("{}: {inputs} inputs, {taken} taken", target.name);
    Ok(())
}
