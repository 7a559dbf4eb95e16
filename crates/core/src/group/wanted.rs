//! A change of master that somebody asked for: everybody is asked how they are, it is refused or decided, and answered
//! when it has ended. What is decided goes its way without whoever asked; only the answer is theirs.

use std::time::Duration;

use super::{Context, Group, Work};
use crate::action::Action;
use crate::addr::Addr;
use crate::event::{Answer, RefusalCode, Replacement, RequestId, SWITCHOVER_TIMEOUTS};
use crate::node::Token;
use crate::record::{GroupEntry, HistoryEntry, Kind, Phase, Saga, Status};
use crate::time::Time;
use crate::watch::Watch;

mod draft;

use draft::Draft;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To replace a healthy master, in this time.
    Switchover { timeout: Duration },
    /// To replace one that is dead or, with `force`, may be.
    Failover { force: bool },
}

/// A wish until it is answered.
#[derive(Debug)]
pub(super) struct Wanted {
    id: RequestId,
    wish: Wish,
    to: Option<Addr>,
    dry_run: bool,
    asked: Time,
    /// When it is to be looked at without a new event: when those that do not answer are waited for no longer, and when
    /// it has waited for other work long enough.
    look_at: Time,
    /// What was decided for it, and is told with its end.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    history_id: String,
    plan: Vec<String>,
    warnings: Vec<String>,
}

/// Why it is not done.
type Refusal = (RefusalCode, String);

impl Group {
    /// When a request that nothing was begun for is looked at again.
    pub(super) fn wanted_at(&self) -> Option<Time> {
        let wanted = self.wanted.as_ref().filter(|wanted| wanted.begun.is_none());
        wanted.map(|wanted| wanted.look_at)
    }

    /// When something is to be done about a request without a new event.
    pub(super) fn request_timeout(&self) -> Option<Time> {
        let wanted = self.wanted_at();
        let idle = matches!(self.work, Work::Idle) && self.again.is_none();
        let switching = self.switching.as_ref().filter(|_| idle).map(|switching| switching.wake());
        wanted.into_iter().chain(switching).min()
    }

    /// Takes a wish. Its answer comes as an action.
    pub(crate) fn want(
        &mut self,
        ctx: &Context<'_>,
        id: RequestId,
        wish: Wish,
        to: Option<Addr>,
        dry_run: bool,
    ) {
        if let Err(refusal) = self.may_want(wish) {
            self.refuse(id, refusal);
            return;
        }
        let (asked, look_at) = (ctx.now, ctx.now);
        self.wanted = Some(Wanted { id, wish, to, dry_run, asked, look_at, begun: None });
        for watch in self.watches.values_mut() {
            watch.ask(ctx.now, ctx.now);
        }
        self.standing_changed(ctx);
    }

    fn may_want(&self, wish: Wish) -> Result<(), Refusal> {
        if let Status::Halted { reason, .. } = &self.entry.status {
            let why = format!("the group is halted until it is resumed: {reason}");
            return Err((RefusalCode::Halted, why));
        }
        if let Some(why) = self.pause_in_words() {
            return Err((RefusalCode::Refused, format!("{why}; resume it first")));
        }
        if self.entry.saga.is_some() || self.wanted.is_some() {
            let why = "something is being done to the group; ask again when it is finished";
            return Err((RefusalCode::Busy, why.to_owned()));
        }
        if !self.entry.confirmed {
            let why = format!("{} was never seen to be a master", self.entry.master);
            return Err((RefusalCode::Refused, why));
        }
        match wish {
            Wish::Switchover { timeout } if !SWITCHOVER_TIMEOUTS.contains(&timeout) => {
                let why = format!(
                    "a switchover may take {} to {} ms, and not {}",
                    SWITCHOVER_TIMEOUTS.start().as_millis(),
                    SWITCHOVER_TIMEOUTS.end().as_millis(),
                    timeout.as_millis()
                );
                Err((RefusalCode::Refused, why))
            }
            Wish::Switchover { .. } | Wish::Failover { .. } => Ok(()),
        }
    }

