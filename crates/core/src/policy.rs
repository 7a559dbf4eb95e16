//! Every timeout, limit, quorum and threshold, with its unit in its type or name, validated in one place.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::instance::MinReplicas;
use crate::mutation::Mutation;
use crate::record::Rule;

/// What happens to a group after a failover failed that had changed something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailedFailover {
    /// The group is halted until an operator resumes it.
    #[default]
    Halt,
    /// It is tried again, with every candidate, after `failover_timeout`.
    Retry,
}

/// Whether a replica may be promoted that stands elsewhere than the master did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcrossLocations {
    /// Like any other.
    #[default]
    Allow,
    /// Not at all.
    Deny,
    /// Behind those that are as advanced and stand where the master did.
    Last,
}

/// How an old master is kept from taking writes that nobody else will ever have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fencing {
    /// It is not, until it is made a replica.
    #[default]
    None,
    /// Every instance is set up to refuse writes while no replica acknowledges them.
    MinReplicas,
}

impl Fencing {
    /// The name as it is written in settings and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MinReplicas => "min-replicas",
        }
    }
}

/// What the configuration says of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePolicy {
    /// Counts instead of the priority that the server reports.
    pub priority: Option<u32>,
    /// Where it stands.
    pub location: Option<String>,
    /// A rule on its promotion.
    pub rule: Option<Rule>,
}

/// The rules for one group. The first part is set by people, the rest are limits that need no setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How often an instance is asked.
    pub check_interval: Duration,
    /// How long a master may be silent, from the first unanswered probe, until it counts as down.
    pub max_down_time: Duration,
    /// How long a master's host must have refused connections until it counts as down; zero: at once when proven.
    pub crash_down_time: Duration,
    /// How many voters must see the master down; zero: a majority of the committed membership.
    pub quorum: usize,
    /// How many replicas are repointed at the same time.
    pub parallel_syncs: usize,
    /// A candidate that is further behind the last known offset of the master is refused; zero: no limit.
    pub max_lag_bytes: u64,
    /// The bound of one failover, and the wait until a vetoed or failed one is tried again.
    pub failover_timeout: Duration,
    /// What follows a failover that failed after it had changed something.
    pub on_failed_failover: OnFailedFailover,
    /// How long all before-failover handlers together may take.
    pub before_failover_timeout: Duration,
    /// Whether a replica may be promoted that stands elsewhere than the master did, as far as both locations are known.
    pub across_locations: AcrossLocations,
    /// What is set of single instances, by one of their addresses.
    pub instances: BTreeMap<Addr, InstancePolicy>,
    /// How an old master is kept from taking writes.
    pub fencing: Fencing,
    /// How long after a failover a master that is only silent is not replaced; one whose host refuses connections is.
    pub cooldown: Duration,
    /// How long a master that restarted may say LOADING until it counts as down, when a replica could take over.
    pub max_loading_time: Duration,

    /// A replica whose link is up is asked this many times less often than others: its end is noticed at once whatever
    /// the interval, and it is asked as soon as its master is suspected.
    pub settled_replica_intervals: u32,
    /// How long a promotion may stay unknown until its candidate is abandoned.
    pub promote_timeout: Duration,
    /// How long one command may be on its way; shorter than any broker's lease.
    pub command_timeout: Duration,
    /// How long no leader may be known until that is a diagnosis of every group: elections are part of an ordinary day.
    pub election_grace: Duration,
    /// What another node said it sees counts for this long, from the moment it was asked.
    pub testimony_age_max: Duration,
    /// But a master is only replaced on votes that are younger than this: one that came back since must not be.
    pub vote_age_max: Duration,
    /// How long another node is waited for before it is asked again.
    pub testimony_timeout: Duration,
    /// The shortest pause between two questions to a node that does not see a master down yet; it grows with the time
    /// that the master has been down here.
    pub testimony_interval: Duration,
    /// How long replicas are waited for when they are asked about a suspected master.
    pub corroboration_timeout: Duration,
    /// The pause between two such questions to one replica.
    pub corroboration_interval: Duration,
    /// A replica whose link was lost this much earlier than its master was is too old to be promoted.
    pub max_link_down: Duration,
    /// How often an idle master makes itself heard by its replicas (`repl-ping-replica-period`), where it is not known.
    pub ping_period: Duration,
    /// Longest pause of the dense reconnects after a connection ended.
    pub reconnect_interval_max: Duration,
    /// How long after a connection ended they stay dense.
    pub reconnect_dense: Duration,
    /// Longest pause between two looks at an instance that is known to be dead.
    pub dead_interval: Duration,
    /// A loop that was woken later than this was stalled: silence of that time proves nothing.
    pub stall_limit: Duration,
    /// How long a repointed replica may take to establish its link before its repointing counts as failed.
    pub link_timeout: Duration,
    /// How long a link must have stood after an order for a full copy until the copy counts as complete, where nothing else
    /// tells: the link is said to be up also for the moment before the copy begins.
    pub copied_after: Duration,
    /// How long a replica that is to forget such an order follows nobody: its master must have noticed that it left, which
    /// takes LedisDB 1.6 s, or it would strike its new registration off its list.
    pub part_wait: Duration,
    /// How long a role that was changed by hand stands until it is changed back.
    pub drift_wait: Duration,
    /// The pause until a failed repair is tried again.
    pub repair_interval: Duration,
    /// How long a master that restarted with no data at all is not followed for the sake of instances that do not answer
    /// and may have it.
    pub empty_wait: Duration,
    /// How long the settings of a removed group's servers may take to be put back.
    pub removal_timeout: Duration,
    /// After three failovers within this time every dead master is waited for `max_down_time`.
    pub flapping_window: Duration,
    /// A mistake that is made on purpose.
    #[cfg(feature = "mutations")]
    #[serde(skip)]
    pub mutation: Option<Mutation>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_millis(1000),
            max_down_time: Duration::from_secs(3),
            crash_down_time: Duration::ZERO,
            quorum: 0,
            parallel_syncs: 1,
            max_lag_bytes: 0,
            failover_timeout: Duration::from_secs(60),
            on_failed_failover: OnFailedFailover::Halt,
            before_failover_timeout: Duration::from_millis(1000),
            across_locations: AcrossLocations::Allow,
            instances: BTreeMap::new(),
            fencing: Fencing::None,
            cooldown: Duration::from_secs(30),
            max_loading_time: Duration::from_secs(3),
            settled_replica_intervals: 2,
            promote_timeout: Duration::from_secs(1),
            command_timeout: Duration::from_millis(250),
            election_grace: Duration::from_secs(2),
            testimony_age_max: Duration::from_secs(1),
            vote_age_max: Duration::from_millis(200),
            testimony_timeout: Duration::from_millis(200),
            testimony_interval: Duration::from_millis(2),
            corroboration_timeout: Duration::from_millis(200),
            corroboration_interval: Duration::from_millis(1),
            max_link_down: Duration::from_secs(30),
            ping_period: Duration::from_secs(10),
            reconnect_interval_max: Duration::from_millis(25),
            reconnect_dense: Duration::from_secs(60),
            dead_interval: Duration::from_millis(250),
            stall_limit: Duration::from_millis(50),
            link_timeout: Duration::from_secs(60),
            copied_after: Duration::from_secs(1),
            part_wait: Duration::from_secs(2),
            drift_wait: Duration::from_secs(10),
            repair_interval: Duration::from_secs(5),
            empty_wait: Duration::from_secs(60),
            removal_timeout: Duration::from_secs(10),
            flapping_window: Duration::from_secs(60),
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// What one node can hold, as whoever runs it found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Most instances that it can be connected to at a time.
    pub instances_max: usize,
    /// What sets that bound and what can be done about it, in a sentence.
    pub why: String,
}

