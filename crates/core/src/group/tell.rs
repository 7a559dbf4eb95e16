//! The sentences that are told when something was seen or committed. Every node tells what was committed, so that a
//! listener on any of them hears it.

use super::Group;
use super::diagnose::said;
use crate::addr::Addr;
use crate::notice::What;
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Phase, Saga, Status};
use crate::time::{Time, millis};
use crate::view::{How, State};

impl Group {
    /// Tells that an instance went down or came (back) up.
    pub(super) fn tell_state(&mut self, now: Time, addr: &Addr, before: (State, Time)) {
        let Some(watch) = self.watches.get(addr) else { return };
        let (was, since) = before;
        let role = if *addr == self.entry.master { "master" } else { "instance" };
        match (was, watch.state()) {
            (State::Up | State::Unknown, State::Down) => {
                let how = match watch.how() {
                    How::Refusing => "its host refuses connections",
                    How::Unresolved => "the name of its host cannot be resolved",
                    How::Garbage => "it does not speak its protocol",
                    How::Replied
                    | How::Silent
                    | How::Loading
                    | How::Auth
                    | How::Misconf
                    | How::Busy => "it gives no valid reply",
                };
                let first = millis(now.since(watch.since()));
                let sentence = format!(
                    "the {role} {addr} is down: {how}{}; first sign {first:.1} ms ago",
                    said(watch)
                );
                self.publish(now, What::InstanceDown { addr: addr.clone() }, sentence);
            }
            (State::Down | State::Unknown, State::Up) => {
                let says = match watch.facts() {
                    Some(facts) => match facts.follows() {
                        None => format!("a master at offset {}", facts.offset),
                        Some(of) => format!("a replica of {of} at offset {}", facts.offset),
                    },
                    None => "nothing of its role yet".to_owned(),
                };
                let away = match was {
                    State::Down => format!(" after {:.0} ms", millis(now.since(since))),
                    State::Up | State::Unknown => String::new(),
                };
                let sentence = format!("the {role} {addr} answers{away} and reports to be {says}");
                self.publish(now, What::InstanceUp { addr: addr.clone() }, sentence);
            }
            (State::Up | State::Down | State::Unknown, _) => {}
        }
    }

    /// Tells what a committed change means.
    pub(super) fn tell_commit(
        &mut self,
        now: Time,
        before: &GroupEntry,
        history: Option<&HistoryEntry>,
    ) {
        self.tell_new_instances(now, before);
        self.tell_saga(now, before);
        if self.entry.master != before.master {
            match history.map(|history| history.kind) {
                Some(Kind::Adoption) => self.tell_adoption(now, before),
                Some(
                    Kind::Failover
                    | Kind::ManualFailover
                    | Kind::Switchover
                    | Kind::Demotion
                    | Kind::Repair
                    | Kind::ReplicaEvent,
                )
                | None => {
                    self.tell_master(now, before);
                }
            }
        }
        if let Some(history) = history {
            self.tell_end(now, history);
        }
        match (&before.status, &self.entry.status) {
            (
                Status::Active | Status::Paused { .. } | Status::Resuming,
                Status::Halted { reason, .. },
            ) => {
                let sentence = format!(
                    "the group is halted, nothing more is done to it until it is resumed \
                     (POST /v1/groups/{}/resume): {reason}",
                    self.name
                );
                self.publish(now, What::Halted, sentence);
            }
            (Status::Halted { .. } | Status::Paused { .. } | Status::Resuming, Status::Active) => {
                self.hold = None;
                self.publish(now, What::Resumed, "the group was resumed".to_owned());
            }
            (before, Status::Paused { .. }) if *before != self.entry.status => {
                let sentence = format!(
                    "{}; it is watched, and nothing is done to it",
                    self.pause_in_words().unwrap_or_default()
                );
                self.publish(now, What::Paused, sentence);
            }
            (
                Status::Active | Status::Halted { .. } | Status::Paused { .. } | Status::Resuming,
                Status::Paused { .. } | Status::Resuming,
            )
            | (Status::Active, Status::Active)
            | (Status::Halted { .. }, Status::Halted { .. }) => {}
        }
    }

    fn tell_new_instances(&mut self, now: Time, before: &GroupEntry) {
        let found: Vec<Addr> = self
            .entry
            .instances
            .keys()
            .filter(|addr| !before.instances.contains_key(addr))
            .cloned()
            .collect();
        for addr in found {
            let sentence = format!("{addr} belongs to the group and is watched from now on");
            self.publish(now, What::InstanceFound { addr }, sentence);
        }
    }

    fn tell_saga(&mut self, now: Time, before: &GroupEntry) {
        let Some(saga) = self.entry.saga.clone() else { return };
        match saga.history.kind {
            Kind::Failover | Kind::ManualFailover => {}
            Kind::Switchover => return self.tell_switchover(now, before, &saga),
            Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent => return,
        }
        if saga.phase != Phase::Decided {
            return;
        }
        if let Some(attempt) = saga.attempts.last()
            && before
                .saga
                .as_ref()
                .is_some_and(|before| before.attempts.len() < saga.attempts.len())
        {
            let what =
                What::CandidateAbandoned { addr: attempt.addr.clone(), epoch: attempt.epoch };
            let sentence = format!(
                "the promotion of {} under epoch {} is given up: {}",
                attempt.addr, attempt.epoch, attempt.reason
            );
            self.publish(now, what, sentence);
        }
        if before.epoch != self.entry.epoch {
            let what = What::FailoverDecided {
                old_master: saga.history.old_master.clone(),
                candidate: saga.target.clone(),
                epoch: self.entry.epoch,
            };
            let place = saga.history.ranking.iter().find(|place| place.addr == saga.target);
            let offset = place.and_then(|place| place.offset).unwrap_or_default();
            let priority = place.and_then(|place| place.priority).unwrap_or_default();
            let sentence = format!(
                "failover decided under epoch {}: {} (offset {offset}, priority {priority}) replaces {}, because {}",
                self.entry.epoch, saga.target, saga.history.old_master, saga.history.reason
            );
            self.publish(now, what, sentence);
        }
    }

