//! What the other voters see of the group: the leader's questions, their answers, and the count against the quorum.
//!
//! An answer counts when it belongs to a question of this leadership that was asked after this node's own suspicion, and
//! for a short time only: a node that was stopped must not testify with what it saw before.

use std::collections::BTreeMap;

use super::fencing::has_no_data;
use super::{Context, Group};
use crate::action::Action;
use crate::addr::Addr;
use crate::event::{Sight, Testimony};
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::node::{Leadership, NodeId, Token};
use crate::policy::Policy;
use crate::time::Time;
use crate::view::{How, NodeView, State};
use crate::watch::{Death, Watch};

/// What the leader knows of the other nodes' sight of one group.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    heard: BTreeMap<NodeId, Heard>,
    /// Questions without an answer.
    asked: BTreeMap<NodeId, Time>,
    /// The master's trouble of which everyone was told: by the leader, so that they look; by a follower, as a hint.
    told: Option<Suspicion>,
}

/// What was told of a master in trouble.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// When the trouble began.
    since: Time,
    /// Whether the master was down already.
    down: bool,
}

/// The last answer of one node.
#[derive(Debug)]
struct Heard {
    /// When it was asked.
    asked_at: Time,
    /// When it answered.
    at: Time,
    /// Whom it took for the recorded master.
    master: Addr,
    dead: Option<Death>,
    sights: BTreeMap<Addr, Sight>,
}

impl Heard {
    /// What is shown of it beside its age.
    fn shown(&self) -> Vec<(Addr, State, How)> {
        let sights = self.sights.values();
        sights.map(|sight| (sight.addr.clone(), sight.state, sight.how)).collect()
    }

    /// When it is to be asked for again, so that its answer is there before this one is too old.
    fn stale_at(&self, policy: &Policy) -> Time {
        self.asked_at + policy.testimony_age_max / 2
    }

    fn is_fresh(&self, now: Time, policy: &Policy) -> bool {
        now.since(self.asked_at) <= policy.testimony_age_max || policy.has(Mutation::StaleVotes)
    }
}

impl Peers {
    /// The facts of an instance that another node reaches, and which node.
    pub(crate) fn facts(
        &self,
        now: Time,
        policy: &Policy,
        addr: &Addr,
    ) -> Option<(&NodeId, &Facts)> {
        self.heard
            .iter()
            .filter(|(_, heard)| heard.is_fresh(now, policy))
            .filter_map(|(node, heard)| {
                let sight = heard.sights.get(addr).filter(|sight| sight.state == State::Up)?;
                sight.facts.as_ref().map(|(facts, _)| (node, &**facts))
            })
            .max_by_key(|(_, facts)| facts.asked_at)
    }

