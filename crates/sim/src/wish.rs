//! The flags of `failover-sim`.

use failover_core::instance::Flavor;
use failover_core::mutation::Mutation;
use failover_sim::{Wrong, scenario};

pub(crate) const USAGE: &str = "\
usage: failover-sim --seed N [--minutes M] [--flavor NAME] [--mutation NAME] [--shrink]
       failover-sim --seeds N [--from N] [--minutes M] [--jobs N] [--flavor NAME] [--mutation NAME] [--shrink]
       failover-sim --scenario FILE [--shrink]
       failover-sim --journal FILE
       failover-sim --list

  --seed N         run one seed and print its journal
  --seeds N        run N seeds, print the smallest one that fails
  --from N         the first of them (default 0)
  --scenario FILE  do what the file says
  --journal FILE   go through what a real node wrote down (its journal_file) again
  --minutes M      virtual minutes with faults, per seed (default 10)
  --jobs N         seeds at the same time (default: all cores)
  --flavor NAME    the kind of servers: redis or ledisdb (default: drawn from the seed)
  --mutation NAME  make this mistake on purpose
  --shrink         print what fails as a scenario file with as little in it as possible
  --list           print the invariants and the mutations";

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) what: What,
    pub(crate) minutes: u64,
    pub(crate) flavor: Option<Flavor>,
    pub(crate) mistake: Option<Mistake>,
    pub(crate) shrink: bool,
}

#[derive(Debug)]
pub(crate) enum What {
    Help,
    List,
    One { seed: u64 },
    Many { from: u64, seeds: u64, jobs: usize },
    Scenario(String),
    Journal(String),
}

/// A mistake that is made on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mistake {
    OfTheCore(Mutation),
    OfTheDriver(Wrong),
}

/// Reads the flags, as `--flag value` or `--flag=value`.
pub(crate) fn read(mut args: impl Iterator<Item = String>) -> Result<Wish, String> {
    let (mut seed, mut seeds, mut from, mut minutes, mut jobs) = (None, None, None, None, None);
    let (mut scenario, mut journal, mut mistake, mut flavor) = (None, None, None, None);
    let (mut list, mut help, mut shrink) = (false, false, false);
    while let Some(arg) = args.next() {
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let place = match flag.as_str() {
            "--help" | "-h" => {
                help = true;
                continue;
            }
            "--list" => {
                list = true;
                continue;
            }
            "--shrink" => {
                shrink = true;
                continue;
            }
            "--scenario" | "--journal" | "--mutation" | "--flavor" => {
                let value =
                    value.or_else(|| args.next()).ok_or_else(|| format!("{flag} wants a value"))?;
                match flag.as_str() {
                    "--scenario" => scenario = Some(value),
                    "--journal" => journal = Some(value),
                    "--flavor" => flavor = Some(flavor_of(&value)?),
                    _ => mistake = Some(mistake_of(&value)?),
                }
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
    let what =
        match (list, seed, seeds, scenario.map(What::Scenario).or(journal.map(What::Journal))) {
            _ if help => What::Help,
            (true, None, None, None) => What::List,
            (false, Some(seed), None, None) => What::One { seed },
            (false, None, Some(0), None) => return Err("--seeds must be at least 1".to_owned()),
            (false, None, Some(seeds), None) => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                let jobs = jobs.map_or(cores, |jobs| usize::try_from(jobs).unwrap_or(usize::MAX));
                if jobs == 0 || jobs > 1024 {
                    return Err("--jobs must be between 1 and 1024".to_owned());
                }
                What::Many { from: from.unwrap_or(0), seeds, jobs }
            }
            (false, None, None, Some(what)) => what,
            _ => {
                return Err(
                    "one of --seed, --seeds, --scenario, --journal and --list is wanted".to_owned()
                );
            }
        };
    Ok(Wish { what, minutes, flavor, mistake, shrink })
}

fn flavor_of(name: &str) -> Result<Flavor, String> {
    scenario::flavor(name).ok_or_else(|| format!("there is no model of {name} servers"))
}

fn mistake_of(name: &str) -> Result<Mistake, String> {
    let of_core = Mutation::ALL.into_iter().find(|known| known.name() == name);
    let of_driver = Wrong::ALL.into_iter().find(|known| known.name() == name);
    of_core
        .map(Mistake::OfTheCore)
        .or(of_driver.map(Mistake::OfTheDriver))
        .ok_or_else(|| format!("there is no mutation {name}; --list names them"))
}