    /// Somebody waits, and something else was begun first or is on its way for long.
    pub(super) fn wanted_in_the_way(&mut self, ctx: &Context<'_>) {
        let Some(wanted) = self.wanted.as_mut().filter(|wanted| wanted.begun.is_none()) else {
            return;
        };
        let (heard, end) =
            (self.policy.corroboration_timeout, self.policy.corroboration_timeout * 5);
        let late = ctx.now >= wanted.asked + end;
        wanted.look_at = wanted.asked + if ctx.now < wanted.asked + heard { heard } else { end };
        if self.entry.saga.is_some() || late {
            let why = "something else is being done to the group; nothing was done for this";
            self.answer_refused((RefusalCode::Busy, why.to_owned()));
        }
    }

    /// Decides about the wish, as soon as everyone had time to answer. Returns whether nothing else is to be begun.
    pub(super) fn consider_wanted(&mut self, ctx: &Context<'_>, token: Token) -> bool {
        let Some(wanted) = self.wanted.as_ref().filter(|wanted| wanted.begun.is_none()) else {
            return false;
        };
        let asked = wanted.asked;
        let heard = |watch: &Watch| {
            watch.away() || watch.facts().is_some_and(|facts| facts.asked_at >= asked)
        };
        if ctx.now < asked + self.policy.corroboration_timeout && !self.watches.values().all(heard)
        {
            return true;
        }
        let (wish, to, dry_run) = (wanted.wish, wanted.to.clone(), wanted.dry_run);
        let draft = match wish {
            Wish::Switchover { timeout } => self.draft_switchover(ctx, to.as_ref(), timeout),
            Wish::Failover { force } => self.draft_failover(ctx, to.as_ref(), force, asked),
        };
        match draft {
            Err(refusal) => {
                self.answer_refused(refusal);
                false
            }
            Ok(draft) if dry_run => {
                self.answer_draft(draft);
                false
            }
            Ok(draft) => {
                self.begin_wanted(ctx, token, wish, draft);
                true
            }
        }
    }

    fn begin_wanted(&mut self, ctx: &Context<'_>, token: Token, wish: Wish, draft: Draft) {
        let Draft { target, election, reason, lost, plan, warnings } = draft;
        let (kind, deadline, forced) = match wish {
            Wish::Switchover { timeout } => (Kind::Switchover, Some(ctx.now + timeout), false),
            Wish::Failover { force } => (Kind::ManualFailover, None, force),
        };
        let history = HistoryEntry {
            epoch: self.entry.epoch + 1,
            bytes_possibly_lost: lost,
            ranking: election.ranking,
            ..self.new_history((ctx.now, ctx.me), kind, reason)
        };
        let history_id = history.id.clone();
        let entry = GroupEntry {
            epoch: self.entry.epoch + 1,
            history_next: self.entry.history_next + 1,
            saga: Some(Saga {
                phase: Phase::Decided,
                target_run_id: self.run_id_of(ctx.now, &target),
                target,
                deadline,
                forced,
                promoted_at: None,
                attempts: Vec::new(),
                history,
            }),
            ..self.entry.clone()
        };
        if let Some(wanted) = &mut self.wanted {
            wanted.begun = Some(Begun { history_id, plan, warnings });
        }
        // Whatever was being heard of the old master is over.
        self.hold = None;
        self.veto = None;
        let what = format!("a change of master of {} that was asked for", self.name);
        self.propose(token, what, entry, None);
    }

    fn answer_draft(&mut self, draft: Draft) {
        let Some(wanted) = self.wanted.take() else { return };
        let answer = Replacement {
            id: None,
            group: self.name.clone(),
            old_master: self.entry.master.clone(),
            new_master: draft.target,
            epoch: self.entry.epoch,
            outcome: None,
            reason: draft.reason,
            write_gap_ms: None,
            bytes_possibly_lost: draft.lost,
            dry_run: true,
            plan: draft.plan,
            warnings: draft.warnings,
        };
        self.reply(wanted.id, Answer::Replaced(Box::new(answer)));
    }

