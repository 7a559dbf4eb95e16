//! The journal of a real node, gone through again with the core as it is now.

use std::fmt;
use std::io::{BufRead, Read as _};

use failover_core::journal::{Departure, Line, Replay};
use failover_core::time::Time;

use crate::journal;

/// Longest line: a record of twenty thousand groups is shorter.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// What was in a journal in which the core did now what it did then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How often the node was started.
    pub runs: u64,
    /// What it was told.
    pub events: u64,
    /// What it did.
    pub actions: u64,
    /// Whether the last line was written in part only.
    pub is_torn: bool,
}

/// Why a replay did not come to the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopped {
    /// In which line, from 1.
    pub line: u64,
    /// Why.
    pub why: Why,
}

/// Why a line was not gone through.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// It cannot be read: a sentence.
    Unreadable(String),
    /// The core does something else.
    Departed(Departure),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, why } = self;
        match why {
            Why::Unreadable(why) => write!(f, "line {line} is none of a journal: {why}"),
            Why::Departed(departure) => write!(f, "line {line}: {departure}"),
        }
    }
}

/// Goes through a journal, and says what happened in it, a readable line each.
///
/// # Errors
/// Where it stopped, and why.
pub fn replay(mut text: impl BufRead, mut say: impl FnMut(&str)) -> Result<Replayed, Stopped> {
    let mut replayed = Replayed::default();
    let mut replay = Replay::new();
    let mut now = Time::ZERO;
    let mut bytes = Vec::new();
    let mut strange = None;
    let mut bytes_end_a_line = true;
    for number in 1.. {
        let stopped = |why| Stopped { line: number, why };
        bytes_end_a_line = bytes.ends_with(b"\n");
        bytes.clear();
        let read = text.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        let read = read.map_err(|why| stopped(Why::Unreadable(why.to_string())))?;
        if read == 0 {
            break;
        }
        let parsed: Result<Line<'_>, _> = serde_json::from_slice(&bytes);
        if let Some(strange) = strange.take()
            && !matches!(parsed, Ok(Line::Began { .. }))
        {
            return Err(strange);
        }
        let line = match parsed {
            Ok(line) => line,
            // A process that was killed leaves the beginning of a line, which is the last one of its run.
            Err(why) => {
                strange = Some(stopped(Why::Unreadable(why.to_string())));
                continue;
            }
        };
        let readable = match &line {
            Line::Began { me, .. } => {
                replayed.runs += 1;
                Some(format!("the node {me} begins"))
            }
            Line::Happened { at, event } => {
                replayed.events += 1;
                now = *at;
                Some(journal::event(event))
            }
            Line::Passed { at } => {
                now = *at;
                None
            }
            Line::Testified { at, group } => {
                now = *at;
                Some(format!("<- asked what it sees of {group}"))
            }
            Line::Did(action) => {
                replayed.actions += 1;
                Some(journal::action(action))
            }
        };
        if let Some(readable) = readable {
            say(&format!("{now} {readable}"));
        }
        replay.take(line).map_err(|departure| stopped(Why::Departed(departure)))?;
    }
    replayed.is_torn = strange.is_some();
    match strange {
        Some(strange) if bytes_end_a_line => Err(strange),
        Some(_) | None => Ok(replayed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_journal_is_refused_and_what_was_cut_short_is_not() {
        let of = |text: &str| replay(text.as_bytes(), |_| {});
        assert_eq!(of(""), Ok(Replayed::default()));
        let stopped = of("{\"passed\":{\"at\":1}}\n").expect_err("no beginning");
        assert_eq!(stopped, Stopped { line: 1, why: Why::Departed(Departure::NotBegun) });
        let began = r#"{"began":{"version":1,"me":"a","policies":{}}}"#;
        let stopped = of(&format!("{began}\nnonsense\n")).expect_err("nonsense");
        assert!(stopped.to_string().starts_with("line 2 is none of a journal"), "{stopped}");
        let torn = format!("{began}\n{{\"pass");
        let replayed = Replayed { runs: 1, is_torn: true, ..Replayed::default() };
        assert_eq!(of(&torn), Ok(replayed), "its beginning counts");
        let replayed = Replayed { runs: 2, ..Replayed::default() };
        assert_eq!(of(&format!("{torn}\n{began}\n")), Ok(replayed), "another run follows");
        assert!(of(&format!("{torn}\n")).is_err());
    }
}
