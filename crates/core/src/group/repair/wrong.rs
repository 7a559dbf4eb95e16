//! What is wrong with one instance, and whether it returned, was left behind, was changed by hand or is another server.

use crate::addr::Addr;
use crate::group::identity::{follows_recorded, same_process};
use crate::group::{Context, Group};
use crate::instance::{Facts, Role};
use crate::record::Kind;
use crate::view::State;
use crate::watch::Watch;

/// What is wrong with one instance.
pub(in crate::group) enum Wrong {
    Nothing,
    LeaveAlone(String),
    Repair(Kind, String),
    /// Changed by hand.
    Drift(Kind, String),
}

impl Group {
    /// What is wrong with an instance that answers.
    pub(super) fn wrong_with(
        &self,
        ctx: &Context<'_>,
        addr: &Addr,
        watch: &Watch,
        facts: &Facts,
    ) -> Wrong {
        let master = &self.entry.master;
        let Some(known) = self.entry.instances.get(addr) else { return Wrong::Nothing };
        // One that was here all the time was moved by hand; one that was not is another server at the same address.
        if !self.settled.contains_key(addr)
            && let Some(group) = self.stranger_of(ctx, facts)
        {
            return Wrong::LeaveAlone(format!(
                "{addr} has the data of the group {group}: its address was given to another server, which is left alone; \
                 forget it here"
            ));
        }
        if let Some(wrong) = self.wrong_copy(addr, watch, facts) {
            return wrong;
        }
        match &facts.role {
            Role::Master { .. } if self.is_the_master_itself(facts) => Wrong::Nothing,
            Role::Master { .. } if known.abandoned.is_some() => Wrong::Repair(
                Kind::Demotion,
                format!(
                    "{addr} became master by a promotion that was given up, while {master} is the recorded one"
                ),
            ),
            Role::Master { .. } if !known.attached => Wrong::LeaveAlone(format!(
                "{addr} is a master that was never seen attached to this group"
            )),
            Role::Master { .. } if watch.returned() && self.leads_strangers(facts) => {
                Wrong::LeaveAlone(format!(
                    "{addr} is a master of replicas that are not of this group: its address may have been given to another \
                     server, which is left alone; forget it here"
                ))
            }
            Role::Master { .. } if watch.returned() => Wrong::Repair(
                Kind::Demotion,
                format!("{addr} returned as a master, while {master} is the recorded one"),
            ),
            // A failover that this node did not see left it behind: nobody made it one by hand.
            Role::Master { .. } if !self.settled.contains_key(addr) => Wrong::Repair(
                Kind::Demotion,
                format!("{addr} is a master still, while {master} is the recorded one"),
            ),
            Role::Master { .. } => Wrong::Drift(
                Kind::Demotion,
                format!("{addr} was made a master by hand, while {master} is the recorded one"),
            ),
            // It may be another name of the master, unless it had one for it and was given this one, which leads nowhere.
            Role::Replica { master: of, .. }
                if !facts.link_up()
                    && self.entry.instance_of(of).is_none()
                    && self.settled.get(addr).is_some_and(|before| before.of != *of) =>
            {
                pointed_away(addr, of)
            }
            Role::Replica { .. } if follows_recorded(&self.entry, &self.watches, addr, facts) => {
                Wrong::Nothing
            }
            Role::Replica { master: of, .. } => {
                let Some(of) = self.entry.instance_of(of) else {
                    return if known.attached && self.is_straggler(facts) {
                        Wrong::Repair(
                            Kind::Repair,
                            format!(
                                "{addr} follows {of}, where the group's master was, and not {master}"
                            ),
                        )
                    } else if self.settled.contains_key(addr) {
                        Wrong::Drift(
                            Kind::Repair,
                            format!(
                                "{addr} was pointed at {of} by hand, which is not of this group"
                            ),
                        )
                    } else {
                        Wrong::LeaveAlone(format!(
                            "{addr} follows {of}, which is not of this group, and may be another server by now: forget it \
                             here, or point it at {master}"
                        ))
                    };
                };
                let upwards = self.follows_within(of);
                let below_master = upwards == Some(master);
                let settled = self.settled.contains_key(addr);
                let chained = below_master && !known.attached && !self.was_master(of);
                if settled && self.leads_round(addr) {
                    Wrong::Drift(
                        Kind::Repair,
                        format!("{addr} was pointed at {of} by hand, in a ring without a master"),
                    )
                } else if settled && self.is_replica(of) || chained {
                    Wrong::LeaveAlone(format!(
                        "{addr} follows {of}, itself a replica: a chain is reported, not changed"
                    ))
                } else {
                    Wrong::Repair(
                        Kind::Repair,
                        format!(
                            "{addr} follows {of}, which is not the master any more, and not {master}"
                        ),
                    )
                }
            }
        }
    }

    /// Whom a replica of the group follows, when that is an instance of the group too.
    fn follows_within(&self, addr: &Addr) -> Option<&Addr> {
        let watch = self.watches.get(addr).filter(|watch| watch.state() == State::Up)?;
        self.entry.instance_of(watch.facts()?.follows()?)
    }

    fn is_replica(&self, addr: &Addr) -> bool {
        self.watches.get(addr).is_some_and(|watch| {
            watch.state() == State::Up
                && watch.facts().is_some_and(|facts| facts.follows().is_some())
        })
    }

    /// Whether it was the recorded master once.
    fn was_master(&self, addr: &Addr) -> bool {
        self.entry.instances.get(addr).is_some_and(|known| known.was_master)
    }

    /// Whether a replica follows itself over others.
    fn leads_round(&self, addr: &Addr) -> bool {
        let mut at = addr;
        for _ in 0..self.watches.len() {
            match self.follows_within(at) {
                Some(of) if of == addr => return true,
                Some(of) => at = of,
                None => return false,
            }
        }
        false
    }

    /// Whether it is the recorded master under another address.
    fn is_the_master_itself(&self, facts: &Facts) -> bool {
        let master = self.watches.get(&self.entry.master).and_then(Watch::facts);
        master.is_some_and(|master| same_process(master, facts))
    }

    /// Whether it is still on a history that the group's master left behind, so that it missed a failover.
    fn is_straggler(&self, facts: &Facts) -> bool {
        let older = self.entry.lineage.get(1..).unwrap_or_default();
        !facts.link_up() && facts.replication_id.as_ref().is_some_and(|id| older.contains(id))
    }
}

fn pointed_away(addr: &Addr, of: &Addr) -> Wrong {
    let why = format!("{addr} was pointed at {of} by hand, which is not of this group");
    Wrong::Drift(Kind::Repair, why)
}
