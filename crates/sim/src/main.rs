//! `failover-sim`: runs seeds, prints what failed. Exit status 0: all held; 2: bad flag; 3: something was found.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use failover_sim::invariants::ALL;
use failover_sim::{Options, Outcome, run};

const USAGE: &str = "\
usage: failover-sim --seed N [--minutes M]
       failover-sim --seeds N [--from N] [--minutes M] [--jobs N]
       failover-sim --list

  --seed N      run one seed and print its journal
  --seeds N     run N seeds, print the smallest one that fails
  --from N      the first of them (default 0)
  --minutes M   virtual minutes with faults, per seed (default 10)
  --jobs N      seeds at the same time (default: all cores)
  --list        print the invariants";

/// What is to be done.
enum Wish {
    List,
    One { seed: u64, minutes: u64 },
    Many { from: u64, seeds: u64, minutes: u64, jobs: usize },
    Help,
}

fn main() -> ExitCode {
    let wish = match wish(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(why) => {
            eprintln!("failover-sim: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough is no failure of ours.
    let mut say = |line: &str| {
        let _ = writeln!(out, "{line}");
    };
    match wish {
        Wish::Help => {
            say(USAGE);
            ExitCode::SUCCESS
        }
        Wish::List => {
            for (name, says) in ALL {
                say(&format!("{name:<15} {says}"));
            }
            ExitCode::SUCCESS
        }
        Wish::One { seed, minutes } => {
            let outcome = run(seed, &Options { minutes, journal: true, ..Options::default() });
            for line in &outcome.journal {
                say(line);
            }
            verdict(&[outcome], &mut say)
        }
        Wish::Many { from, seeds, minutes, jobs } => {
            let outcomes = run_many(from, seeds, minutes, jobs);
            verdict(&outcomes, &mut say)
        }
    }
}

/// Reads the flags, as `--flag value` or `--flag=value`.
fn wish(mut args: impl Iterator<Item = String>) -> Result<Wish, String> {
    let (mut seed, mut seeds, mut from, mut minutes, mut jobs) = (None, None, None, None, None);
    let mut list = false;
    while let Some(arg) = args.next() {
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let place = match flag.as_str() {
            "--help" | "-h" => return Ok(Wish::Help),
            "--list" => {
                list = true;
                continue;
            }
            "--seed" => &mut seed,
            "--seeds" => &mut seeds,
            "--from" => &mut from,
            "--minutes" => &mut minutes,
            "--jobs" => &mut jobs,
            other => return Err(format!("there is no flag {other}")),
        };
        let value =
            value.or_else(|| args.next()).ok_or_else(|| format!("{flag} wants a number"))?;
        let number: u64 =
            value.parse().map_err(|_| format!("{flag} wants a number, not {value:?}"))?;
        *place = Some(number);
    }
    let minutes = minutes.unwrap_or(10);
    if minutes == 0 || minutes > 1_000_000 {
        return Err("--minutes must be between 1 and 1000000".to_owned());
    }
    match (list, seed, seeds) {
        (true, None, None) => Ok(Wish::List),
        (false, Some(seed), None) => Ok(Wish::One { seed, minutes }),
        (false, None, Some(0)) => Err("--seeds must be at least 1".to_owned()),
        (false, None, Some(seeds)) => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let jobs = jobs.map_or(cores, |jobs| usize::try_from(jobs).unwrap_or(usize::MAX));
            if jobs == 0 || jobs > 1024 {
                return Err("--jobs must be between 1 and 1024".to_owned());
            }
            Ok(Wish::Many { from: from.unwrap_or(0), seeds, minutes, jobs })
        }
        _ => Err("one of --seed, --seeds and --list is wanted".to_owned()),
    }
}

/// Runs many seeds; stops handing out new ones when one failed.
fn run_many(from: u64, seeds: u64, minutes: u64, jobs: usize) -> Vec<Outcome> {
    let options = Options { minutes, ..Options::default() };
    let next = AtomicU64::new(0);
    let end = AtomicU64::new(seeds);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(from.wrapping_add(nth), &options);
                    if outcome.violation.is_some() {
                        // Smaller ones are still finished, so that the smallest is reported.
                        end.fetch_min(nth, Ordering::Relaxed);
                    }
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn verdict(outcomes: &[Outcome], say: &mut impl FnMut(&str)) -> ExitCode {
    let failed = outcomes
        .iter()
        .filter_map(|outcome| outcome.violation.as_ref().map(|violation| (outcome.seed, violation)))
        .min_by_key(|(seed, _)| *seed);
    if let Some((seed, violation)) = failed {
        say(&format!(
            "FAILED seed={seed} invariant={} at={}: {}",
            violation.invariant, violation.at, violation.sentence
        ));
        return ExitCode::from(3);
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let hours = outcomes.iter().map(|outcome| outcome.time.as_secs_f64()).sum::<f64>() / 3600.0;
    say(&format!(
        "{} promotions, {} halts, {} acknowledged writes, {} events",
        sum(|outcome| outcome.counts.promotions),
        sum(|outcome| outcome.counts.halts),
        sum(|outcome| outcome.counts.acknowledged),
        sum(|outcome| outcome.counts.events),
    ));
    say(&format!(
        "ok: {} seeds, {hours:.1} virtual hours, {} faults",
        outcomes.len(),
        sum(|outcome| outcome.counts.faults)
    ));
    ExitCode::SUCCESS
}
