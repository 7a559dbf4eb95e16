//! A run as a short file: its seed, what is done in it, and what must come of it.
//!
//! ```text
//! # Why it is here: any number of lines.
//! seed 100848
//! seconds 600
//! flavor ledisdb
//! deed 336.123456 {"fault":{"kill":0}}
//! trace 10.0.0.2:6379 becomes a master
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use failover_core::instance::Flavor;
use failover_core::mutation::Mutation;

use crate::deed::{Deed, Timed};
use crate::{Options, Outcome, run};

/// A file larger than this is not read.
pub const SCENARIO_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time of faults.
const SECONDS_MAX: u64 = 60_000_000;

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Why it is here.
    pub about: Vec<String>,
    /// From which everything comes that is not written down.
    pub seed: u64,
    /// For how long faults happen.
    pub faults_for: Duration,
    /// Which kind of servers there are; Redis where nothing is said.
    pub flavor: Flavor,
    /// A mistake that the core makes on purpose.
    pub mutation: Option<Mutation>,
    /// What is done, and when.
    pub deeds: Vec<Timed>,
    /// What must come of it; nothing is required when it is empty.
    pub trace: Vec<String>,
}

impl Scenario {
    /// What was done in a run.
    pub fn of(outcome: &Outcome, options: &Options) -> Self {
        Self {
            about: Vec::new(),
            seed: outcome.seed,
            faults_for: options.faults_for,
            flavor: outcome.flavor,
            mutation: options.mutation,
            deeds: outcome.deeds.clone(),
            trace: Vec::new(),
        }
    }

    /// Does it again.
    pub fn run(&self, journal: bool) -> Outcome {
        let options = Options {
            faults_for: self.faults_for,
            journal,
            flavor: Some(self.flavor),
            mutation: self.mutation,
            deeds: Some(self.deeds.clone()),
            ..Options::default()
        };
        run(self.seed, &options)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scenario = Self {
            about: Vec::new(),
            seed: 0,
            faults_for: Duration::ZERO,
            flavor: Flavor::Redis,
            mutation: None,
            deeds: Vec::new(),
            trace: Vec::new(),
        };
        let mut seed = None;
        for (line, number) in text.lines().zip(1..) {
            let wrong = |what: &str| format!("line {number} {what}: {line:?}");
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "" => {}
                "#" => scenario.about.push(rest.to_owned()),
                "seed" => {
                    seed = Some(rest.parse().map_err(|_| wrong("has a seed that is no number"))?);
                }
                "seconds" => {
                    let seconds: u64 =
                        rest.parse().map_err(|_| wrong("has seconds that are no number"))?;
                    if seconds > SECONDS_MAX {
                        return Err(wrong("has more seconds than anybody waits for"));
                    }
                    scenario.faults_for = Duration::from_secs(seconds);
                }
                "flavor" => {
                    scenario.flavor =
                        flavor(rest).ok_or_else(|| wrong("names servers that there are not"))?;
                }
                "mutation" => {
                    let named = Mutation::ALL.into_iter().find(|known| known.name() == rest);
                    scenario.mutation =
                        Some(named.ok_or_else(|| wrong("names a mutation that there is not"))?);
                }
                "deed" => {
                    let (at, deed) = rest.split_once(' ').ok_or_else(|| wrong("has no deed"))?;
                    let at = moment(at).ok_or_else(|| wrong("has a time that is none"))?;
                    let deed: Deed = serde_json::from_str(deed)
                        .map_err(|why| wrong(&format!("has a deed that is none ({why})")))?;
                    scenario.deeds.push((at, deed));
                }
                "trace" => scenario.trace.push(rest.to_owned()),
                _ => return Err(wrong("begins with a word that means nothing here")),
            }
        }
        scenario.seed = seed.ok_or("it has no seed")?;
        Ok(scenario)
    }

    /// The file.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for line in &self.about {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "seed {}\nseconds {}", self.seed, self.faults_for.as_secs());
        if self.flavor != Flavor::Redis {
            let _ = writeln!(text, "flavor {}", self.flavor.name());
        }
        if let Some(mutation) = self.mutation {
            let _ = writeln!(text, "mutation {}", mutation.name());
        }
        for (at, deed) in &self.deeds {
            let deed = serde_json::to_string(deed).unwrap_or_else(|why| why.to_string());
            let _ = writeln!(text, "deed {}.{:06} {deed}", at.as_secs(), at.subsec_micros());
        }
        for line in &self.trace {
            let _ = writeln!(text, "trace {line}");
        }
        text
    }

    /// Leaves away whatever is not needed for the same invariant to be hurt; tries at most so often.
    pub fn shrink(mut self, invariant: &str, tries: u32) -> Self {
        let hurts = |scenario: &Self| {
            let outcome = scenario.run(false);
            outcome.violation.filter(|violation| violation.invariant == invariant)
        };
        let mut left = tries;
        let mut parts = 2;
        while left > 0 && !self.deeds.is_empty() {
            let size = self.deeds.len().div_ceil(parts);
            let mut shorter = None;
            for from in (0..self.deeds.len()).step_by(size) {
                if left == 0 {
                    break;
                }
                left -= 1;
                let to = (from + size).min(self.deeds.len());
                let mut deeds = self.deeds.clone();
                deeds.drain(from..to);
                let tried = Self { deeds, ..self.clone() };
                if hurts(&tried).is_some() {
                    shorter = Some(tried);
                    break;
                }
            }
            match shorter {
                Some(shorter) => {
                    self = shorter;
                    parts = (parts - 1).max(2);
                }
                None if size == 1 => break,
                None => parts = (parts * 2).min(self.deeds.len()),
            }
        }
        let last = self.deeds.last().map_or(Duration::ZERO, |(at, _)| *at);
        let shorter = Self { faults_for: Duration::from_secs(last.as_secs()), ..self.clone() };
        if shorter.faults_for < self.faults_for && hurts(&shorter).is_some() {
            return shorter;
        }
        self
    }
}

