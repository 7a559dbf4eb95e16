//! What leaves a group: proposals, commands and notices, and the steps of its saga on their way into the record.

use std::time::Duration;

use super::{Context, Group, Work};
use crate::action::{Action, Command};
use crate::addr::Addr;
use crate::event::{CommandId, ProposalId};
use crate::node::{Leadership, NodeId, Token};
use crate::notice::{Notice, What};
use crate::policy::STEPS_MAX;
use crate::record::{Change, GroupEntry, HistoryEntry, Kind, Outcome, Saga, Step};
use crate::time::{Time, millis};
use crate::watch::Watch;

impl Group {
    pub(super) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn propose(
        &mut self,
        token: Token,
        what: String,
        mut entry: GroupEntry,
        history: Option<HistoryEntry>,
    ) {
        self.open_candidate(&mut entry);
        self.propose_change(token, what, Some(entry), history);
    }

    /// Proposes that the group leaves the record.
    pub(super) fn propose_end(&mut self, token: Token, what: String) {
        self.propose_change(token, what, None, None);
    }

    fn propose_change(
        &mut self,
        token: Token,
        what: String,
        entry: Option<GroupEntry>,
        history: Option<HistoryEntry>,
    ) {
        let id = self.take_id();
        self.work = Work::Proposing { id };
        self.actions.push_back(Action::Propose {
            id: ProposalId::Group(self.name.clone(), id),
            token,
            changes: vec![Change {
                group: self.name.clone(),
                expect: self.revision,
                what,
                entry,
                history,
            }],
        });
    }

    pub(super) fn command(
        &mut self,
        now: Time,
        token: Token,
        addr: &Addr,
        command: Command,
    ) -> CommandId {
        let id = self.take_id();
        self.actions.push_back(Action::Command {
            group: self.name.clone(),
            id,
            via: self.reached_by(now, addr).cloned(),
            addr: addr.clone(),
            command,
            token,
            deadline: now + self.policy.command_timeout,
        });
        id
    }

    /// Tells an instance to follow the recorded master.
    pub(super) fn command_follow(
        &mut self,
        now: Time,
        token: Token,
        addr: &Addr,
        master: Addr,
    ) -> CommandId {
        let facts = self.watches.get(&master).and_then(Watch::facts);
        let master_run_id = facts.and_then(|facts| facts.run_id.clone());
        let keep = self.keeps(addr);
        self.command(now, token, addr, Command::Follow { master, master_run_id, keep })
    }

    pub(super) fn publish(&mut self, at: Time, what: What, sentence: String) {
        let notice = Notice { at, group: self.name.clone(), what, sentence };
        self.actions.push_back(Action::Publish(notice));
    }

    /// An entry of history that begins now, about the recorded master and what is diagnosed of it, before anything was done.
    pub(super) fn new_history(
        &self,
        (now, me): (Time, &NodeId),
        kind: Kind,
        reason: String,
    ) -> HistoryEntry {
        HistoryEntry {
            id: format!("{}-{}", self.name, self.entry.history_next),
            kind,
            epoch: self.entry.epoch,
            old_master: self.entry.master.clone(),
            new_master: None,
            cause: self.diagnosis.name().to_owned(),
            reason,
            outcome: Outcome::Running,
            started_at: now,
            finished_at: None,
            leader: me.clone(),
            write_gap_ms: None,
            bytes_possibly_lost: None,
            steps: Vec::new(),
            ranking: Vec::new(),
        }
    }

    /// Notes when a saga began, by this node's clock, as it hears of it. Two nodes' clocks cannot be compared: what
    /// another leader began is as old as its last step.
    pub(super) fn note_beginning(&mut self, ctx: &Context<'_>, before: &GroupEntry) {
        let Some(history) = self.entry.saga.as_ref().map(|saga| &saga.history) else { return };
        let known = before.saga.as_ref().is_some_and(|saga| saga.history.id == history.id);
        let began = self.began.filter(|_| known);
        self.began = Some(if history.leader == *ctx.me {
            began.unwrap_or(history.started_at)
        } else {
            let ms = history.steps.iter().map(|step| step.at_ms).fold(0.0, f64::max);
            let at_least = Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default();
            began.unwrap_or(ctx.now).min(ctx.now - at_least)
        });
    }

    /// How long ago the open saga began.
    pub(super) fn saga_age(&self, now: Time) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.since(began))
    }

    /// Notes the steps that a commit is, on every node: should the leader die before its next proposal, the next one
    /// knows them.
    pub(super) fn mark_commit(&mut self, ctx: &Context<'_>, before: &GroupEntry) {
        let Some(saga) = &self.entry.saga else { return };
        if before.saga.is_none() {
            let decided_by = saga.history.leader.clone();
            self.mark_by(ctx, decided_by, "committed", None, None);
        }
        if self.entry.master != before.master {
            let by = match ctx.leadership {
                Leadership::Follower { leader } => leader.clone(),
                Leadership::Leader(_) | Leadership::None => ctx.me.clone(),
            };
            self.mark_by(ctx, by.clone(), "recorded", None, None);
            self.mark_by(ctx, by, "told", None, None);
        }
    }

    /// Notes a step of the saga, to be carried into the record by the next proposal.
    pub(super) fn mark(
        &mut self,
        ctx: &Context<'_>,
        name: &str,
        addr: Option<&Addr>,
        note: Option<String>,
    ) {
        self.mark_by(ctx, ctx.me.clone(), name, addr, note);
    }

    fn mark_by(
        &mut self,
        ctx: &Context<'_>,
        node: NodeId,
        name: &str,
        addr: Option<&Addr>,
        note: Option<String>,
    ) {
        let Some(saga) = &self.entry.saga else { return };
        let at_ms = millis(self.saga_age(ctx.now));
        if saga.history.steps.len() + self.steps.len() < STEPS_MAX {
            self.steps.push(Step { name: name.to_owned(), addr: addr.cloned(), at_ms, node, note });
        }
    }

    /// Forgets the steps that are in the record by now, also those that another node noted there: what belongs to no
    /// instance happens once.
    pub(super) fn drop_recorded_steps(&mut self) {
        let Some(saga) = &self.entry.saga else { return };
        let recorded = &saga.history.steps;
        self.steps.retain(|step| {
            !recorded.iter().any(|known| {
                known == step
                    || (step.addr.is_none() && known.addr.is_none() && known.name == step.name)
            })
        });
    }

    /// The saga with the steps noted since the last commit. They stay noted until they are in the record: the proposal
    /// that carries them may be lost.
    pub(super) fn saga_so_far(&self) -> Option<Saga> {
        let mut saga = self.entry.saga.clone()?;
        saga.history.steps.extend(self.steps.iter().cloned());
        Some(saga)
    }

    /// Closes the saga: the entry without it, and its finished history.
    pub(super) fn close_saga(
        &mut self,
        now: Time,
        outcome: Outcome,
    ) -> Option<(GroupEntry, HistoryEntry)> {
        let mut history = self.saga_so_far()?.history;
        history.outcome = outcome;
        history.finished_at = Some(now);
        let entry = GroupEntry { saga: None, ..self.entry.clone() };
        Some((entry, history))
    }
}