    /// Tells how it ended, when what was committed ends it.
    pub(super) fn answer_wanted(&mut self, history: Option<&HistoryEntry>) {
        let Some(history) = history else { return };
        let Some(wanted) = self.wanted.take_if(|wanted| {
            wanted.begun.as_ref().is_some_and(|begun| begun.history_id == history.id)
        }) else {
            return;
        };
        let Some(begun) = wanted.begun else { return };
        let new_master = history.new_master.clone().unwrap_or_else(|| self.entry.master.clone());
        let answer = Replacement {
            id: Some(history.id.clone()),
            group: self.name.clone(),
            old_master: history.old_master.clone(),
            new_master,
            epoch: history.epoch,
            outcome: Some(history.outcome),
            reason: history.reason.clone(),
            write_gap_ms: history.write_gap_ms,
            bytes_possibly_lost: history.bytes_possibly_lost,
            dry_run: false,
            plan: begun.plan,
            warnings: begun.warnings,
        };
        self.reply(wanted.id, Answer::Replaced(Box::new(answer)));
    }

    /// What was decided for a request is not what was committed, and never will be: its revision is over.
    pub(super) fn wanted_overtaken(&mut self) {
        let open = self.entry.saga.as_ref().map(|saga| &saga.history.id);
        let begun = self.wanted.as_ref().and_then(|wanted| wanted.begun.as_ref());
        if begun.is_some_and(|begun| open != Some(&begun.history_id)) {
            let why =
                "another change of the group came first; nothing was done for this: ask again";
            self.answer_refused((RefusalCode::Busy, why.to_owned()));
        }
    }

    /// A proposal was not committed: when it was the decision, nothing was done.
    pub(super) fn wanted_not_committed(&mut self, why: &str) {
        if self.entry.saga.is_none() && self.wanted.as_ref().is_some_and(|w| w.begun.is_some()) {
            let why = format!("not committed, nothing was done: {why}");
            self.answer_refused((RefusalCode::NoQuorum, why));
        }
    }

    /// It is not known what becomes of a proposal.
    pub(super) fn wanted_unsettled(&mut self, why: &str) {
        if self.entry.saga.is_none() && self.wanted.as_ref().is_some_and(|w| w.begun.is_some()) {
            self.answer_refused(unknown(why));
        }
    }

    /// This node may lead no more, and whoever does goes on without the answer.
    pub(super) fn wanted_deposed(&mut self) {
        match self.wanted.as_ref().map(|wanted| wanted.begun.is_some()) {
            None => {}
            Some(true) => self.answer_refused(unknown("another node leads")),
            Some(false) => {
                let why = "the leader changed; nothing was done".to_owned();
                self.answer_refused((RefusalCode::NoLeader, why));
            }
        }
    }

    /// The group is not guarded any more.
    pub(crate) fn wanted_removed(&mut self) {
        let why = format!("the group {} was removed; nothing was done", self.name);
        self.answer_refused((RefusalCode::UnknownGroup, why));
    }

    fn answer_refused(&mut self, refusal: Refusal) {
        if let Some(wanted) = self.wanted.take() {
            self.refuse(wanted.id, refusal);
        }
    }

    fn refuse(&mut self, id: RequestId, (code, message): Refusal) {
        self.reply(id, Answer::Refused { code, message });
    }

    fn reply(&mut self, id: RequestId, answer: Answer) {
        self.actions.push_back(Action::Answer { id, answer });
    }
}

fn unknown(why: &str) -> Refusal {
    let why = format!(
        "it is not known how it ends ({why}); it is carried on or undone: read the group and its history"
    );
    (RefusalCode::UnknownOutcome, why)
}