    /// What the other nodes said of an instance when they were asked last, for people.
    pub(super) fn views<'a>(
        &'a self,
        now: Time,
        addr: &'a Addr,
    ) -> impl Iterator<Item = NodeView> + 'a {
        self.heard.iter().filter_map(move |(node, heard)| {
            let sight = heard.sights.get(addr)?;
            let since = u64::try_from(now.since(heard.asked_at).as_millis()).unwrap_or(u64::MAX);
            Some(NodeView {
                node: node.clone(),
                state: sight.state,
                how: sight.how,
                age_ms: sight.age_ms.saturating_add(since),
            })
        })
    }

    /// Whether a node says since `sign` that this master is dead. What it said of the master before, or says of it while
    /// it lags behind the record, is no word about this one.
    fn says_dead(
        &self,
        node: &NodeId,
        master: &Addr,
        sign: Time,
        now: Time,
        policy: &Policy,
    ) -> bool {
        self.heard.get(node).is_some_and(|heard| {
            heard.dead.is_some()
                && (heard.master == *master || policy.has(Mutation::VotesForAnother))
                && (heard.asked_at >= sign || policy.has(Mutation::StaleVotes))
                && heard.is_fresh(now, policy)
        })
    }

    /// Whether a node that was asked at `since` or later sees each of these instances down, or without data; `None` when it
    /// did not say, or does not know one of them. That it sees another one up counts before that.
    pub(super) fn sees_lost(
        &self,
        node: &NodeId,
        instances: &[Addr],
        since: Time,
        now: Time,
        policy: &Policy,
    ) -> Option<bool> {
        let heard = self.heard.get(node);
        let heard = heard.filter(|heard| heard.asked_at >= since && heard.is_fresh(now, policy))?;
        let is_lost = |addr: &Addr| {
            let sight = heard.sights.get(addr)?;
            match sight.state {
                State::Down => Some(true),
                State::Up => {
                    Some(sight.facts.as_ref().is_some_and(|(facts, _)| has_no_data(facts)))
                }
                State::Unknown => None,
            }
        };
        if instances.iter().any(|addr| is_lost(addr) == Some(false)) {
            return Some(false);
        }
        instances.iter().all(|addr| is_lost(addr) == Some(true)).then_some(true)
    }

    /// When a node is to be asked next: at once, when it was not asked since the sign; after a pause, when it answered.
    fn due(&self, node: &NodeId, sign: Time, now: Time, policy: &Policy) -> Time {
        if let Some(asked) = self.asked.get(node) {
            return *asked + policy.testimony_timeout;
        }
        match self.heard.get(node).filter(|heard| heard.asked_at >= sign) {
            None => now,
            Some(heard) => {
                let pause = (now.since(sign) / 10)
                    .clamp(policy.testimony_interval, policy.testimony_age_max / 2);
                heard.at + pause
            }
        }
    }
}

/// Whether enough voters see the master down.
#[derive(Debug)]
pub(super) struct Agreement {
    /// Why not, a sentence; `None` when they do.
    pub(super) missing: Option<String>,
    /// Too few answered at all.
    pub(super) silent: bool,
    /// When somebody is to be asked again.
    pub(super) again_at: Option<Time>,
}

impl Group {
    /// What this node sees of the group, for the leader that asks. It looks again at once, so that the next question
    /// finds something newer.
    pub fn testify(&mut self, ctx: &Context<'_>) -> Testimony {
        let sights = self
            .watches
            .iter()
            .map(|(addr, watch)| {
                let heard = watch.last_reply().unwrap_or(watch.since());
                let facts = watch.facts().filter(|_| watch.serves()).map(|facts| {
                    let age = ctx.now.since(facts.asked_at).as_micros();
                    (Box::new(facts.clone()), u64::try_from(age).unwrap_or(u64::MAX))
                });
                Sight {
                    addr: addr.clone(),
                    state: watch.state(),
                    how: watch.how(),
                    age_ms: u64::try_from(ctx.now.since(heard).as_millis()).unwrap_or(u64::MAX),
                    facts,
                }
            })
            .collect();
        let dead = self.death(ctx.now).map(|(death, _, _)| death);
        for watch in self.watches.values_mut() {
            watch.ask(ctx.now, ctx.now);
        }
        self.send_due_probes(ctx.now);
        Testimony { master: self.entry.master.clone(), dead, sights }
    }

    /// Another node answered this leader.
    pub fn testified(
        &mut self,
        ctx: &Context<'_>,
        node: NodeId,
        token: Token,
        asked_at: Time,
        testimony: Testimony,
    ) {
        let newer = self.peers.heard.get(&node).is_none_or(|heard| heard.asked_at <= asked_at);
        if ctx.leadership.token() != Some(token) || !ctx.voters.contains(&node) || !newer {
            return;
        }
        if self.peers.asked.get(&node).is_some_and(|asked| *asked <= asked_at) {
            self.peers.asked.remove(&node);
        }
        let Testimony { master, dead, sights } = testimony;
        let sights = sights
            .into_iter()
            .map(|mut sight| {
                if let Some((facts, age)) = &mut sight.facts {
                    // It is at least as new as this, by this node's clock.
                    facts.asked_at = asked_at - std::time::Duration::from_micros(*age);
                }
                (sight.addr.clone(), sight)
            })
            .collect();
        let heard = Heard { asked_at, at: ctx.now, master, dead, sights };
        let shown = heard.shown();
        let before = self.peers.heard.insert(node, heard);
        self.changed |= before.is_none_or(|before| before.shown() != shown);
        self.step(ctx);
    }

