//! How a node without a record finds its cluster, or founds it.
//!
//! All the first nodes are started with the same list, in any order. The one with the lowest address founds the cluster
//! once every node of the list is there and fresh, or a majority is and a second has passed; the others see that and
//! follow. Who was seen fresh then is remembered, with the number of its store: such a node is a first member. Any
//! other node that has the address of a member but no record lost it, and may have voted: it gets a new number, and the
//! leader puts it in the place of the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::time::Time;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::message::{About, Answer, Ask, Fresh};
use super::store::{Cluster, Founder};
use super::types::{MemberId, random, show};
use super::{RaftBroker, lock};

/// How often the other nodes are asked who they are.
const HELLO_INTERVAL: Duration = Duration::from_millis(100);
/// How long one of them is waited for.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_millis(300);
/// An answer that is older does not count.
const HELLO_AGE_MAX: Duration = Duration::from_secs(1);
/// How long nodes that do not answer are waited for, when a majority does.
const MAJORITY_WAIT: Duration = Duration::from_secs(1);
/// From when on it is said what a node without a record waits for.
const SAY_WAIT: Duration = Duration::from_secs(3);
/// How often a node that has no place yet asks for one.
const JOIN_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is said why it has none.
const SAY_INTERVAL: Duration = Duration::from_secs(30);

/// An invitation, and where the number goes under which it is followed.
pub(super) type Invited = (Cluster, oneshot::Sender<MemberId>);

/// What another node answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Fresh(Fresh),
    Member(About),
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Ask again.
    Wait,
    /// Found the cluster, with these who are fresh.
    Found(Vec<Founder>),
    /// It was founded with this node: start with nothing, and hear the rest from the leader.
    Start(About),
    /// Take the place of the member that this node was.
    Rejoin(About),
    /// There is a cluster, and this node is not in it.
    Outside,
}

/// This node, as long as it is nobody's member.
struct Newcomer<'a> {
    addr: &'a Addr,
    nonce: u64,
    list: &'a [Addr],
    began: Time,
}

impl Newcomer<'_> {
    fn decide(&self, heard: &BTreeMap<Addr, (Time, Heard)>, now: Time) -> Step {
        let recent = heard.iter().filter(|(_, (at, _))| now.since(*at) < HELLO_AGE_MAX);
        let mut members = Vec::new();
        let own = Founder { addr: self.addr.clone(), nonce: self.nonce };
        let mut fresh = vec![own.clone()];
        for (addr, (_, heard)) in recent {
            match heard {
                Heard::Member(about) => members.push(about),
                Heard::Fresh(other) if other.list == self.list && self.list.contains(addr) => {
                    fresh.push(Founder { addr: addr.clone(), nonce: other.nonce });
                }
                Heard::Fresh(_) => {}
            }
        }
        if let Some(about) = members.iter().find(|about| about.cluster.founders.contains(&own)) {
            return Step::Start((*about).clone());
        }
        let is_own = |(_, addr): &(MemberId, Addr)| addr == self.addr;
        if let Some(about) = members.iter().find(|about| about.members.iter().any(is_own)) {
            return Step::Rejoin((*about).clone());
        }
        if !members.is_empty() {
            let known = members.iter().any(|about| !about.members.is_empty());
            return if known { Step::Outside } else { Step::Wait };
        }
        let all = fresh.len() == self.list.len();
        let majority = fresh.len() * 2 > self.list.len();
        if !(all || majority && now.since(self.began) >= MAJORITY_WAIT) {
            return Step::Wait;
        }
        fresh.sort_by(|one, other| one.addr.cmp(&other.addr));
        // The others wait for it; should it end now, its answer gets old and the next one does it.
        if fresh.first() == Some(&own) { Step::Found(fresh) } else { Step::Wait }
    }

    /// What is waited for, when that takes long enough to be told: a sentence.
    fn waits_for(&self, heard: &BTreeMap<Addr, (Time, Heard)>, now: Time) -> Option<String> {
        if now.since(self.began) < SAY_WAIT {
            return None;
        }
        let (mut reasons, mut lowest) = (Vec::new(), self.addr);
        for addr in self.list.iter().filter(|addr| *addr != self.addr) {
            let recent = heard.get(addr).filter(|(at, _)| now.since(*at) < HELLO_AGE_MAX);
            match recent.map(|(_, heard)| heard) {
                None => reasons.push(format!("{addr} does not answer")),
                Some(Heard::Fresh(other)) if other.list != self.list => {
                    reasons.push(format!("{addr} has {} for its raft_cluster", show(&other.list)));
                }
                Some(Heard::Fresh(_)) => lowest = lowest.min(addr),
                Some(Heard::Member(about)) => reasons.push(format!(
                    "{addr} is a member of a cluster that was founded and has not begun: start {}",
                    show(about.cluster.founders.iter().map(|founder| &founder.addr))
                )),
            }
        }
        if reasons.is_empty() {
            reasons.push(format!("{lowest}, the lowest address, is to do it"));
        }
        Some(format!(
            "this node has no record, and the cluster of {} is not founded yet, which takes most of them: {}",
            show(self.list),
            reasons.join("; ")
        ))
    }
}

