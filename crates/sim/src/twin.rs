//! A core whose journal is written and gone through again while it runs: the twin has only what a file would have.

use failover_core::fleet::Policies;
use failover_core::journal::{Line, Recorded, Replay, Scribe};
use failover_core::node::NodeId;

/// A core, and its twin in the runs that have one.
pub(crate) type Twinned = Recorded<Twin>;

/// What is gone through again.
#[derive(Debug, Default)]
pub(crate) struct Twin {
    replay: Replay,
    departed: Option<String>,
}

pub(crate) fn twinned(me: NodeId, policies: Policies, has_twin: bool) -> Twinned {
    Recorded::new(me, policies, has_twin.then(Twin::default))
}

/// How its twin departed, once it did.
pub(crate) fn departed(node: &Twinned) -> Option<&str> {
    node.scribe()?.departed.as_deref()
}

impl Scribe for Twin {
    fn write(&mut self, line: &Line<'_>) {
        let through = serde_json::to_vec(line)
            .and_then(|text| Ok(self.replay.take(serde_json::from_slice(&text)?)))
            .map_err(|why| why.to_string())
            .and_then(|taken| taken.map_err(|departure| departure.to_string()));
        if let Err(why) = through {
            self.departed.get_or_insert(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use failover_core::addr::Addr;
    use failover_core::event::{Event, GroupSpec, Request};
    use failover_core::node::{Leadership, Token};
    use failover_core::time::Time;

    use super::*;

    /// A twin that may not be told who leads.
    struct Told {
        twin: Twin,
        everything: bool,
    }

    impl Scribe for Told {
        fn write(&mut self, line: &Line<'_>) {
            let leads = matches!(line, Line::Happened { event, .. } if matches!(**event, Event::Leadership(_)));
            if self.everything || !leads {
                self.twin.write(line);
            }
        }
    }

    /// How the twin of a node that takes a group on departs.
    fn departed(everything: bool) -> Option<String> {
        let told = Told { twin: Twin::default(), everything };
        let mut node = Recorded::new(NodeId::new("a"), Policies::default(), Some(told));
        let now = Time::from_millis(1000);
        node.handle(now, Event::Leadership(Leadership::Leader(Token(1))));
        let master = Addr::new("10.0.0.1", 6379).expect("an address");
        let request = Request::Add(vec![GroupSpec { name: None, master, replicas: Vec::new() }]);
        node.handle(now, Event::Request { id: 1, request });
        while node.poll().is_some() {}
        node.scribe().and_then(|told| told.twin.departed.clone())
    }

    #[test]
    fn a_twin_that_was_not_told_everything_departs() {
        assert_eq!(departed(true), None);
        let why = departed(false).expect("it refuses what the other one proposes");
        assert!(why.contains("something else"), "{why}");
    }
}
