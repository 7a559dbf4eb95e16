//! How long a leader may act without asking anybody.
//!
//! A member that hears its leader refuses to elect another for `raft_election_max_ms`. A leader that was heard by a
//! majority therefore knows that there is no other one until that time is over, counted from when it *sent* what they
//! acknowledged, by its own clock. Raft itself lets a leader that is cut off believe in itself for ever; this does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failover_core::node::Token;
use failover_core::time::Time;
use openraft::Membership;

use super::types::{Member, MemberId};

/// This part of the election timeout is not used: the clocks of two hosts do not run alike.
const DRIFT_PART: u32 = 8;

/// The lease of this node, shared by whoever extends it and whoever asks it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    length: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// This node, which follows itself.
    own: Option<MemberId>,
    /// The term this node leads, while it does.
    term: Option<u64>,
    /// It leads none before this one any more: it voted for somebody else, or was told of a later one.
    from: u64,
    /// The voters: one set, or the two of a change of membership, each of which must have a majority.
    configs: Vec<Vec<MemberId>>,
    /// When the last request that a member acknowledged was sent, in that term.
    acked: BTreeMap<MemberId, Time>,
    /// Acknowledgements of what was sent until then do not count, also those that are still on their way.
    forgotten: Option<Time>,
}

impl Lease {
    /// Of a cluster whose members wait at least `election_max` after they heard their leader.
    pub(crate) fn new(election_max: Duration) -> Self {
        let length = election_max - election_max / DRIFT_PART;
        Self { length, state: Arc::default() }
    }

    /// A member accepted, as a follower of this term, what was sent to it then.
    pub(crate) fn acked(&self, member: MemberId, term: u64, sent: Time) {
        let mut state = self.state();
        if state.forgotten.is_some_and(|until| sent <= until) {
            return;
        }
        state.enter(term);
        if state.term == Some(term) {
            let acked = state.acked.entry(member).or_insert(sent);
            *acked = sent.max(*acked);
        }
    }

    /// This node leads that term.
    pub(crate) fn leads(&self, own: MemberId, term: u64) {
        let mut state = self.state();
        state.own = Some(own);
        state.enter(term);
    }

    /// This node does not lead, and never will in a term before this one: an acknowledgement that comes late must not
    /// bring its lease back.
    pub(crate) fn ends(&self, from: u64) {
        let mut state = self.state();
        state.acked.clear();
        state.term = None;
        state.from = state.from.max(from);
    }

    /// Forgets every acknowledgement up to now: this node is about to follow somebody else, or may be. Should it go on
    /// leading, it asks again.
    pub(crate) fn forget(&self, now: Time) {
        let mut state = self.state();
        state.acked.clear();
        state.forgotten = Some(now);
    }

    /// Who votes.
    pub(crate) fn set_voters(&self, membership: &Membership<MemberId, Member>) {
        let configs =
            membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect();
        let mut state = self.state();
        if state.configs != configs {
            state.configs = configs;
        }
    }

    /// Whether this node may act under this token now.
    pub(crate) fn allows(&self, token: Token, now: Time) -> bool {
        let state = self.state();
        state.term == Some(token.0)
            && state.quorum_sent(now).is_some_and(|sent| now.since(sent) < self.length)
    }

    /// Whether this node leads in any term and may act now. Until it may not any more it promises nothing to another
    /// candidate: the majority that would elect that one could consist of this node and of those that the lease has
    /// nothing from.
    pub(crate) fn holds(&self, now: Time) -> bool {
        self.quorum_age(now).is_some_and(|age| age < self.length)
    }