impl RaftBroker {
    /// Finds the cluster or founds it, and takes part.
    pub(super) async fn find_cluster(
        &self,
        mut invites: mpsc::Receiver<Invited>,
    ) -> Result<(), String> {
        let settings = &self.0.settings;
        let list = settings.list();
        let newcomer = Newcomer {
            addr: &settings.addr,
            nonce: self.meta().nonce,
            list: &list,
            began: self.0.clock.now(),
        };
        let mut heard = BTreeMap::new();
        let mut hello = interval(HELLO_INTERVAL);
        hello.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Said::default();
        loop {
            tokio::select! {
                Some((cluster, joined)) = invites.recv() => {
                    let id = MemberId::another()?;
                    self.begin_in(id, cluster).await?;
                    let _ = joined.send(id);
                    return Ok(());
                }
                _ = hello.tick() => {}
            }
            let others = list.iter().filter(|addr| **addr != settings.addr);
            let answers = join_all(others.map(|addr| self.hello(addr, HELLO_TIMEOUT))).await;
            let now = self.0.clock.now();
            for (addr, answer) in answers.into_iter().flatten() {
                heard.insert(addr, (now, answer));
            }
            match newcomer.decide(&heard, now) {
                Step::Wait => {
                    if let Some(why) = newcomer.waits_for(&heard, now) {
                        said.say(why, now);
                    }
                }
                Step::Found(founders) => {
                    let id = random()?;
                    let cluster = Cluster { id, list: list.clone(), founders };
                    return self.begin_in(MemberId::first(&settings.addr), cluster).await;
                }
                Step::Start(about) => {
                    return self
                        .begin_in(MemberId::first(&settings.addr), about.cluster)
                        .await;
                }
                Step::Rejoin(about) => {
                    tracing::warn!(
                        "the cluster knows this node, and it has no record of that: it is taken in again as a new member"
                    );
                    return self.begin_in(MemberId::another()?, about.cluster).await;
                }
                Step::Outside => said.say(
                    format!(
                        "there is a cluster, and this node is not in it: POST /v1/cluster/members {{\"addr\":\"{}\"}} on \
                         one of its members takes it in",
                        settings.addr
                    ),
                    now,
                ),
            }
        }
    }

    /// Takes part in a cluster for the first time.
    async fn begin_in(&self, id: MemberId, cluster: Cluster) -> Result<(), String> {
        let mut meta = self.meta();
        meta.id = id;
        meta.cluster = Some(cluster);
        let store = self.store().ok_or("the node is stopping")?;
        store.save_meta(&meta).await?;
        *lock(&self.0.meta) = meta;
        self.begin().await
    }

    pub(super) async fn hello(&self, addr: &Addr, limit: Duration) -> Option<(Addr, Heard)> {
        match self.call(addr, &Ask::Hello, limit).await.ok()? {
            Answer::Fresh(fresh) => Some((addr.clone(), Heard::Fresh(fresh))),
            Answer::Member(about) => Some((addr.clone(), Heard::Member(about))),
            Answer::Raft(_)
            | Answer::Joined(_)
            | Answer::Noted
            | Answer::Elsewhere(_)
            | Answer::Refused(_) => None,
        }
    }

