//! What a change of master would be: who takes over, what may be lost, and why it cannot be. Nothing is changed here.

use std::time::Duration;

use super::Refusal;
use crate::addr::Addr;
use crate::event::RefusalCode;
use crate::group::diagnose::death_in_words;
use crate::group::elect::{Contest, Election, elect, judge};
use crate::group::{Context, Group};
use crate::time::Time;
use crate::watch::Watch;

/// What would be done.
pub(super) struct Draft {
    pub(super) target: Addr,
    pub(super) election: Election,
    pub(super) reason: String,
    /// How many bytes the target lacks.
    pub(super) lost: Option<u64>,
    pub(super) plan: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Group {
    pub(super) fn draft_switchover(
        &self,
        ctx: &Context<'_>,
        to: Option<&Addr>,
        timeout: Duration,
    ) -> Result<Draft, Refusal> {
        let old = &self.entry.master;
        let refused = |why: String| Err((RefusalCode::Refused, why));
        let master = self.watches.get(old).filter(|watch| watch.serves()).and_then(Watch::facts);
        let Some(master) = master.filter(|facts| facts.is_master()) else {
            return refused(format!(
                "{old} does not answer as a master now: a switchover needs a healthy one, a failover does not"
            ));
        };
        if let Some(why) = self.restart_in_doubt() {
            return refused(why);
        }
        let election = elect(&self.contest(ctx, None));
        let linked = |addr: &Addr| {
            let facts =
                self.watches.get(addr).filter(|watch| watch.serves()).and_then(Watch::facts);
            facts.is_some_and(|facts| {
                let of = facts.follows().and_then(|of| self.entry.instance_of(of));
                facts.link_up() && of == Some(old)
            })
        };
        let target = match to {
            Some(to) => {
                let target = self.named(to)?;
                self.eligible(ctx.now, &target)
                    .map_err(|why| (RefusalCode::Refused, format!("{target} {why}")))?;
                if !linked(&target) {
                    return refused(format!("{target} has no established link to {old}"));
                }
                target
            }
            // Behind by what was written since it was asked is no matter: it is waited for.
            None => {
                let first = election
                    .ranking
                    .iter()
                    .find(|place| place.rank.is_some() && linked(&place.addr));
                match first {
                    Some(place) => place.addr.clone(),
                    None => return refused(nobody(&election)),
                }
            }
        };
        let lag = self.behind(&target).unwrap_or_default();
        let ms = timeout.as_millis();
        let mut plan = Vec::new();
        let mut warnings = Vec::new();
        if master.can_pause_writes {
            plan.push(format!("writes on {old} are paused, for {ms} ms at most"));
        } else {
            warnings.push(format!(
                "{old} ({} {}) cannot pause writes: until {target} is master writes are refused, and what {target} \
                 has not received when {old} is demoted can be lost",
                master.flavor.name(),
                master.version
            ));
        }
        plan.push(format!(
            "{target} ({lag} bytes behind now) is waited for until it has everything"
        ));
        plan.push(format!("{old} is made a replica of {target}, and then {target} a master"));
        plan.extend(self.rest_of_plan(&target, true));
        let reason = format!("a switchover to {target} was asked for");
        Ok(Draft { target, election, reason, lost: Some(0), plan, warnings })
    }

    pub(super) fn draft_failover(
        &self,
        ctx: &Context<'_>,
        to: Option<&Addr>,
        force: bool,
        asked: Time,
    ) -> Result<Draft, Refusal> {
        let old = &self.entry.master;
        let refused = |why: String| Err((RefusalCode::Refused, why));
        let watch = self.watches.get(old);
        let death = self.death(ctx.now);
        let healthy = watch.is_some_and(|watch| watch.serves() && watch.is_master());
        let mut warnings = Vec::new();
        let state = match (death, watch) {
            (Some((death, _, _)), Some(watch)) => death_in_words(old, death, watch, ctx.now),
            (_, _) if healthy => {
                let why = format!("{old} is healthy: use switchover, which loses nothing");
                if !force {
                    return refused(why);
                }
                warnings.push(format!(
                    "{why}; until it follows, two masters take writes, and what it takes then is lost"
                ));
                format!("{old} is healthy")
            }
            (_, _) if !force => {
                return refused(format!(
                    "{old} is not down for this node ({}); force replaces it all the same",
                    self.reason(ctx)
                ));
            }
            (_, _) => {
                warnings.push(format!(
                    "{old} is not known to be down: if it lives, it takes writes until it follows, which are lost"
                ));
                format!("it is not known whether {old} is down")
            }
        };
        let election = elect(&self.contest(ctx, Some(asked)));
        let target = match (to, &election.chosen) {
            (Some(to), chosen) => {
                let target = self.named(to)?;
                match judge(&self.contest(ctx, Some(asked)), &target) {
                    Ok(_) => {}
                    Err(why) if force && self.could_serve(&target) => {
                        warnings
                            .push(format!("{target} would not be promoted otherwise: it {why}"));
                    }
                    Err(why) => return refused(format!("{target} {why}")),
                }
                if let Some(best) = chosen.as_ref().filter(|best| **best != target) {
                    warnings.push(format!(
                        "{best} would be promoted otherwise; what it has and {target} has not is lost"
                    ));
                }
                target
            }
            (None, Some(chosen)) => chosen.clone(),
            (None, None) => return refused(nobody(&election)),
        };
        let lost = self.behind(&target);
        let mut plan = vec![match lost {
            Some(lost) => format!(
                "{target} is promoted; it is {lost} bytes behind the last known offset of {old}, which may be lost"
            ),
            None => format!("{target} is promoted; what {old} took last and it lacks is not known"),
        }];
        plan.extend(self.rest_of_plan(&target, healthy));
        let reason = format!("a failover to {target} was asked for; {state}");
        Ok(Draft { target, election, reason, lost, plan, warnings })
    }

    fn contest(&self, ctx: &Context<'_>, read_after: Option<Time>) -> Contest<'_> {
        let sign = self.death(ctx.now).map_or(ctx.now, |(_, sign, _)| sign);
        Contest { dead_since: sign, read_after, ..self.contest_at(ctx.now) }
    }

    /// The instance that somebody names.
    fn named(&self, to: &Addr) -> Result<Addr, Refusal> {
        let Some(target) = self.entry.instance_of(to) else {
            let why = format!("{to} is no instance of the group {}", self.name);
            return Err((RefusalCode::UnknownInstance, why));
        };
        if *target == self.entry.master {
            return Err((RefusalCode::Refused, format!("{target} is the master already")));
        }
        Ok(target.clone())
    }

    /// Whether it answers and belongs to the group: all that is asked of one whom a person insists on.
    pub(in crate::group) fn could_serve(&self, addr: &Addr) -> bool {
        self.watches.get(addr).is_some_and(|watch| watch.serves() && watch.facts().is_some())
            && self.entry.instances.get(addr).is_some_and(|known| known.attached)
    }

    /// How far an instance is behind the last known offset of the master.
    fn behind(&self, addr: &Addr) -> Option<u64> {
        let facts = |addr: &Addr| self.watches.get(addr).and_then(Watch::facts);
        let master = facts(&self.entry.master)?;
        let replica = facts(addr)?;
        (master.replication_id == replica.replication_id)
            .then(|| master.offset.saturating_sub(replica.offset))
    }

    fn rest_of_plan(&self, target: &Addr, old_follows: bool) -> Vec<String> {
        let old = &self.entry.master;
        let others: Vec<String> = self
            .watches
            .keys()
            .filter(|addr| *addr != target && *addr != old)
            .map(Addr::to_string)
            .collect();
        let mut plan = Vec::new();
        if !others.is_empty() {
            plan.push(format!("{} told to follow {target}", are(&others)));
        }
        plan.push(if old_follows {
            format!("{old} follows {target}, and its clients are cut off, so that they look again")
        } else {
            format!("{old} is made a replica of {target} when it is back")
        });
        plan
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn nobody(election: &Election) -> String {
    let reasons: Vec<String> = election
        .ranking
        .iter()
        .map(|place| match &place.refused {
            Some(why) => format!("{} {why}", place.addr),
            None => format!("{} has no established link", place.addr),
        })
        .collect();
    if reasons.is_empty() {
        return "no other instance of the group is known: nobody can take over".to_owned();
    }
    format!("no replica can take over: {}", reasons.join("; "))
}