    /// How long ago a majority was last known to follow this leader; `None` when it does not lead or never was.
    pub(crate) fn quorum_age(&self, now: Time) -> Option<Duration> {
        let state = self.state();
        state.term?;
        state.quorum_sent(now).map(|sent| now.since(sent))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets what was acknowledged in an older term. An answer of an older one is late and says nothing.
    fn enter(&mut self, term: u64) {
        if term >= self.from && self.term.is_none_or(|own| own < term) {
            self.acked.clear();
            self.term = Some(term);
        }
    }

    /// The moment such that a majority of every set acknowledged something sent then or later.
    fn quorum_sent(&self, now: Time) -> Option<Time> {
        self.configs
            .iter()
            .map(|voters| self.majority_sent(voters, now))
            .reduce(|one, other| Some(one?.min(other?)))
            .flatten()
    }

    fn majority_sent(&self, voters: &[MemberId], now: Time) -> Option<Time> {
        let sent = |voter: &MemberId| {
            if Some(*voter) == self.own { Some(now) } else { self.acked.get(voter).copied() }
        };
        let mut all: Vec<Time> = voters.iter().filter_map(sent).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        // Of 3 the second youngest, of 4 the third: whoever is younger completes the majority with it.
        all.get(voters.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(name: u64) -> MemberId {
        name.into()
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(1_000_000 + ms)
    }

    fn lease(configs: &[&[u64]]) -> Lease {
        let lease = Lease::new(Duration::from_millis(800));
        let configs: Vec<BTreeSet<MemberId>> =
            configs.iter().map(|set| set.iter().map(|name| id(*name)).collect()).collect();
        lease.set_voters(&Membership::new(configs, ()));
        lease
    }

    #[test]
    fn one_voter_needs_nobody() {
        let lease = lease(&[&[1]]);
        assert!(!lease.allows(Token(4), at(0)), "it does not lead");
        lease.leads(id(1), 4);
        assert!(lease.allows(Token(4), at(0)));
        assert!(!lease.allows(Token(3), at(0)), "an older term's token");
        assert!(!lease.allows(Token(5), at(0)));
        lease.ends(5);
        assert!(!lease.allows(Token(4), at(0)));
    }

    #[test]
    fn a_majority_counts_from_when_its_requests_were_sent() {
        let lease = lease(&[&[1, 2, 3]]);
        lease.leads(id(1), 1);
        assert!(!lease.allows(Token(1), at(0)), "nobody acknowledged anything");
        assert_eq!(lease.quorum_age(at(0)), None);
        lease.acked(id(2), 1, at(100));
        assert!(lease.allows(Token(1), at(799)));
        assert!(!lease.allows(Token(1), at(800)), "100 + 7/8 of 800");
        lease.acked(id(3), 1, at(300));
        assert!(lease.allows(Token(1), at(999)));
        assert_eq!(lease.quorum_age(at(999)), Some(Duration::from_millis(699)));
        lease.acked(id(3), 1, at(200));
        assert!(lease.allows(Token(1), at(999)), "a late answer takes nothing back");
    }

    #[test]
    fn four_voters_need_three() {
        let lease = lease(&[&[1, 2, 3, 4]]);
        lease.leads(id(1), 1);
        lease.acked(id(2), 1, at(0));
        assert!(!lease.allows(Token(1), at(1)), "two of four");
        lease.acked(id(3), 1, at(0));
        assert!(lease.allows(Token(1), at(1)));
        lease.acked(id(4), 1, at(500));
        assert!(!lease.allows(Token(1), at(700)), "the third youngest decides");
    }

    #[test]
    fn a_change_of_membership_needs_both_majorities() {
        let lease = lease(&[&[1, 2, 3], &[3, 4, 5]]);
        lease.leads(id(1), 1);
        lease.acked(id(2), 1, at(0));
        assert!(!lease.allows(Token(1), at(1)));
        lease.acked(id(4), 1, at(0));
        assert!(!lease.allows(Token(1), at(1)), "one of three in the second set");
        lease.acked(id(5), 1, at(0));
        assert!(lease.allows(Token(1), at(1)), "and this node is not even in it");
    }

    #[test]
    fn another_term_starts_from_nothing() {
        let lease = lease(&[&[1, 2, 3]]);
        lease.leads(id(1), 1);
        lease.acked(id(2), 1, at(0));
        lease.leads(id(1), 2);
        assert!(!lease.allows(Token(2), at(1)), "nothing was acknowledged in this one");
        lease.acked(id(2), 1, at(2));
        assert!(!lease.allows(Token(2), at(3)), "a late answer of the old term");
        lease.acked(id(2), 2, at(4));
        assert!(lease.allows(Token(2), at(5)));
        assert!(!lease.allows(Token(1), at(5)));
    }

    #[test]
    fn what_was_sent_before_a_vote_says_nothing_after_it() {
        let lease = lease(&[&[1, 2, 3]]);
        lease.leads(id(1), 1);
        lease.acked(id(2), 1, at(100));
        assert!(lease.holds(at(200)));
        assert!(!lease.holds(at(800)), "it is as long as what it allows");
        lease.forget(at(200));
        assert!(!lease.holds(at(201)));
        lease.acked(id(3), 1, at(200));
        assert!(!lease.allows(Token(1), at(202)), "its answer was on its way");
        lease.ends(1);
        lease.acked(id(3), 1, at(199));
        assert!(!lease.allows(Token(1), at(202)), "nor does it bring the term back");
        lease.acked(id(3), 1, at(201));
        assert!(lease.allows(Token(1), at(202)), "it went on leading");
    }

    #[test]
    fn a_late_answer_brings_no_lease_back() {
        let lease = lease(&[&[1, 2, 3]]);
        lease.leads(id(1), 4);
        lease.acked(id(2), 4, at(0));
        assert!(lease.allows(Token(4), at(1)));
        // It voted for another member.
        lease.ends(5);
        lease.acked(id(3), 4, at(1));
        assert!(!lease.allows(Token(4), at(2)));
        lease.leads(id(1), 5);
        lease.acked(id(3), 5, at(3));
        assert!(lease.allows(Token(5), at(4)));
    }

    #[test]
    fn an_answer_that_comes_before_the_lead_is_noticed_counts() {
        let lease = lease(&[&[1, 2, 3]]);
        lease.ends(4);
        lease.acked(id(2), 4, at(0));
        lease.leads(id(1), 4);
        assert!(lease.allows(Token(4), at(1)));
    }

    #[test]
    fn an_unknown_membership_allows_nothing() {
        let lease = lease(&[]);
        lease.leads(id(1), 1);
        assert!(!lease.allows(Token(1), at(0)));
    }
}