    /// Asks for a place until there is one: for a node that lost its record, or was invited and not taken in.
    pub(super) async fn ask_for_a_place(&self) {
        let settings = &self.0.settings;
        let meta = self.meta();
        let Some(cluster) = meta.cluster else { return };
        let mut targets: Vec<Addr> =
            cluster.list.iter().chain(&settings.cluster).cloned().collect();
        targets.extend(cluster.founders.into_iter().map(|founder| founder.addr));
        targets.sort();
        targets.dedup();
        targets.retain(|addr| *addr != settings.addr);
        let join = Ask::Join { cluster: cluster.id, id: meta.id, addr: settings.addr.clone() };
        let mut said = Said::default();
        while self.running().is_some_and(|running| !running.votes(meta.id)) {
            if let Err(why) = self.ask_each(&targets, &join).await {
                let sentence = format!("this node has no place in its cluster yet: {why}");
                said.say(sentence, self.0.clock.now());
            }
            sleep(JOIN_INTERVAL).await;
        }
    }

    /// Asks one after the other until one takes care of it.
    async fn ask_each(&self, targets: &[Addr], join: &Ask) -> Result<(), String> {
        let mut why = "no other member answers".to_owned();
        for target in targets {
            let mut target = target.clone();
            // Who leads may change while it is asked for; the next round finds out.
            for _ in 0..2 {
                match self.call(&target, join, HELLO_TIMEOUT).await {
                    Ok(Answer::Noted) => return Ok(()),
                    Ok(Answer::Elsewhere(leader)) => target = leader,
                    Ok(Answer::Refused(refused)) => {
                        why = format!("{target} says: {refused}");
                        break;
                    }
                    Ok(
                        Answer::Raft(_) | Answer::Fresh(_) | Answer::Member(_) | Answer::Joined(_),
                    )
                    | Err(_) => break,
                }
            }
        }
        Err(why)
    }
}

/// Says something when it is new, and again after a while.
#[derive(Default)]
pub(super) struct Said(Option<(String, Time)>);