    fn tell_switchover(&mut self, now: Time, before: &GroupEntry, saga: &Saga) {
        if before.epoch == self.entry.epoch {
            return;
        }
        let what = What::SwitchoverDecided {
            old_master: saga.history.old_master.clone(),
            candidate: saga.target.clone(),
            epoch: self.entry.epoch,
        };
        let sentence = format!(
            "switchover decided under epoch {}: {} replaces {}",
            self.entry.epoch, saga.target, saga.history.old_master
        );
        self.publish(now, what, sentence);
    }

    pub(super) fn tell_master(&mut self, now: Time, before: &GroupEntry) {
        let master = self.entry.master.clone();
        let promoted = |saga: &Saga| saga.phase == Phase::Promoted;
        let fresh = self.entry.saga.as_ref().is_some_and(promoted);
        if !fresh && self.entry.epoch == before.epoch {
            let sentence = format!("{} leads to the master {master}", before.master);
            self.publish(now, What::MasterFound { master }, sentence);
            return;
        }
        let verified = if fresh {
            let gap = millis(self.saga_age(now));
            format!(", verified and recorded {gap:.1} ms after the first sign")
        } else {
            // This node was too far behind to hear of it when it happened.
            String::new()
        };
        let sentence = format!(
            "{master} is the master since epoch {}{verified}; before it was {}",
            self.entry.epoch, before.master
        );
        let what = What::MasterChanged {
            old_master: before.master.clone(),
            new_master: master,
            epoch: self.entry.epoch,
        };
        self.publish(now, what, sentence);
    }

    fn tell_adoption(&mut self, now: Time, before: &GroupEntry) {
        let (old_master, new_master) = (before.master.clone(), self.entry.master.clone());
        let epoch = self.entry.epoch;
        let sentence = format!(
            "{new_master} was made the master by hand in place of {old_master}, and is the recorded one since epoch {epoch}"
        );
        self.publish(now, What::MasterChanged { old_master, new_master, epoch }, sentence);
    }

    fn tell_end(&mut self, now: Time, history: &HistoryEntry) {
        let took = millis(self.saga_age(now));
        let target = history.new_master.clone().unwrap_or_else(|| history.old_master.clone());
        let (what, sentence) = match (history.kind, history.outcome) {
            // That it is up or down, each node tells as it sees it.
            (
                Kind::ReplicaEvent,
                Outcome::Done
                | Outcome::Running
                | Outcome::Failed
                | Outcome::Vetoed
                | Outcome::Undone,
            ) => (What::ReplicaEvent { addr: history.old_master.clone() }, history.reason.clone()),
            // Told already, as another master.
            (
                Kind::Adoption,
                Outcome::Done
                | Outcome::Running
                | Outcome::Failed
                | Outcome::Vetoed
                | Outcome::Undone,
            ) => return,
            (Kind::Failover | Kind::ManualFailover, Outcome::Done | Outcome::Running) => (
                What::FailoverDone { new_master: target.clone() },
                format!("the failover to {target} is finished after {took:.1} ms"),
            ),
            (Kind::Failover | Kind::ManualFailover, Outcome::Failed) => {
                (What::FailoverFailed, format!("the failover failed: {}", history.reason))
            }
            (Kind::Failover | Kind::ManualFailover, Outcome::Vetoed) => {
                (What::FailoverVetoed, format!("the failover was vetoed: {}", history.reason))
            }
            (Kind::Failover | Kind::ManualFailover, Outcome::Undone) => (
                What::FailoverUndone,
                format!(
                    "the failover is not needed any more, nothing was changed: {}",
                    history.reason
                ),
            ),
            (Kind::Switchover, Outcome::Done | Outcome::Running) => (
                What::SwitchoverDone { new_master: target.clone() },
                format!("the switchover to {target} is finished after {took:.1} ms"),
            ),
            (Kind::Switchover, Outcome::Undone | Outcome::Vetoed) => (
                What::SwitchoverUndone,
                format!("the switchover was undone, {target} goes on: {}", history.reason),
            ),
            (Kind::Switchover, Outcome::Failed) => {
                (What::SwitchoverFailed, format!("the switchover failed: {}", history.reason))
            }
            // A master's fence, which is done when it is decided.
            (Kind::Repair, Outcome::Done) if history.steps.is_empty() => {
                (What::Repaired { addr: history.old_master.clone() }, history.reason.clone())
            }
            (Kind::Demotion | Kind::Repair, Outcome::Done | Outcome::Running) => (
                What::Repaired { addr: history.old_master.clone() },
                format!("{}: done after {took:.1} ms", history.reason),
            ),
            (
                Kind::Demotion | Kind::Repair,
                Outcome::Failed | Outcome::Vetoed | Outcome::Undone,
            ) => (
                What::RepairFailed { addr: history.old_master.clone() },
                format!("repair failed: {}", history.reason),
            ),
        };
        self.publish(now, what, sentence);
    }
}