    /// A follower suspects the master: look for oneself, and ask again whoever did not see it down.
    pub fn hinted(&mut self, ctx: &Context<'_>) {
        if ctx.leadership.token().is_none() {
            return;
        }
        if let Some(watch) = self.watches.get_mut(&self.entry.master) {
            watch.ask(ctx.now, ctx.now);
        }
        self.peers.asked.clear();
        for heard in self.peers.heard.values_mut().filter(|heard| heard.dead.is_none()) {
            heard.asked_at = Time::ZERO;
        }
        self.step(ctx);
    }

    /// Tells the others of a master in trouble. The leader asks everyone once per trouble, so that their silence is counted
    /// from about the same moment as its own. A follower hints the leader, once when it begins to suspect and once when it
    /// sees the master down: the leader, whose own silence may have ended earlier, then asks for its vote at once and not at
    /// the next turn.
    pub(super) fn tell_suspicion(&mut self, ctx: &Context<'_>) {
        let watch = self.watches.get(&self.entry.master).filter(|watch| watch.away());
        let Some(watch) = watch else { return };
        let Some(since) = watch.trouble_since() else { return };
        let down = watch.state() == State::Down;
        let told = self.peers.told.filter(|told| told.since == since);
        match ctx.leadership {
            Leadership::Leader(token) if told.is_none() => self.ask_peers(ctx, *token, since),
            Leadership::Follower { leader } if told.is_none_or(|told| down && !told.down) => {
                let (leader, group) = (leader.clone(), self.name.clone());
                self.actions.push_back(Action::Hint { leader, group });
            }
            Leadership::Leader(_) | Leadership::Follower { .. } | Leadership::None => {}
        }
        let down = down || told.is_some_and(|told| told.down);
        self.peers.told = Some(Suspicion { since, down });
    }

    /// Counts the voters that see the master down since `sign`, and asks those that do not, or not any more.
    pub(super) fn agreement(&mut self, ctx: &Context<'_>, token: Token, sign: Time) -> Agreement {
        let quorum = match self.policy.quorum_of(ctx.voters.len()) {
            Ok(quorum) => quorum,
            Err(why) => return Agreement { missing: Some(why), silent: true, again_at: None },
        };
        self.ask_peers(ctx, token, sign);
        let (mut votes, mut denials) = (0, 0);
        let mut others = Vec::new();
        let mut again_at: Option<Time> = None;
        for node in ctx.voters {
            if node == ctx.me || self.says_dead(ctx, node, sign) {
                votes += 1;
                let due = self.peers.due(node, sign, ctx.now, &self.policy);
                let old_at = self.peers.heard.get(node).map(|heard| heard.stale_at(&self.policy));
                again_at = again_at.into_iter().chain(old_at.map(|at| at.max(due))).min();
                continue;
            }
            let heard =
                self.peers.heard.get(node).filter(|heard| {
                    heard.asked_at >= sign && heard.is_fresh(ctx.now, &self.policy)
                });
            others.push(match heard {
                Some(_) => {
                    denials += 1;
                    format!("{node} does not")
                }
                None => format!("{node} has not answered"),
            });
            let due = self.peers.due(node, sign, ctx.now, &self.policy);
            again_at = Some(again_at.map_or(due, |at| at.min(due)));
        }
        if votes >= quorum {
            return Agreement { missing: None, silent: false, again_at };
        }
        let missing = format!(
            "only {votes} of {} voters see it down and {quorum} are needed: {}",
            ctx.voters.len(),
            others.join(", ")
        );
        let silent = votes + denials < quorum;
        Agreement { missing: Some(missing), silent, again_at }
    }