impl Said {
    pub(super) fn say(&mut self, sentence: String, now: Time) {
        let again = match &self.0 {
            Some((said, at)) => *said != sentence || now.since(*at) >= SAY_INTERVAL,
            None => true,
        };
        if again {
            tracing::warn!("{sentence}");
            self.0 = Some((sentence, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u16) -> Addr {
        Addr::new("10.0.0.1", number).expect("address")
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(1_000_000 + ms)
    }

    /// What the first of three with store 1 does, that began at 0.
    fn decide(own: u16, heard: &[(u16, u64, Heard)], now: u64) -> Step {
        let (addr_own, list) = (addr(own), [1, 2, 3].map(addr));
        let newcomer =
            Newcomer { addr: &addr_own, nonce: u64::from(own), list: &list, began: at(0) };
        let heard =
            heard.iter().map(|(from, ms, heard)| (addr(*from), (at(*ms), heard.clone()))).collect();
        newcomer.decide(&heard, at(now))
    }

    fn fresh(number: u16) -> Heard {
        Heard::Fresh(Fresh { nonce: number.into(), list: [1, 2, 3].map(addr).into() })
    }

    fn member(founders: &[(u16, u64)], members: &[u16]) -> Heard {
        let founders =
            founders.iter().map(|(from, nonce)| Founder { addr: addr(*from), nonce: *nonce });
        Heard::Member(About {
            id: 7.into(),
            cluster: Cluster { id: 9, list: Vec::new(), founders: founders.collect() },
            members: members
                .iter()
                .map(|from| (MemberId::first(&addr(*from)), addr(*from)))
                .collect(),
        })
    }

    #[test]
    fn the_lowest_founds_when_all_are_there() {
        assert_eq!(decide(1, &[(2, 0, fresh(2))], 5), Step::Wait);
        let all = [(2, 0, fresh(2)), (3, 0, fresh(3))];
        let Step::Found(founders) = decide(1, &all, 5) else { panic!("all are there") };
        assert_eq!(founders.len(), 3);
        assert_eq!(decide(2, &[(1, 0, fresh(1)), (3, 0, fresh(3))], 5), Step::Wait);
    }

    #[test]
    fn a_majority_founds_after_a_second_without_who_is_silent() {
        assert_eq!(decide(2, &[(3, 900, fresh(3))], 999), Step::Wait);
        let Step::Found(founders) = decide(2, &[(3, 900, fresh(3))], 1000) else {
            panic!("two of three are there")
        };
        assert_eq!(founders.len(), 2);
        assert_eq!(decide(2, &[(3, 900, fresh(3))], 2000), Step::Wait, "one is gone again");
        assert_eq!(decide(2, &[], 5000), Step::Wait, "alone it is no majority");
        let heard = [(1, 900, fresh(1)), (3, 900, fresh(3))];
        assert_eq!(decide(2, &heard, 1000), Step::Wait, "the first does it");
    }

    #[test]
    fn another_list_is_another_cluster() {
        let other = Heard::Fresh(Fresh { nonce: 2, list: vec![addr(1), addr(2)] });
        assert_eq!(decide(1, &[(2, 0, other), (3, 0, fresh(3))], 5), Step::Wait);
    }

    #[test]
    fn a_founder_starts_with_nothing() {
        let about = member(&[(1, 1), (2, 2)], &[1, 2, 3]);
        let Step::Start(found) = decide(2, &[(1, 0, about)], 5) else { panic!("it was seen") };
        assert_eq!(found.cluster.id, 9);
        let about = member(&[(1, 1), (2, 2)], &[]);
        assert!(matches!(decide(2, &[(1, 0, about)], 5), Step::Start(_)), "before the first entry");
    }

    #[test]
    fn who_lost_its_store_is_another_member() {
        let about = member(&[(1, 1), (2, 99), (3, 3)], &[1, 2, 3]);
        assert!(matches!(decide(2, &[(1, 0, about)], 5), Step::Rejoin(_)));
        let about = member(&[(1, 1), (3, 3)], &[1, 2, 3]);
        assert!(matches!(decide(2, &[(1, 0, about)], 5), Step::Rejoin(_)), "never seen before");
    }

    #[test]
    fn what_is_waited_for_is_said() {
        let (own, list) = (addr(2), [1, 2, 3].map(addr));
        let newcomer = Newcomer { addr: &own, nonce: 2, list: &list, began: at(0) };
        let waits_for = |heard: &[(u16, Heard)], now| {
            let heard = heard.iter().map(|(from, heard)| (addr(*from), (at(2900), heard.clone())));
            newcomer.waits_for(&heard.collect(), at(now)).unwrap_or_default()
        };
        assert_eq!(waits_for(&[], 2999), "");
        let other = Heard::Fresh(Fresh { nonce: 1, list: vec![addr(1), addr(2)] });
        let why = waits_for(&[(1, other)], 3000);
        assert!(
            why.contains("10.0.0.1:1 has 10.0.0.1:1, 10.0.0.1:2 for its raft_cluster"),
            "{why}"
        );
        assert!(why.contains("10.0.0.1:3 does not answer"), "{why}");
        let why = waits_for(&[(1, fresh(1)), (3, fresh(3))], 3000);
        assert!(why.contains("10.0.0.1:1, the lowest address, is to do it"), "{why}");
        let why = waits_for(&[(1, member(&[(1, 1), (3, 3)], &[])), (3, fresh(3))], 3000);
        assert!(why.contains("has not begun: start 10.0.0.1:1, 10.0.0.1:3"), "{why}");
    }

    #[test]
    fn a_cluster_without_this_node_is_waited_for() {
        let about = member(&[(1, 1), (3, 3)], &[1, 3]);
        assert_eq!(decide(2, &[(1, 4900, about), (3, 4900, fresh(3))], 5000), Step::Outside);
        let about = member(&[(1, 1), (3, 3)], &[]);
        assert_eq!(decide(2, &[(1, 4900, about)], 5000), Step::Wait, "it knows nobody yet");
    }
}
