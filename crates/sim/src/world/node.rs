//! The node in the world: what it is told, and what becomes of what it wants done.

use std::time::Duration;

use failover_core::action::{Action, Command};
use failover_core::addr::Addr;
use failover_core::event::{CommandId, CommandResult, Event, Probed, ProposalId};
use failover_core::node::Token;
use failover_core::record::{Change, GroupEntry, Kind, Status};
use failover_core::time::Time;

use super::{Happening, World};
use crate::SERVERS;
use crate::invariants::Seen;
use crate::journal;
use crate::model_broker::Fate;
use crate::model_redis::Reply;
use crate::network::Way;
use crate::shell::{Order, Wish, Wrong};

impl World {
    /// Tells the core what happened, and does what it wants done.
    pub(super) fn tell(&mut self, event: Event) {
        if self.wrong == Some(Wrong::TurnDeaf) && self.round > 0 {
            return;
        }
        self.journal.note(self.now, || journal::event(&event));
        self.counts.events += 1;
        self.shell.fleet.handle(self.now, event);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(action) = self.shell.fleet.poll() {
            self.act(action);
        }
        let _ = self.shell.fleet.take_changed();
    }

    pub(super) fn act(&mut self, action: Action) {
        self.journal.note(self.now, || journal::action(&action));
        match action {
            Action::Probe { addr, seq, fresh, .. } => {
                let Some(server) = self.index(&addr) else { return };
                let times = if self.wrong == Some(Wrong::RepeatProbes) { 500 } else { 1 };
                for _ in 0..times {
                    self.observe(&Seen::Asked { server });
                }
                let wishes = self.shell.probe(self.now, server, seq, fresh);
                self.grant(server, wishes);
            }
            Action::Forget { addr } => {
                if let Some(server) = self.index(&addr) {
                    self.shell.forget(server);
                }
            }
            Action::Propose { id, token, changes } => {
                self.observe(&Seen::Proposed { changes: &changes });
                let (at, fate) = self.broker.propose(&mut self.rng, self.now, token);
                self.at(at, Happening::Settle { id, changes, fate });
            }
            Action::Command { id, addr, command, token, deadline, .. } => {
                self.command(id, &addr, command, token, deadline);
            }
            Action::Vet { group, id, candidate, .. } => {
                self.observe(&Seen::Vetted { candidate: &candidate });
                let slow = self.troubles && self.rng.u8(..20) == 0;
                let micros = self.rng.u64(5..if slow { 400_000 } else { 200 });
                let vetted = Event::Vetted { group, id, veto: None };
                self.after(Duration::from_micros(micros), Happening::Tell(vetted));
            }
            Action::Publish(_)
            | Action::Answer { .. }
            // There is no other node in this world.
            | Action::AskPeer { .. }
            | Action::Hint { .. } => {}
        }
    }

    pub(super) fn command(
        &mut self,
        id: CommandId,
        addr: &Addr,
        command: Command,
        token: Token,
        deadline: Time,
    ) {
        let Some(server) = self.index(addr) else { return };
        self.observe(&Seen::Commanded { addr, command: &command, token });
        let epoch = self.broker.entry(&self.group).map_or(0, |entry| entry.epoch);
        let refused =
            self.wrong == Some(Wrong::RefuseFollow) && matches!(command, Command::Follow { .. });
        if refused {
            let result = CommandResult::Refused("-NOPERM".to_owned());
            let event = Event::Commanded { group: self.group.clone(), id, result };
            self.after(Duration::from_micros(200), Happening::Tell(event));
            return;
        }
        if self.wrong == Some(Wrong::PromoteTwice) && matches!(command, Command::Promote { .. }) {
            let other = (0..SERVERS).find(|index| *index != server && *index != self.recorded());
            if let Some(other) = other {
                self.order(
                    other,
                    Order {
                        id: u64::MAX - id,
                        command: Command::Promote { run_id: None, fence: None },
                        epoch,
                        deadline,
                    },
                );
            }
        }
        self.order(server, Order { id, command, epoch, deadline });
    }

    pub(super) fn order(&mut self, server: usize, order: Order) {
        self.at(order.deadline, Happening::Overdue { server, id: order.id });
        let wishes = self.shell.order(self.now, server, order);
        self.grant(server, wishes);
    }

    /// Does for the shell what it cannot do itself.
    pub(super) fn grant(&mut self, server: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Send { conn, message } => {
                    let way = Way::Out(conn);
                    let at = self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO);
                    self.at(at, Happening::Reach { server, message });
                }
                Wish::Tell(event) => self.tell_in_lanes(event),
            }
        }
    }

    /// What decides has a lane of its own and overtakes what is routine.
    pub(super) fn tell_in_lanes(&mut self, event: Event) {
        let routine = matches!(
            event,
            Event::Accepted { .. } | Event::Probed { outcome: Probed::Replied { .. }, .. }
        );
        let mut at = self.now;
        if routine {
            if self.rng.u8(..20) == 0 {
                at = at + Duration::from_micros(self.rng.u64(1..500));
            }
            at = at.max(self.routine_until);
            self.routine_until = at;
        }
        self.at(at, Happening::Tell(event));
    }

    pub(super) fn settle(&mut self, id: ProposalId, changes: Vec<Change>, fate: Fate) {
        if self.wrong == Some(Wrong::SkipCommit)
            && changes.iter().any(|change| {
                change.entry.as_ref().is_some_and(|entry| {
                    entry.saga.as_ref().is_some_and(|saga| saga.history.kind == Kind::Failover)
                })
            })
        {
            self.tell(Event::Committed { id: Some(id), changes });
            return;
        }
        let before = self.broker.entry(&self.group).cloned();
        let fate = match fate {
            Fate::Committed => self.broker.commit(&changes),
            Fate::NotCommitted(_) => fate,
        };
        match fate {
            Fate::NotCommitted(why) => {
                self.tell(Event::NotCommitted { id, why: why.to_owned() });
            }
            Fate::Committed => {
                self.observe(&Seen::Committed { before: before.as_ref() });
                self.operator_looks(before.as_ref());
                self.tell(Event::Committed { id: Some(id), changes });
            }
        }
    }

    /// An operator comes some time after the group was halted.
    pub(super) fn operator_looks(&mut self, before: Option<&GroupEntry>) {
        let halted = |entry: &GroupEntry| matches!(entry.status, Status::Halted { .. });
        if halted(self.entry()) && !before.is_some_and(halted) {
            self.counts.halts += 1;
            if self.wrong == Some(Wrong::CommandHalted) {
                let addr = self.addrs[0].clone();
                let deadline = self.now + Duration::from_secs(1);
                let command = Command::Promote { run_id: None, fence: None };
                self.command(u64::MAX, &addr, command, self.broker.token(), deadline);
            }
            if self.troubles {
                let wait = Duration::from_millis(self.rng.u64(100..60_000));
                self.after(wait, Happening::Operator);
            }
        }
    }

    pub(super) fn hear(&mut self, server: usize, mut reply: Reply) {
        if self.wrong == Some(Wrong::TurnOffsets)
            && let Reply::Answer { facts, .. } = &mut reply
            && !facts.is_master()
        {
            facts.offset = 1_000_000_000 - facts.offset;
        }
        let wishes = self.shell.hear(self.now, server, reply);
        self.grant(server, wishes);
    }
}
