//! Dead, for the cluster: what the replicas must say before a master that this node sees down counts as dead.

use std::time::Duration;

use super::identity::follows_recorded;
use super::quorum::Peers;
use crate::addr::Addr;
use crate::group::Watches;
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::policy::Policy;
use crate::record::GroupEntry;
use crate::time::Time;
use crate::view::State;
use crate::watch::{Death, Watch};

/// An idle master's ping may be late by so much, and servers count whole seconds.
const PING_MARGIN: Duration = Duration::from_secs(2);

/// What the replicas' answers amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing speaks against it.
    Dead,
    /// These replicas have to be asked (again).
    Ask(Vec<Question>),
    /// A replica has news of the master; ask again at this moment.
    Vetoed {
        /// A sentence that follows "the master cannot be reached, but".
        why: String,
        /// When to look again.
        again_at: Time,
    },
}

/// One replica that has to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) addr: Addr,
    /// When.
    pub(crate) at: Time,
    /// A question that was sent at or after this and has no answer yet will do.
    pub(crate) since: Time,
}

/// What a verdict is made from.
pub(crate) struct Hearing<'a> {
    pub(crate) entry: &'a GroupEntry,
    pub(crate) watches: &'a Watches,
    pub(crate) policy: &'a Policy,
    /// What the other nodes see: they may reach a replica that is away for this one, and it has a say all the same.
    pub(crate) peers: &'a Peers,
    pub(crate) death: Death,
    /// When the master's trouble began.
    pub(crate) sign: Time,
    /// When it was seen down: what was asked before does not count.
    pub(crate) down: Time,
    /// Who has not answered until then has no say.
    pub(crate) patient_until: Time,
    pub(crate) now: Time,
}

/// Hears the replicas.
///
/// *Refusing*: every reachable replica says that its link is down. *Hung*, *loading*: no word is needed, a replica's link
/// to a silent master stays up for a minute; they are only asked for their offsets; but once the path to a hung one is gone
/// too, a replica that had news of it since has a veto. *Emptied*: nor is it, the master said so itself. *Unreachable*, and a
/// refusal that a replica contradicts for long: a replica with its link up has a veto while it has news of the master, and an
/// idle master needs its ping period to give any.
pub(crate) fn hear(hearing: &Hearing<'_>) -> Verdict {
    let Hearing { entry, watches, policy, peers, death, sign, down, patient_until, now } = *hearing;
    if policy.has(Mutation::ReplicasUnheard) {
        return Verdict::Dead;
    }
    let mut ask = Vec::new();
    let mut veto: Option<(String, Time)> = None;
    let ping_period = watches
        .get(&entry.master)
        .and_then(Watch::facts)
        .and_then(|facts| facts.ping_period_secs)
        .map_or(policy.ping_period, |secs| Duration::from_secs(secs.into()));
    let cut_off = watches.get(&entry.master).is_some_and(Watch::unreached);
    for (addr, watch) in watches.iter().filter(|(addr, _)| **addr != entry.master) {
        let borrowed = peers.facts(now, policy, addr).filter(|_| watch.away());
        if let Some((node, facts)) = borrowed {
            // What the other node read before the master was seen down is no offset to elect by: until it has read it anew,
            // or this node has, somebody else would be promoted in its place.
            if facts.asked_at < down && now < patient_until {
                ask.push(Question { addr: addr.clone(), at: now, since: down });
            }
            if !facts.link_up() || !follows_recorded(entry, watches, addr, facts) {
                continue;
            }
            let heard = facts
                .link_last_io_secs()
                .map(|secs| facts.asked_at - Duration::from_secs(secs.saturating_add(1)));
            match death {
                Death::Loading | Death::Emptied => {}
                Death::Hung if !cut_off => {}
                Death::Refusing if now < sign + policy.max_down_time => {
                    ask.push(Question { addr: addr.clone(), at: now, since: down });
                }
                Death::Hung | Death::Refusing | Death::Unreachable => {
                    let by = format!("{addr}, which {node} reaches,");
                    if let Some(news) = news(hearing, facts, ping_period, &by, heard) {
                        veto.get_or_insert(news);
                    }
                }
            }
            continue;
        }
        if watch.state() != State::Up {
            continue;
        }
        let read = watch.facts().filter(|facts| facts.asked_at >= down && watch.serves());
        let answers =
            watch.trouble_since().is_none() && watch.last_reply().is_some_and(|at| at > down);
        if answers && !watch.serves() {
            // It answers without facts: it is loading, busy, or does not let us in. It has no say.
            continue;
        }
        let Some(facts) = read else {
            // One that does not answer in time has no say, and cannot be elected either.
            if now < patient_until {
                ask.push(Question { addr: addr.clone(), at: now, since: down });
            }
            continue;
        };
        if !facts.link_up() || !follows_recorded(entry, watches, addr, facts) {
            continue;
        }
        let again = |at| Question {
            addr: addr.clone(),
            at,
            since: facts.asked_at + Duration::from_micros(1),
        };
        match death {
            Death::Loading | Death::Emptied => {}
            Death::Hung if !cut_off => {}
            Death::Refusing if now < sign + policy.max_down_time => {
                // The first moments count; one that contradicts for longer will do so for a while.
                let pause = if now >= sign + policy.corroboration_timeout {
                    policy.reconnect_interval_max
                } else {
                    policy.corroboration_interval
                };
                ask.push(again(facts.asked_at + pause));
            }
            Death::Hung | Death::Refusing | Death::Unreachable => {
                if let Some(news) =
                    news(hearing, facts, ping_period, &addr.to_string(), watch.heard_master())
                {
                    veto.get_or_insert(news);
                }
            }
        }
    }
    match veto {
        Some((why, again_at)) => Verdict::Vetoed { why, again_at },
        None if ask.is_empty() => Verdict::Dead,
        None => Verdict::Ask(ask),
    }
}

/// What speaks for a master whose replica's link is up, and when to look again.
fn news(
    hearing: &Hearing<'_>,
    facts: &Facts,
    ping_period: Duration,
    replica: &str,
    heard: Option<Time>,
) -> Option<(String, Time)> {
    let Hearing { policy, death, sign, now, .. } = *hearing;
    // News grow old: a master that was heard of since our path to it ended may have died after that.
    let fresh = heard.filter(|at| *at > sign && now < *at + ping_period + PING_MARGIN);
    if let Some(heard) = fresh {
        let why = format!("its replica {replica} had news of it at {heard}");
        return Some((why, now + policy.check_interval));
    }
    let silent_enough = sign + ping_period + PING_MARGIN;
    // One that hung before the path to it was gone need not be idle to be silent. A link that never says when it heard of its
    // master stays up for ever, and says no more after a longer wait.
    let tells = facts.flavor.manners().tells_last_io;
    if death == Death::Hung || !tells || now >= silent_enough {
        return None;
    }
    let why = format!(
        "the link of its replica {replica} is up, and an idle master may be silent until {silent_enough}"
    );
    Some((why, silent_enough.min(now + policy.check_interval)))
}

#[cfg(test)]
mod tests;
