//! How loudly a notice goes into the log.
//!
//! That no leader is known concerns every group alike, and is said once, of the node. Thousands of groups that say it too
//! would bury everything else that happened in that minute.

use std::collections::BTreeSet;

use failover_core::group::Diagnosis;
use failover_core::node::GroupName;
use failover_core::notice::{Notice, Weight, What};

/// The level of a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Groups of which it was not said aloud that nobody acts on them.
#[derive(Debug, Default)]
pub(crate) struct Unsaid(BTreeSet<GroupName>);

impl Unsaid {
    /// How loudly a notice is to be logged. `leaderless`: that no leader is known was said of the whole node.
    pub(crate) fn level(&mut self, notice: &Notice, leaderless: bool) -> Level {
        let level = match notice.what.weight() {
            Weight::Info => Level::Info,
            Weight::Warning => Level::Warn,
            Weight::Error => Level::Error,
        };
        if notice.what == What::GroupRemoved {
            self.0.remove(&notice.group);
        }
        let What::Diagnosed { name, healthy } = &notice.what else { return level };
        if leaderless && name == Diagnosis::QuorumLost.name() {
            self.0.insert(notice.group.clone());
            return Level::Debug;
        }
        // A group that is well again was never said to be unwell.
        let unsaid = self.0.remove(&notice.group);
        if unsaid && *healthy { Level::Debug } else { level }
    }
}

#[cfg(test)]
mod tests {
    use failover_core::time::Time;

    use super::*;

    fn diagnosed(group: &str, diagnosis: Diagnosis, healthy: bool) -> Notice {
        Notice {
            at: Time::ZERO,
            group: GroupName::new(group).expect("a name"),
            what: What::Diagnosed { name: diagnosis.name().to_owned(), healthy },
            sentence: String::new(),
        }
    }

    #[test]
    fn what_the_whole_node_lacks_is_not_said_of_each_group() {
        let mut unsaid = Unsaid::default();
        let lost = |group| diagnosed(group, Diagnosis::QuorumLost, false);
        let well = |group| diagnosed(group, Diagnosis::Healthy, true);
        for group in ["a", "b"] {
            assert_eq!(unsaid.level(&lost(group), true), Level::Debug);
        }
        assert_eq!(unsaid.level(&well("a"), false), Level::Debug);
        assert_eq!(unsaid.level(&well("a"), false), Level::Info, "that is news");
        let dead = diagnosed("b", Diagnosis::MasterCrashed, false);
        assert_eq!(unsaid.level(&dead, false), Level::Warn);
        assert_eq!(unsaid.level(&well("b"), false), Level::Info, "it was unwell");
    }

    #[test]
    fn a_quorum_that_one_group_lacks_is_said_of_it() {
        let lost = diagnosed("a", Diagnosis::QuorumLost, false);
        assert_eq!(Unsaid::default().level(&lost, false), Level::Warn);
    }
}