/// The kind of servers with this name, if there is a model of it.
pub fn flavor(name: &str) -> Option<Flavor> {
    [Flavor::Redis, Flavor::Ledisdb].into_iter().find(|known| known.name() == name)
}

/// Seconds with at most six digits behind the point.
fn moment(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX)?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Fault;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let scenario = Scenario {
            about: vec!["Why.".to_owned()],
            seed: 7,
            faults_for: Duration::from_secs(60),
            flavor: Flavor::Ledisdb,
            mutation: Some(Mutation::Hasty),
            deeds: vec![
                (Duration::from_micros(6_000_001), Deed::Writes(3)),
                (Duration::from_micros(6_000_002), Deed::Fault(Fault::Kill(1))),
            ],
            trace: vec!["it is over".to_owned()],
        };
        assert_eq!(Scenario::parse(&scenario.print()), Ok(scenario));
    }

    #[test]
    fn what_means_nothing_is_named_with_its_line() {
        for (text, expected) in [
            ("seconds 3", "no seed"),
            ("seed x", "line 1 has a seed"),
            ("seed 1\n\nverse 3", "line 3 begins with a word"),
            ("seed 1\ndeed 3 {}", "line 2 has a time"),
            ("seed 1\ndeed 3.000001 {\"fault\":\"flood\"}", "line 2 has a deed"),
            ("seed 1\nmutation none", "line 2 names a mutation"),
            ("seed 1\nflavor vanilla", "line 2 names servers"),
        ] {
            let why = Scenario::parse(text).expect_err(text);
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_run_is_the_same_without_drawing() {
        let options =
            Options { faults_for: Duration::from_secs(120), journal: true, ..Options::default() };
        for seed in 0..30 {
            let drawn = run(seed, &options);
            let again = Scenario::of(&drawn, &options).run(true);
            assert!(drawn.deeds.len() > 3);
            assert_eq!(drawn.deeds, again.deeds);
            for (one, other) in drawn.journal.iter().zip(&again.journal) {
                assert_eq!(one, other, "seed {seed}");
            }
            assert_eq!(drawn.journal.len(), again.journal.len());
        }
    }
}