/// Most groups that one node guards.
pub const GROUPS_MAX: usize = 20_000;
/// Most groups that are looked at for the first time at once.
pub const FIRST_LOOKS_MAX: usize = 256;
/// How long one of them that does not answer holds up the next.
pub const FIRST_LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How many looks at instances that are down, or not back yet, one node takes in a second, all groups together: each is a
/// connection that fails, and without a bound a site that goes dark would keep the node so busy that it misses the return.
pub const LOST_LOOKS_PER_SECOND_MAX: u32 = 2000;
/// Most instances of one group.
pub const INSTANCES_PER_GROUP_MAX: usize = 256;
/// The fewest instances that a group counts for when room is needed for it: the replicas of a new one are not known yet, and
/// without one it could not be helped.
pub const INSTANCES_PER_GROUP_MIN: usize = 2;
/// Longest name of a group, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Entries of history kept per group, beside events of replicas.
pub const HISTORY_PER_GROUP_MAX: usize = 32;
/// Events of replicas kept per group in its history.
pub const REPLICA_EVENTS_PER_GROUP_MAX: usize = 32;
/// What is kept per group of what hooks are still to be told; the oldest goes first.
pub const UNTOLD_PER_GROUP_MAX: usize = 64;
/// Longest sentence that is kept for a hook, in characters.
pub const HOOK_REASON_CHARS_MAX: usize = 1000;
/// Histories (`master_replid`) of a group that are remembered.
pub const LINEAGE_MAX: usize = 4;
/// How many replicas have to acknowledge a fenced master's writes. One: the old master is fenced as soon as the last of
/// its replicas was promoted or repointed, and a healthy one goes on taking writes until it has lost all of them. Each
/// more would fence one repointing earlier, and block a healthy master one lost replica earlier.
pub const FENCE_REPLICAS: u32 = 1;
/// The shortest time after which a replica that is silent does not count. Replicas acknowledge once a second and servers
/// count in whole seconds, so that with 1 an acknowledgement that is 0.2 s late stops the writes of a healthy master.
pub const FENCE_LAG_SECS_MIN: u32 = 2;
/// From the third failure in a row on each pause is twice as long, up to 2^6 times `repair_interval`.
const PAUSE_DOUBLINGS_MAX: u32 = 6;
/// So many instances in trouble at the same time are reconnected to as densely as one; with more, each less often.
pub const DENSE_INSTANCES_MAX: usize = 16;
/// Steps recorded of one failover.
pub const STEPS_MAX: usize = 256;

