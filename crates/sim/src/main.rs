//! `failover-sim`: runs seeds, prints what failed. Exit status 0: all held; 2: bad flag or file; 3: something was found.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use failover_core::mutation::Mutation;
use failover_sim::invariants::ALL;
use failover_sim::recording;
use failover_sim::scenario::{SCENARIO_BYTES_MAX, Scenario};
use failover_sim::{Options, Outcome, Wrong, run};

mod wish;

use wish::{Mistake, USAGE, What, Wish};

/// How often a failing run is tried with less in it.
const SHRINK_TRIES: u32 = 500;

fn main() -> ExitCode {
    let wish = match wish::read(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(why) => return refuse(&format!("{why}\n{USAGE}")),
    };
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough is no failure of ours.
    let mut say = |line: &str| {
        let _ = writeln!(out, "{line}");
    };
    let options = options(&wish);
    match &wish.what {
        What::Help => {
            say(USAGE);
            ExitCode::SUCCESS
        }
        What::List => {
            list(&mut say);
            ExitCode::SUCCESS
        }
        What::One { seed } => {
            let outcome = run(*seed, &Options { journal: true, ..options.clone() });
            for line in &outcome.journal {
                say(line);
            }
            verdict(&[outcome], &options, wish.shrink, &mut say)
        }
        What::Many { from, seeds, jobs } => {
            let (outcomes, kinds) = run_many(*from, *seeds, *jobs, &options);
            for (kind, times) in kinds {
                say(&format!("{times:>9} {kind}"));
            }
            verdict(&outcomes, &options, wish.shrink, &mut say)
        }
        What::Scenario(path) => match read(path).and_then(|text| Scenario::parse(&text)) {
            Err(why) => refuse(&format!("{path}: {why}")),
            Ok(scenario) => replay(&scenario, wish.shrink, &mut say),
        },
        What::Journal(path) => match File::open(path) {
            Err(why) => refuse(&format!("{path}: {why}")),
            Ok(file) => go_through(file, &mut say),
        },
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("failover-sim: {why}");
    ExitCode::from(2)
}

fn options(wish: &Wish) -> Options {
    let (mutation, wrong) = match wish.mistake {
        Some(Mistake::OfTheCore(mutation)) => (Some(mutation), None),
        Some(Mistake::OfTheDriver(wrong)) => (None, Some(wrong)),
        None => (None, None),
    };
    let faults_for = Duration::from_secs(wish.minutes * 60);
    Options { faults_for, mutation, wrong, flavor: wish.flavor, ..Options::default() }
}

fn list(say: &mut impl FnMut(&str)) {
    say("invariants:");
    for (name, says) in ALL {
        say(&format!("  {name:<15} {says}"));
    }
    say("mutations, each of which an invariant must catch:");
    let names = Mutation::ALL.into_iter().map(Mutation::name);
    for name in names.chain(Wrong::ALL.into_iter().map(Wrong::name)) {
        say(&format!("  {name}"));
    }
}

fn read(path: &str) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|why| why.to_string())?.len();
    if usize::try_from(bytes).is_ok_and(|bytes| bytes <= SCENARIO_BYTES_MAX) {
        std::fs::read_to_string(path).map_err(|why| why.to_string())
    } else {
        Err(format!("it has {bytes} bytes, more than {SCENARIO_BYTES_MAX}"))
    }
}

/// Runs what a file says.
fn replay(scenario: &Scenario, shrink: bool, say: &mut impl FnMut(&str)) -> ExitCode {
    let outcome = scenario.run(true);
    for line in &outcome.journal {
        say(line);
    }
    let faults_for = scenario.faults_for;
    let options = Options { faults_for, mutation: scenario.mutation, ..Options::default() };
    let differs = !scenario.trace.is_empty() && scenario.trace != outcome.trace;
    let code = verdict(&[outcome], &options, shrink, say);
    if differs {
        say("FAILED the trace is not the one that the file expects");
        return ExitCode::from(3);
    }
    code
}

/// Goes through the journal of a real node.
fn go_through(file: File, say: &mut impl FnMut(&str)) -> ExitCode {
    match recording::replay(BufReader::new(file), &mut *say) {
        Ok(replayed) => {
            let recording::Replayed { runs, events, actions, is_torn } = replayed;
            let torn = if is_torn { ", the last line was written in part only" } else { "" };
            say(&format!("ok: {runs} runs, {events} events, the same {actions} actions{torn}"));
            ExitCode::SUCCESS
        }
        Err(stopped) => {
            say(&format!("FAILED {stopped}"));
            ExitCode::from(3)
        }
    }
}

/// How often each kind of thing was done.
type Kinds = BTreeMap<&'static str, u64>;

/// Runs many seeds; stops handing out new ones when one failed.
fn run_many(from: u64, seeds: u64, jobs: usize, options: &Options) -> (Vec<Outcome>, Kinds) {
    let next = AtomicU64::new(0);
    let end = AtomicU64::new(seeds);
    let all = Mutex::new((Vec::new(), Kinds::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut outcome = run(from.wrapping_add(nth), options);
                    let deeds: Vec<_> = outcome.deeds.iter().map(|(_, deed)| deed.kind()).collect();
                    if outcome.violation.is_some() {
                        // Smaller ones are still finished, so that the smallest is reported.
                        end.fetch_min(nth, Ordering::Relaxed);
                    } else {
                        // Of those that held, only sums are wanted.
                        (outcome.deeds, outcome.trace) = (Vec::new(), Vec::new());
                    }
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    for kind in deeds {
                        *all.1.entry(kind).or_default() += 1;
                    }
                    all.0.push(outcome);
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn verdict(
    outcomes: &[Outcome],
    options: &Options,
    shrink: bool,
    say: &mut impl FnMut(&str),
) -> ExitCode {
    let failed = outcomes
        .iter()
        .filter_map(|outcome| outcome.violation.as_ref().map(|violation| (outcome, violation)))
        .min_by_key(|(outcome, _)| outcome.seed);
    if let Some((outcome, violation)) = failed {
        let failure = format!(
            "FAILED seed={} invariant={} at={}: {}",
            outcome.seed, violation.invariant, violation.at, violation.sentence
        );
        if shrink {
            // Shrinking takes its time; who waits knows already what for.
            say(&failure);
            let scenario = Scenario::of(outcome, options);
            say(&scenario.shrink(violation.invariant, SHRINK_TRIES).print());
        }
        say(&failure);
        return ExitCode::from(3);
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let hours = outcomes.iter().map(|outcome| outcome.time.as_secs_f64()).sum::<f64>() / 3600.0;
    say(&format!(
        "{} operations, {} promotions, {} halts, {} acknowledged writes, {} events",
        sum(|outcome| outcome.counts.operations),
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