    /// Whether the votes against the master are so young that it can be replaced on them. If not, whoever said so longer ago
    /// is asked once more, and the answer is when to look again.
    ///
    /// Votes that only explain why nothing is done may be older: a group that waits for a candidate for hours need not
    /// ask everyone all the time.
    pub(super) fn votes_are_old(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        sign: Time,
    ) -> Option<Time> {
        let quorum = self.policy.quorum_of(ctx.voters.len()).ok()?;
        let old: Vec<&NodeId> = ctx
            .voters
            .iter()
            .filter(|node| *node != ctx.me && self.says_dead(ctx, node, sign))
            .filter(|node| {
                let heard = self.peers.heard.get(*node);
                heard.is_some_and(|heard| {
                    ctx.now.since(heard.asked_at) > self.policy.vote_age_max
                        && !self.policy.has(Mutation::StaleVotes)
                })
            })
            .collect();
        let said = ctx.voters.iter().filter(|node| {
            *node == ctx.me || (self.says_dead(ctx, node, sign) && !old.contains(node))
        });
        if said.count() >= quorum {
            return None;
        }
        for node in old {
            let asked = self.peers.asked.get(node);
            if asked.is_none_or(|asked| *asked + self.policy.testimony_timeout <= ctx.now) {
                self.peers.asked.insert(node.clone(), ctx.now);
                let (node, group) = (node.clone(), self.name.clone());
                self.actions.push_back(Action::AskPeer { node, group, token });
            }
        }
        Some(ctx.now + self.policy.testimony_timeout)
    }

    fn says_dead(&self, ctx: &Context<'_>, node: &NodeId, sign: Time) -> bool {
        self.peers.says_dead(node, &self.entry.master, sign, ctx.now, &self.policy)
    }

    /// Asks the voters that did not say since `sign` that the master is down, each when its turn has come. All of them,
    /// when an instance can be reached only through one of them.
    pub(super) fn ask_peers(&mut self, ctx: &Context<'_>, token: Token, sign: Time) {
        let master = &self.entry.master;
        let blind = self.watches.iter().any(|(addr, watch)| addr != master && watch.away());
        for node in ctx.voters.iter().filter(|node| *node != ctx.me) {
            let heard = self.peers.heard.get(node);
            let agrees = self.says_dead(ctx, node, sign)
                && heard.is_some_and(|heard| heard.stale_at(&self.policy) > ctx.now);
            let due = self.peers.due(node, sign, ctx.now, &self.policy);
            if agrees && !blind || due > ctx.now {
                continue;
            }
            self.peers.asked.insert(node.clone(), ctx.now);
            self.actions.push_back(Action::AskPeer {
                node: node.clone(),
                group: self.name.clone(),
                token,
            });
        }
    }

    /// The newest facts of an instance, from this node or from one that reaches it.
    pub(super) fn facts_of(&self, now: Time, addr: &Addr) -> Option<&Facts> {
        let watch = self.watches.get(addr);
        let own = watch.and_then(Watch::facts);
        match self.reached_by(now, addr) {
            Some(node) => self
                .peers
                .facts(now, &self.policy, addr)
                .filter(|(by, _)| *by == node)
                .map(|(_, facts)| facts)
                .or(own),
            None => own,
        }
    }

    /// The node through which an instance can be reached that is away for this one; `None` when this node reaches it
    /// itself, or nobody does.
    pub(super) fn reached_by(&self, now: Time, addr: &Addr) -> Option<&NodeId> {
        if self.watches.get(addr).is_none_or(|watch| !watch.away()) {
            return None;
        }
        self.peers.facts(now, &self.policy, addr).map(|(node, _)| node)
    }

    /// The membership changed: who is no voter is asked nothing more, and what it said is nobody's sight.
    pub(super) fn forget_strangers(&mut self, ctx: &Context<'_>) {
        self.peers.heard.retain(|node, _| ctx.voters.contains(node));
        self.peers.asked.retain(|node, _| ctx.voters.contains(node));
    }

    /// The leadership changed: what was asked and heard belongs to the old one.
    pub(super) fn forget_peers(&mut self) {
        self.peers = Peers::default();
    }
}