impl Policy {
    /// Whether this mistake is made on purpose.
    #[cfg(feature = "mutations")]
    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether this mistake is made on purpose: never, in this build.
    #[cfg(not(feature = "mutations"))]
    pub(crate) const fn has(&self, _: Mutation) -> bool {
        false
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    /// A sentence that names the setting, its value and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        if self.check_interval < Duration::from_millis(10) {
            return Err(format!(
                "check_interval is {} ms, but must be at least 10 ms",
                ms(self.check_interval)
            ));
        }
        if self.check_interval > Duration::from_secs(3600) {
            return Err("check_interval must be at most one hour".to_owned());
        }
        if self.max_down_time < Duration::from_millis(100) {
            return Err(format!(
                "max_down_time is {} s, but must be at least 0.1 s",
                self.max_down_time.as_secs_f64()
            ));
        }
        if self.max_down_time > Duration::from_secs(86_400) {
            return Err("max_down_time must be at most one day".to_owned());
        }
        if self.crash_down_time > self.max_down_time {
            return Err(format!(
                "crash_down_time ({} s) must not be longer than max_down_time ({} s): a refusal proves more than silence",
                self.crash_down_time.as_secs_f64(),
                self.max_down_time.as_secs_f64()
            ));
        }
        if self.parallel_syncs == 0 {
            return Err("parallel_syncs must be at least 1".to_owned());
        }
        if self.failover_timeout < Duration::from_secs(1) {
            return Err("failover_timeout must be at least 1 s".to_owned());
        }
        if self.cooldown > Duration::from_secs(86_400) {
            return Err("cooldown must be at most one day".to_owned());
        }
        if self.before_failover_timeout > Duration::from_secs(60) {
            return Err("before_failover_timeout_ms must be at most 60000".to_owned());
        }
        Ok(())
    }

    /// What every instance of a fenced group is set to; `None` where groups are not fenced.
    pub fn fence(&self) -> Option<MinReplicas> {
        match self.fencing {
            Fencing::None => None,
            Fencing::MinReplicas => {
                let secs = self.max_down_time.as_secs_f64().ceil();
                // At most a day, see `validate`.
                let secs =
                    u32::try_from(Duration::from_secs_f64(secs).as_secs()).unwrap_or(u32::MAX);
                let max_lag_secs = secs.max(FENCE_LAG_SECS_MIN);
                Some(MinReplicas { to_write: FENCE_REPLICAS, max_lag_secs })
            }
        }
    }

    /// How long something that failed so often in a row is left alone. The first time it may have been a moment's
    /// weakness, and a second master must not wait for long.
    pub fn pause_after(&self, failures: u32) -> Duration {
        match failures {
            0 | 1 => self.check_interval,
            2.. => {
                let doublings = (failures - 2).min(PAUSE_DOUBLINGS_MAX);
                self.repair_interval * 2_u32.pow(doublings)
            }
        }
    }

    /// How many voters must agree, of `voters` in the committed membership.
    ///
    /// # Errors
    /// When the quorum that was set is larger than the membership: it could never be reached.
    pub fn quorum_of(&self, voters: usize) -> Result<usize, String> {
        match self.quorum {
            0 if self.has(Mutation::QuorumTooLow) => Ok((voters / 2).max(1)),
            0 => Ok(voters / 2 + 1),
            set if set <= voters => Ok(set),
            set => Err(format!(
                "quorum is {set}, but the cluster has {voters} {}",
                if voters == 1 { "voter" } else { "voters" }
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_contradictions_are_named() {
        assert_eq!(Policy::default().validate(), Ok(()));
        let policy = Policy { crash_down_time: Duration::from_secs(9), ..Policy::default() };
        assert!(policy.validate().expect_err("contradiction").contains("crash_down_time (9 s)"));
        let policy = Policy { parallel_syncs: 0, ..Policy::default() };
        assert!(policy.validate().expect_err("zero").contains("parallel_syncs"));
    }

    #[test]
    fn quorum_is_counted_over_voters() {
        let policy = Policy::default();
        assert_eq!(policy.quorum_of(1), Ok(1));
        assert_eq!(policy.quorum_of(3), Ok(2));
        assert_eq!(policy.quorum_of(4), Ok(3));
        let policy = Policy { quorum: 2, ..policy };
        assert!(policy.quorum_of(1).expect_err("too large").contains("1 voter"));
    }
}
