//! What a node tells its hooks of what it sees itself: nobody agreed on it, so that it is in no record.
//!
//! The leader tells that a master is down, and up again. Whoever begins to lead tells it of those that are down already:
//! the one before may have died without a word. Each node tells of itself that it knows no leader.

use std::collections::BTreeMap;

use failover_core::addr::Addr;
use failover_core::fleet::Fleet;
use failover_core::node::{GroupName, Leadership};
use failover_core::notice::{Notice, What};
use failover_core::record::HookEvent;

use super::{Desk, HookCall};

/// What this node's hooks were told by it.
#[derive(Debug, Default)]
pub(crate) struct Sights {
    standing: Standing,
    /// The masters that are down, as long as this node leads.
    down: BTreeMap<GroupName, Addr>,
}

#[derive(Debug, Default)]
enum Standing {
    /// Nobody was ever heard of: that is a start, and no loss.
    #[default]
    NeverLed,
    Led,
    Lost,
}

impl Sights {
    /// Another node leads, or this one, or none.
    pub(crate) fn begin(&mut self, desk: &Desk, fleet: &Fleet) {
        self.down.clear();
        if fleet.leadership().token().is_some() {
            for (group, master, reason) in fleet.masters_down() {
                self.tell_down(desk, fleet, (group, master), reason);
            }
        }
    }

    /// Tells what a notice says of a master.
    pub(crate) fn tell(&mut self, desk: &Desk, fleet: &Fleet, notice: &Notice) {
        let Notice { group, what, sentence, .. } = notice;
        let leads = fleet.leadership().token();
        if let What::MasterChanged { old_master, new_master, epoch } = what {
            self.down.remove(group);
            if leads.is_none() {
                // Whether it was a failover is not known here, and is the same to whoever follows the master.
                let event = HookEvent::AfterFailover;
                desk.observed(HookCall {
                    old_master: Some(old_master.clone()),
                    new_master: Some(new_master.clone()),
                    epoch: Some(*epoch),
                    ..HookCall::seen(event, desk.now(), Some(group), sentence.clone())
                });
            }
            return;
        }
        let Some(entry) = fleet.record().entry(group).filter(|_| leads.is_some()) else { return };
        if let What::InstanceDown { addr } = what
            && *addr == entry.master
            && entry.confirmed
        {
            self.tell_down(desk, fleet, (group, addr), sentence);
        } else if let What::InstanceUp { addr } = what
            && self.down.get(group) == Some(addr)
        {
            self.down.remove(group);
            let call =
                HookCall::seen(HookEvent::MasterUp, desk.now(), Some(group), sentence.clone());
            let call = HookCall { addr: Some(addr.clone()), epoch: Some(entry.epoch), ..call };
            desk.seen(call, leads);
        }
    }

    fn tell_down(
        &mut self,
        desk: &Desk,
        fleet: &Fleet,
        (group, master): (&GroupName, &Addr),
        reason: &str,
    ) {
        if self.down.insert(group.clone(), master.clone()).as_ref() == Some(master) {
            return;
        }
        let epoch = fleet.record().entry(group).map(|entry| entry.epoch);
        let call =
            HookCall::seen(HookEvent::MasterDown, desk.now(), Some(group), reason.to_owned());
        let call = HookCall { addr: Some(master.clone()), epoch, ..call };
        desk.seen(call, fleet.leadership().token());
    }

    /// Tells that nobody leads any more, or that somebody does again.
    pub(crate) fn tell_quorum(&mut self, desk: &Desk, fleet: &Fleet) {
        let (led, known) = (fleet.led(), *fleet.leadership() != Leadership::None);
        let (event, reason) = match (&self.standing, led) {
            (Standing::NeverLed, _) if known => {
                self.standing = Standing::Led;
                return;
            }
            (Standing::Led, false) => {
                self.standing = Standing::Lost;
                let reason = "no leader is known: this node acts on no group, and goes on watching";
                (HookEvent::QuorumLost, reason.to_owned())
            }
            (Standing::Lost, true) if known => {
                self.standing = Standing::Led;
                let leader = match fleet.leadership() {
                    Leadership::Follower { leader } => leader,
                    Leadership::Leader(_) | Leadership::None => fleet.me(),
                };
                (HookEvent::QuorumBack, format!("{leader} leads"))
            }
            (Standing::NeverLed | Standing::Led | Standing::Lost, _) => return,
        };
        desk.seen(HookCall::seen(event, desk.now(), None, reason), None);
    }
}
